"""`tercet speech` from a file of clips to transcripts and pictures; on tones (not speech)."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import commands
from spoken import tones, write_tones
from tercet.cli.speech import ProgressReporter
from tercet.speech import ModelSettings, TrainingSettings, evaluate, read_clips, strings_to_test
from tercet.speech.model import least_share
from tercet.speech.storage import load_config, load_model

pytest.importorskip("jiwer", reason="jiwer is not installed (extra `speech`)")
soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra `speech`)")

SIZES = ["--dim", 16, "--num-layers", 2, "--num-heads", 2, "--feed-forward-dim", 32, "--window", 8]
SHORT = ["--epochs", 4, "--batches", 3, "--batch-size", 4, "--threads", 1]
FIGURES = ["word_error_rate", "compute_share", "compute_share_speech"]


run = partial(commands.run, "speech")


def training(folder: Path, out: str, *more: object) -> list[object]:
    return ["train", "--data", folder / "tones.npz", "--out", folder / out, *SIZES, *SHORT, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, two trained models and a sound."""
    folder = tmp_path_factory.mktemp("speech")
    write_tones(folder / "tones.npz")
    threads = torch.get_num_threads()
    (folder / "train.json").write_text(
        run(*training(folder, "gated", "--hold-out", "ann", "--cost-weight", 1, "--json"))
    )
    run(*training(folder, "on", "--gates", "on"))
    torch.set_num_threads(threads)
    strings = strings_to_test(read_clips(folder / "tones.npz"), "ann", (30.0,))
    soundfile.write(folder / "sound.wav", strings[0].samples, 8000)
    return folder


def test_train_prints_one_json_object(folder: Path) -> None:
    result = json.loads((folder / "train.json").read_text())
    assert result["path"] == str(folder / "gated")
    assert result["clips"] == 40
    assert result["compute_share"] == load_config(folder / "gated")["compute_share"]
    assert [epoch["epoch"] for epoch in result["epochs"]] == [1, 2, 3, 4]
    assert sorted(path.name for path in (folder / "gated").iterdir()) == [
        "checkpoint.json",
        "config.json",
        "model.safetensors",
    ]


def test_train_shows_progress_to_people(folder: Path) -> None:
    shown = run(*training(folder, "shown", "--checkpoint-every", 2, "--target-compute", 0.93))
    assert "30 clips of 3 speakers to learn from: ann, bob, cy" in shown
    assert "epoch    2  loss" in shown
    assert f"Model: {folder / 'shown'}" in shown
    assert "The finished model takes 93." in shown or "The finished model takes 92." in shown
    assert "not the target's" not in shown


def test_train_learns_from_a_teacher(folder: Path) -> None:
    run(*training(folder, "taught", "--target-compute", 0.93, "--teacher", folder / "on"))
    run(*training(folder, "untaught", "--target-compute", 0.93))
    on, taught, untaught = (load_config(folder / name) for name in ("on", "taught", "untaught"))
    assert taught["teacher"] == on["weights"]
    assert taught["weights"] != untaught["weights"]
    assert untaught["teacher"] is None


def test_train_says_where_a_target_is_out_of_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which windows that are never full leave; here what is refused beforehand."""
    monkeypatch.setattr("tercet.speech.training.least_share", lambda sizes: 0.0)
    shown = run(*training(folder, "missed", "--target-compute", 0.01))
    share = load_config(folder / "missed")["compute_share"]
    assert share > least_share(ModelSettings(16, 2, 2, 32, 8))
    assert f"missed: the model takes {100 * share:.1f} % of the multiply-adds, not the target's 1.0 %" in shown


def test_the_bar_moves_within_an_epoch() -> None:
    shown = Console(file=io.StringIO(), force_terminal=True)
    with closing(ProgressReporter(shown, TrainingSettings(epochs=3))) as reporter:
        reporter.on_start(tones(), 2)
        reporter.on_step(2, 1, 4, 0.5)
        assert reporter.bar.progress is not None
        assert reporter.bar.progress.tasks[0].completed == 1.25
    assert reporter.bar.progress is None


def test_every_setting_reaches_the_run(folder: Path) -> None:
    sizes = {
        "dim": 8,
        "num_layers": 1,
        "num_heads": 4,
        "feed_forward_dim": 12,
        "window": 3,
        "context": 2,
        "front_end_layers": 1,
        "back_end_layers": 1,
        "gates": "learnt",
    }
    settings = {
        "cost_weight": 0.5, "target_compute": None, "warm_up": 0.25, "ramp": 0.2, "settle": 0.4, "temperature": 2.0,
        "last_temperature": 0.5, "epochs": 2, "batches": 1, "batch_size": 3, "short": 0.5, "learning_rate": 0.01,
        "weight_decay": 0.02, "lowest_snr": 1.0, "highest_snr": 9.0, "masked_bins": 2, "mode": "compact", "seed": 3,
        "checkpoint_every": 1, "teacher_weight": 2.0,
    }  # fmt: skip
    assert set(settings) == set(vars(TrainingSettings()))
    assert set(sizes) == set(vars(ModelSettings()))
    options: list[object] = []
    for name, value in {**sizes, **settings}.items():
        options += [] if value is None else ["--" + name.replace("_", "-"), value]
    options += ["--teacher", folder / "on"]
    run("train", "--data", folder / "tones.npz", "--out", folder / "all", *options)
    config = json.loads((folder / "all" / "config.json").read_text())
    assert config["model"] == sizes
    assert config["training"] == settings


def test_eval_has_the_promised_keys_and_figures(folder: Path) -> None:
    asked = ["eval", "--model", folder / "gated", "--data", folder / "tones.npz", "--hold-out", "ann"]
    found = json.loads(run(*asked, "--snr", 20, "--snr", 5, "--json"))
    strings = strings_to_test(read_clips(folder / "tones.npz"), "ann", (20.0, 5.0))
    wanted = evaluate(load_model(folder / "gated"), strings)
    for name in FIGURES:
        assert found[name] == pytest.approx(getattr(wanted, name))
    assert found["words"] == 40
    assert list(found["by_snr"]) == ["20", "5"]
    assert (found["hold_out"], found["heard_in_training"]) == ("ann", False)
    assert found["real_time_factor"] > 0
    assert 0 < found["step_median_ms"] <= found["step_95_ms"]
    shown = run(*asked)
    assert "20 dB" in shown
    assert "A stream takes" in shown
    assert "has heard clips" not in shown


def test_eval_says_where_a_model_has_heard_the_speaker(folder: Path) -> None:
    shown = run("eval", "--model", folder / "gated", "--data", folder / "tones.npz", "--hold-out", "bob", "--beam", 2)
    assert "ann was held out in training, so it has heard clips of these strings" in " ".join(shown.split())


def test_eval_tests_on_whom_training_held_out(folder: Path) -> None:
    asked = ["eval", "--data", folder / "tones.npz", "--snr", 20, "--json", "--model"]
    found = json.loads(run(*asked, folder / "gated"))
    assert (found["hold_out"], found["heard_in_training"], found["words"]) == ("ann", False, 20)
    found = json.loads(run(*asked, folder / "on"))
    assert (found["hold_out"], found["heard_in_training"], found["words"]) == (None, False, 30)
    found = json.loads(run(*asked, folder / "on", "--hold-out", "bob"))
    assert (found["hold_out"], found["heard_in_training"], found["words"]) == ("bob", True, 20)


def test_transcribe_hears_a_file_of_any_rate(folder: Path) -> None:
    asked = ["transcribe", "--model", folder / "on", "--json"]
    found = json.loads(run(*asked, folder / "sound.wav"))
    assert (found["rate"], found["resampled"], found["compute_share"]) == (8000, False, 1.0)
    assert len(found["digits"]) == len(found["words"].split())
    samples, _ = soundfile.read(folder / "sound.wav")
    soundfile.write(folder / "stereo.wav", np.stack([samples, samples], 1), 8000)
    assert json.loads(run(*asked, folder / "stereo.wav"))["digits"] == found["digits"]
    soundfile.write(folder / "fast.wav", np.repeat(samples, 2), 16000)
    resampled = json.loads(run(*asked, folder / "fast.wav"))
    assert (resampled["rate"], resampled["resampled"]) == (16000, True)
    assert resampled["seconds"] == pytest.approx(found["seconds"], rel=0.01)
    shown = run("transcribe", "--model", folder / "on", folder / "fast.wav")
    assert "fast.wav: resampled from 16000 to 8000 Hz" in " ".join(shown.split())


def test_plot_draws_compute_and_blocks(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")
    asked = ["plot", "--model", folder / "gated", "--model", folder / "on", "--out", folder / "pictures"]
    run(*asked, "--data", folder / "tones.npz", "--hold-out", "ann", "--snr", 20)
    samples, _ = soundfile.read(folder / "sound.wav")
    soundfile.write(folder / "other.wav", np.repeat(samples[:100], 2), 16000)  # 100 samples of ours: less than a frame
    shown = run(*asked[:-1], folder / "one", "--sound", folder / "other.wav")
    assert "other.wav: resampled from 16000 to 8000 Hz" in " ".join(shown.split())
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["blocks.png", "compute.png"]
    assert [path.name for path in (folder / "one").iterdir()] == ["blocks.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "pictures").iterdir())


def test_plot_compares_models_of_other_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are of the first model's multiply-adds, labels the paths as they were given."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")
    run("train", "--data", folder / "tones.npz", "--out", folder / "wide", *SIZES[2:], "--dim", 32, *SHORT,
        "--gates", "on", "--hold-out", "ann")  # fmt: skip
    drawn, models = [], [folder / "gated", folder / "wide", folder / "cli" / ".." / "gated"]
    (folder / "cli").mkdir()
    monkeypatch.setattr("tercet.cli.speech.plot_compute", lambda points, path, **more: drawn.append((points, more)))
    asked = [part for model in models for part in ("--model", model)]
    run("plot", *asked, "--out", folder / "compared", "--data", folder / "tones.npz", "--snr", 20)
    ((points, more),) = drawn
    strings = strings_to_test(read_clips(folder / "tones.npz"), "ann", (20.0,))
    found = [evaluate(load_model(model), strings) for model in models]
    assert [point.label for point in points] == [str(model) for model in models]
    shares = [one.spent.sum() / found[0].dense.sum() for one in found]
    assert [point.compute_share for point in points] == pytest.approx(shares)
    assert shares[1] > 1.2
    assert [point.word_error_rate for point in points] == [one.word_error_rate for one in found]
    assert more["whole"] == f"those of {models[0]} with every block on"


def errors(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    return " ".join(commands.error_of(capsys, "speech", *args).split())


def test_bad_files_are_named(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ["transcribe", "--model", folder / "on"]
    assert "none.wav: no such sound file" in errors(capsys, *asked, tmp_path / "none.wav")
    (tmp_path / "empty.wav").touch()
    assert "empty.wav: expected a sound file, got an empty one" in errors(capsys, *asked, tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("no sound")
    assert "text.wav: expected a sound file: " in errors(capsys, *asked, tmp_path / "text.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), 8000)
    assert "silent.wav: the sound file holds no samples" in errors(capsys, *asked, tmp_path / "silent.wav")
    soundfile.write(tmp_path / "click.wav", np.full(1, 0.5), 192000)
    assert "click.wav: the sound file holds no samples" in errors(capsys, *asked, tmp_path / "click.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(400, np.nan), 8000, subtype="FLOAT")
    assert "nan.wav: samples must be finite" in errors(capsys, *asked, tmp_path / "nan.wav")
    half = (folder / "sound.wav").read_bytes()[:20]
    (tmp_path / "half.wav").write_bytes(half)
    assert "half.wav: " in errors(capsys, *asked, tmp_path / "half.wav")
    (tmp_path / "empty.npz").touch()
    shown = errors(capsys, "train", "--data", tmp_path / "empty.npz", "--out", tmp_path / "m")
    assert "empty.npz: expected an npz file of spoken digits" in shown
    assert "no model here" in errors(capsys, "transcribe", "--model", tmp_path, folder / "sound.wav")


def test_what_does_not_go_together_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder / "tones.npz"
    shown = errors(capsys, "train", "--data", data, "--out", folder / "x", "--target-compute", 0.4, "--cost-weight", 1)
    assert "give cost_weight or target_compute, not both" in shown
    shown = errors(capsys, "train", "--data", data, "--out", folder / "x", "--gates", "on", "--cost-weight", 1)
    assert "with gates on there is no cost to weigh" in shown
    shown = errors(capsys, "train", "--data", data, "--out", folder / "x", "--teacher", folder / "gated")
    assert "it had hold_out = 'ann', this run has None" in shown
    shown = errors(capsys, "train", "--data", data, "--out", folder / "x", "--teacher-weight", 2)
    assert "--teacher-weight is that of a --teacher, and there is none" in shown
    shown = errors(capsys, "eval", "--model", folder / "on", "--data", data, "--hold-out", "dan")
    assert "must be one of ann, bob, cy, got 'dan'" in shown
    assert "give --data" in errors(capsys, "plot", "--model", folder / "on", "--out", folder / "x")
    shown = errors(capsys, "plot", "--model", folder / "on", "--out", folder / "x", "--data", data, "--string", 999)
    assert "--string must be one of the " in shown
    shown = errors(capsys, "plot", "--model", folder / "on", "--out", folder / "x", "--data", data, "--sound", "no.wav")
    assert "no.wav: no such sound file" in shown
    assert not (folder / "x").exists()
    for ratios in (["nan"], ["inf"], [10, 20, 10]):
        given = [part for ratio in ratios for part in ("--snr", ratio)]
        shown = errors(capsys, "eval", "--model", folder / "on", "--data", data, *given)
        assert "--snr must be finite and given once each, got " in shown


@pytest.mark.parametrize("missing", ["jiwer", "soundfile", "soxr"])
def test_without_an_extra_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str,
                                      capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, missing, None)
    asked = ["transcribe", "--model", folder / "on", folder / "sound.wav"]
    if missing == "jiwer":
        asked = ["eval", "--model", folder / "on", "--data", folder / "tones.npz"]
    assert "pip install 'tercet[speech]'" in errors(capsys, *asked)
