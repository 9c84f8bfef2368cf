"""`tercet label pretrain`, `train` and `generate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import error_of, run
from label_models import music
from tercet.labeling import DialogueReader, write_dialogues

SMALL = (
    "--dim",
    16,
    "--num-heads",
    2,
    "--feed-forward-dim",
    16,
    "--dialogue-layers",
    1,
    "--epochs",
    2,
    "--batch-size",
    8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl, and a model of it."""
    path = tmp_path_factory.mktemp("labels")
    write_dialogues(path / "data.jsonl", [music(number) for number in range(60)])
    run("label", "train", "--data", path / "data.jsonl", "--out", path / "model", *SMALL, "--held-out", 0.4)
    return path


def test_train_says_what_it_learnt(folder: Path, tmp_path: Path) -> None:
    args = ("label", "train", "--data", folder / "data.jsonl", "--out", tmp_path / "m", *SMALL, "--json")
    found = json.loads(run(*args))
    assert found["dialogues"] + found["held_out"] == 60
    assert len(found["epochs"]) == 2
    assert set(found["parts"]) >= {"begins", "slots", "transcription"}
    assert json.loads(run(*args, "--resume"))["epochs"] == found["epochs"]


def test_pretrained_encoders_begin_training(folder: Path, tmp_path: Path) -> None:
    data = folder / "data.jsonl"
    said = run("label", "pretrain", "--data", data, "--out", tmp_path / "start", *SMALL)
    assert "Learnt swapped from 60 dialogues" in said
    found = json.loads(
        run(
            "label",
            "train",
            "--data",
            data,
            "--start",
            tmp_path / "start",
            "--out",
            tmp_path / "m",
            "--epochs",
            1,
            "--json",
        )
    )
    assert "swapped" not in found["parts"]


def test_generate_writes_labels_and_a_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    args = ("label", "generate", "--model", folder / "model", "--data", folder / "data.jsonl", "--out", out)
    found = json.loads(run(*args, "--min-precision", 0.5, "--human-rate", 100, "--json"))
    assert found["dialogues"] == 60
    assert found["turns"] == 240
    assert found["human_rate"] == 100
    assert found["times_human_rate"] == pytest.approx(found["labels_per_hour"] / 100)
    made = list(DialogueReader(out))
    written = sum(len(a.labels.intents or {}) for d in made for a in d.annotations)
    assert written == found["kinds"]["intents"]["written"]
    for kind in found["kinds"].values():
        assert kind["bound"] >= 0.5 or (kind["written"] == 0 and kind["threshold"] is None)
    said = run(*args, "--human-rate", 100)
    assert "turns a second" in said
    assert "of a person" in said
    said = run(*args, "--min-precision", 0.5, "--calibration", folder / "data.jsonl")
    assert "coverage" in said


def test_errors(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model, out = folder / "data.jsonl", folder / "model", tmp_path / "out.jsonl"
    generate = ("label", "generate", "--model", model, "--data", data)
    for args, message in (
        ((*generate, "--out", tmp_path / "out.txt"), "must end in .jsonl or .parquet"),
        ((*generate, "--out", out, "--min-precision", 1.5), "--min-precision must be between 0 and 1, got 1.5"),
        ((*generate, "--out", out, "--human-rate", 0), "--human-rate must be above 0"),
        (("label", "generate", "--model", tmp_path, "--data", data, "--out", out), "no model here"),
        (("label", "train", "--data", data, "--out", model), "must be empty"),
        (("label", "train", "--data", data, "--out", tmp_path / "m", "--dim", 15), "dim must be a multiple of num_heads"),
        (("label", "train", "--data", tmp_path / "none.jsonl", "--out", tmp_path / "m"), "no such file"),
    ):  # fmt: skip
        assert message in error_of(capsys, *args)
    assert not out.exists()


def test_malformed_lines_are_skipped_only_when_asked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    data.write_bytes((folder / "data.jsonl").read_bytes() + b"{}\n")
    generate = ("label", "generate", "--model", folder / "model", "--data", data, "--out", out)
    assert f"{data}:61: id is missing" in error_of(capsys, *generate)
    assert not out.exists()
    assert json.loads(run(*generate, "--skip-malformed", "--json"))["skipped"] == 1
    train = ("label", "train", "--data", data, "--out", tmp_path / "m", *SMALL)
    assert f"{data}:61: id is missing" in error_of(capsys, *train)
    assert json.loads(run(*train, "--skip-malformed", "--json"))["skipped"] == 1
