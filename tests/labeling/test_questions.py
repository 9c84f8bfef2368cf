"""Gold of three annotators and one person beside it: against counting by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch

from tercet.labeling import CONVERTERS, Annotation, Dialogue, Goal, Labels, Turn
from tercet.labeling.evaluation.questions import NOTHING, questions

TURNS = (Turn("user", "play jazz"), Turn("system", "Playing jazz."))


def judged(name: str, *outcomes: bool, gold: bool | None = None) -> Dialogue:
    annotations = tuple(
        Annotation(f"a{place}", Labels(goals=(Goal(None, each),))) for place, each in enumerate(outcomes)
    )
    return Dialogue(name, TURNS, Labels() if gold is None else Labels(goals=(Goal(None, gold),)), annotations)


def test_gold_is_the_majority_of_three_and_the_human_is_a_fourth() -> None:
    votes = {"x": (True, True, False, False), "y": (True, False, False, False), "z": (True,) * 4}
    found = questions([judged(name, *outcomes) for name, outcomes in votes.items()], "goals", draws=400)
    assert found is not None
    assert found.classes == ("missed", "reached")
    assert found.places == ((), (), ())
    assert found.dialogues.tolist() == [0, 1, 2]
    assert found.shares[:, 1].tolist() == [0.5, 0.25, 1.0]
    assert found.human is not None
    # x: the fourth says what the majority does not. y: never a majority. z: always.
    assert torch.equal(found.gold[:, 0], 1 - found.human[:, 0])
    assert not found.gold[:, 1].any()
    assert bool(found.gold[:, 2].all())
    assert not found.agreed[:, 0].any()
    assert torch.equal(found.agreed[:, 1], found.human[:, 1] == 1)
    shares = [float(each) for each in found.human.double().mean(0)]
    assert shares == pytest.approx([0.5, 0.25, 1.0], abs=0.08)


def test_draws_are_even_over_panels() -> None:
    outcomes = (True, True, True, False, False, False)
    found = questions([judged(f"d{place}", *outcomes) for place in range(50)], "goals", draws=40, seed=7)
    assert found is not None
    panels = [sum(outcomes[each] for each in panel) for panel in combinations(range(6), 3)]
    unanimous = sum(each in (0, 3) for each in panels) / len(panels)
    assert float(found.agreed.double().mean()) == pytest.approx(unanimous, abs=0.03)
    assert float(found.gold.double().mean()) == pytest.approx(0.5, abs=0.04)
    again = questions([judged(f"d{place}", *outcomes) for place in range(50)], "goals", draws=40, seed=7)
    assert again is not None
    assert torch.equal(found.gold, again.gold)


def test_items_of_a_dialogue_have_the_same_annotators() -> None:
    annotations = tuple(
        Annotation(name, Labels(intents=dict.fromkeys((0, 1), name))) for name in ("ann", "bob", "eve", "joe", "kim")
    )
    found = questions([Dialogue("1", TURNS, annotations=annotations)], "intents", draws=30)
    assert found is not None
    assert found.human is not None
    assert torch.equal(found.human[:, 0], found.human[:, 1])
    assert (found.gold == NOTHING).all()  # everybody says something else
    assert len(found.human.unique()) == 5


def test_gold_labels_go_before_annotators() -> None:
    found = questions([judged("x", False, gold=True), judged("y", False, False, True, True)], "goals", draws=50)
    assert found is not None
    assert bool(found.gold[:, 0].all())
    assert bool(found.agreed[:, 0].all())
    assert found.shares[0].tolist() == [0.0, 1.0]
    assert found.human is not None
    assert not found.human[:, 0].any()  # the one annotator of x
    alone = questions([judged("x", gold=True)], "goals")
    assert alone is not None
    assert alone.human is None
    assert alone.gold.shape == (1, 1)


def test_items_without_three_annotators_are_left_out() -> None:
    found = questions([judged("x", True, True), judged("y", True, True, True)], "goals")
    assert found is not None
    assert (found.left_out, len(found), found.dialogues.tolist()) == (1, 1, [1])
    assert found.human is None
    assert questions([judged("x", True, True)], "goals") is None
    assert questions([Dialogue("x", TURNS)], "defects") is None


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"questions: task must be one of goals, .*, got 'slots'"):
        questions([], "slots")
    with pytest.raises(ValueError, match=r"questions: draws must be a positive integer, got 0"):
        questions([], "goals", draws=0)


def test_one_annotator_of_stc3_against_three_others(data: Path) -> None:
    """The figures of the data's own documentation: accuracy .796, precision .487, recall .591, F1 .534."""
    from tercet.labeling.evaluation.evaluating import detect_by_human

    folder = data / "dialogue" / "stc3_dch1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: no STC-3 here")
    dialogues = list(CONVERTERS["stc3"](folder))
    found = questions(dialogues, "goals")
    assert found is not None
    assert found.left_out == 0
    human = detect_by_human(found, "reached", len(dialogues))
    assert human is not None
    figures = human.figures()
    assert figures["accuracy"] == pytest.approx(0.796, abs=0.009)
    assert figures["f1"] == pytest.approx(0.534, abs=0.019)
    assert figures["precision"] == pytest.approx(0.487, abs=0.02)
    assert figures["recall"] == pytest.approx(0.591, abs=0.02)
