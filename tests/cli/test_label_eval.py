"""`tercet label eval`: keys, figures and the table of a small annotated file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import error_of, run
from tercet.labeling import Annotation, Dialogue, Goal, Labels, Turn, write_dialogues
from tercet.labeling.evaluation.metrics import DETECTION_FIGURES

pytest.importorskip("sklearn")


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """Twelve dialogues of four annotators, of whom the last always says the opposite."""
    made = []
    for number in range(12):
        reached = number % 2 == 0
        turns = (Turn("user", f"line {number} is dead"), Turn("user", "thanks , solved" if reached else "still broken"))
        annotations = tuple(
            Annotation(f"a{each}", Labels(goals=(Goal(None, reached if each < 3 else not reached),)))
            for each in range(4)
        )
        made.append(Dialogue(f"d{number}", turns, annotations=annotations))
    path = tmp_path / "annotated.jsonl"
    write_dialogues(path, made)
    return path


def test_json_has_model_human_and_baseline(annotated: Path) -> None:
    found = json.loads(
        run("label", "eval", "--data", annotated, "--folds", 3, "--draws", 4, "--epochs", 1, "--seed", 1, "--json")
    )
    success = found["goal_success"]
    assert (found["folds"], found["draws"], found["seed"], success["items"]) == (3, 4, 1, 12)
    for figures in (success, success["human"], success["baseline"], success["agreed"], success["human"]["agreed"]):
        assert set(DETECTION_FIGURES) <= set(figures)
    # A panel has the contrary annotator or not: its majority is right, and whoever is left is wrong only if he is.
    assert success["baseline"]["accuracy"] == 1.0
    assert 0.4 < success["human"]["accuracy"] < 1.0
    assert success["human"]["agreed"]["accuracy"] == 0.0  # three agree: the fourth is the contrary one
    assert len(success["thresholds"]) == 3
    below = success["baseline"]["below"]["f1"]
    assert below["difference"] == pytest.approx(success["f1"] - success["baseline"]["f1"])


def test_a_table_for_people(annotated: Path) -> None:
    shown = run("label", "eval", "--data", annotated, "--folds", 2, "--draws", 2, "--epochs", 1, "--no-baseline")
    assert "goal_success" in shown
    assert "human" in shown
    assert "baseline" not in shown.split("in brackets")[0]


def test_errors(annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "annotated.jsonl: folds must be in 2..12, the number of dialogues, got 13" in error_of(
        capsys, "label", "eval", "--data", annotated, "--folds", 13
    )
    assert "nowhere.jsonl: no such file" in error_of(capsys, "label", "eval", "--data", tmp_path / "nowhere.jsonl")
