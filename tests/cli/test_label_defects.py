"""`tercet label defects`: requests by the evidence of feedback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import error_of, run
from tercet.labeling import Dialogue, DialogueReader, Turn, write_dialogues


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    made = []
    for number in range(120):
        bad = number % 4 == 0
        feedback = {"answer": bad == (number % 40 == 0)} | ({"stop": True} if bad and number % 12 else {})
        turns = Turn("user", "play jaz" if bad else f"play [{number % 5}]"), Turn("system", "Done.", feedback=feedback)
        made.append(Dialogue(f"d{number}", turns, metadata={"caller": f"c{number % 60}"}))
    write_dialogues(tmp_path / "calls.jsonl", made)
    return tmp_path / "calls.jsonl"


def test_defects(calls: Path) -> None:
    given = ("label", "defects", "--data", calls, "--user", "caller")
    found = json.loads(run(*given, "--top", "1", "--always", "stop", "--json"))
    assert (found["file"], found["alpha"], found["requests"]) == (str(calls), 0.05, 6)
    assert 0 < found["defect_rate"] < 1
    (worst,) = found["ranked"]
    assert (worst["text"], worst["action"], worst["users"], worst["turns"]) == ("play jaz", "done", 15, 30)
    assert 0.5 < worst["lower"] < worst["defect_rate"] < worst["upper"] <= 1
    assert found["signals"]["stop"]["observed"] == found["signals"]["answer"]["observed"] == 120
    assert found["signals"]["stop"]["learnt"]
    assert found["signals"]["stop"]["shown"] == 20
    said = " ".join(run(*given).split())
    assert "play jaz" in said
    assert "6 requests with feedback" in said
    assert "stop always speaks of a defect, so how it errs is a guess" in said
    assert "--always stop" in said


def test_weak_labels_are_written_to_train_on(calls: Path, tmp_path: Path) -> None:
    soft, model = tmp_path / "soft.jsonl", tmp_path / "model"
    run("label", "defects", "--data", calls, "--user", "caller", "--out", soft)
    before, after = list(DialogueReader(calls)), list(DialogueReader(soft))
    for old, new in zip(before, after, strict=True):
        (made,) = new.annotations
        assert (made.annotator, made.labels.judged, new.turns) == ("feedback", {"defects": (1,)}, old.turns)
        assert made.labels.defects == ((1,) if old.turns[0].text == "play jaz" else ())
        assert made.confidence["defects"][0] >= 0.5
        assert made.weight["defects"] == (1.0,)
    run("label", "train", "--data", soft, "--out", model, "--epochs", "1", "--json")
    assert (model / "config.json").is_file()


def test_errors(calls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--alpha must be between 0 and 0.5, got 0.7" in error_of(
        capsys, "label", "defects", "--data", calls, "--alpha", "0.7"
    )
    assert "cap must be above 0" in error_of(capsys, "label", "defects", "--data", calls, "--cap", "0")
    bare = tmp_path / "bare.jsonl"
    write_dialogues(bare, [Dialogue("1", (Turn("user", "stop"),))])
    message = error_of(capsys, "label", "defects", "--data", bare)
    assert message.startswith(f"tercet: {bare}: dialogues must have feedback on turns")
