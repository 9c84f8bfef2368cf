"""`tercet label explore`: a list of turns to ask about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import error_of, run
from tercet.labeling import Dialogue, Labels, ModelSettings, TrainingSettings, Turn, write_dialogues
from tercet.labeling.training.train import train


def call(number: int, labels: Labels, **feedback: bool) -> Dialogue:
    bad = number % 3 == 0
    turns = Turn("user", "play jaz" if bad else "play jazz"), Turn("system", "Done.", feedback=feedback)
    return Dialogue(f"d{number}", turns, labels, metadata={"user": f"u{number}"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    learnt = [call(n, Labels(defects=(1,) if n % 3 == 0 else ())) for n in range(24)]
    sizes = ModelSettings(dim=8, num_heads=2, feed_forward_dim=8, dialogue_layers=1)
    train(learnt, TrainingSettings(epochs=1, held_out=0), sizes, out=out)
    return out


def test_explore(model: Path, tmp_path: Path) -> None:
    calls, out = tmp_path / "calls.jsonl", tmp_path / "ask.jsonl"
    write_dialogues(calls, [call(n, Labels(), **({"stop": n % 3 == 0} if n < 9 else {})) for n in range(12)])
    given = ("label", "explore", "--model", model, "--data", calls, "--budget", "3", "--per-request", "2", "--out", out)
    found = json.loads(run(*given, "--json"))
    assert (found["model"], found["file"], found["task"]) == (str(model), str(calls), "defects")
    assert found["chosen"] == [json.loads(line) for line in out.read_text().splitlines()]
    assert {each["text"] for each in found["chosen"]} == {"play jaz", "play jazz"}
    assert all(each["turn"] == 1 for each in found["chosen"])
    with_feedback = json.loads(run(*given, "--feedback", "--json"))["chosen"]
    assert [each["gain"] for each in with_feedback] != [each["gain"] for each in found["chosen"]]
    said = " ".join(run(*given).split())
    assert "play jazz" in said
    assert f"3 turns in {out}" in said


def test_errors(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = tmp_path / "calls.jsonl"
    write_dialogues(calls, [call(0, Labels())])
    given = ("label", "explore", "--model", model, "--data", calls, "--budget", "3")
    assert "--task must be one of defects, intents, failure_point, got 'goals'" in error_of(
        capsys, *given, "--task", "goals"
    )
    assert "must be of a model that does intents" in error_of(capsys, *given, "--task", "intents")
    assert "must have feedback on turns" in error_of(capsys, *given, "--feedback")
