"""Metrics of labels: against cases worked out by hand, and against scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Goal, Labels, Slot, Turn
from tercet.labeling.evaluation.metrics import (
    DETECTION_FIGURES,
    class_counts,
    detection_counts,
    detection_figures,
    f1,
    label_counts,
    macro_f1,
    matching_counts,
    precision,
    recall,
    segmentation_counts,
    word_error_counts,
)

sklearn = pytest.importorskip("sklearn.metrics")
seeds = st.integers(0, 2**32 - 1)
TURNS = (
    Turn("user", "a table at Nopa and a taxi"),
    Turn("system", "For how many?"),
    Turn("user", "two"),
    Turn("system", "Booked. And the taxi?"),
    Turn("user", "Where is my TAXI"),
)


def counts(what: str, gold: Labels, predicted: Labels) -> list[float]:
    found = label_counts(what, gold, predicted, TURNS)
    assert found is not None
    return [float(value) for value in found]


def test_goals_by_hand() -> None:
    gold = Labels(goals=(Goal((0, 1, 2)), Goal((3, 4))))
    predicted = Labels(goals=(Goal((0, 1)), Goal((2, 3, 4))))
    # Gold pairs: 00 01 02 11 12 22, 33 34 44; predicted: 00 01 11, 22 23 24 33 34 44. Shared: 00 01 11 22 33 34 44.
    assert counts("goal_membership", gold, predicted) == [7, 9, 9]
    assert counts("goal_boundary", gold, predicted) == [0, 1, 1]
    assert counts("goal_boundary", gold, gold) == [1, 1, 1]
    some = Labels(goals=(Goal((3, 4)),), judged={"goals": (1, 3)})  # of the goal at 0 nothing is known
    assert counts("goal_boundary", some, Labels(goals=(Goal((0, 1)), Goal((1,)), Goal((2, 3))))) == [0, 1, 1]
    assert counts("goal_membership", some, Labels(goals=(Goal((0, 1)), Goal((3,))))) == [1, 1, 3]
    interleaved = Labels(goals=(Goal((0, 2, 4)), Goal((1, 2))))
    assert counts("goal_boundary", interleaved, gold) == [0, 1, 1]
    assert counts("goal_membership", interleaved, gold) == [6, 9, 8]  # 00 02 11 12 22 44
    assert counts("goal_membership", gold, Labels()) == [0, 0, 9]
    assert label_counts("goal_membership", Labels(goals=(Goal(None, True),)), gold, TURNS) is None
    assert label_counts("goal_boundary", Labels(), gold, TURNS) is None


def test_slots_are_exact_spans_and_their_values_are_texts() -> None:
    gold = Labels(slots=(Slot(0, 11, 15, "place"), Slot(0, 22, 26, "service"), Slot(4, 12, 16, "service")))
    predicted = Labels(slots=(Slot(0, 11, 15, "place"), Slot(0, 20, 26, "service"), Slot(4, 12, 16, "kind")))
    assert counts("slots", gold, predicted) == [1, 3, 3]
    assert counts("slot_values", gold, predicted) == [1, 3, 3]  # "a taxi" is another value
    again = Labels(slots=(Slot(3, 16, 20, "service"),))
    elsewhere = Labels(slots=(Slot(3, 16, 20, "service"), Slot(4, 12, 16, "service")))
    assert counts("slot_values", again, elsewhere) == [1, 2, 1]
    assert TURNS[4].text[12:16] == "TAXI"
    shifted = Labels(slots=(Slot(4, 12, 16, "service"), Slot(4, 11, 16, "service")))
    assert counts("slot_values", Labels(slots=(Slot(4, 12, 16, "service"),)), shifted) == [1, 2, 1]


def test_defects_and_classes_of_turns() -> None:
    assert counts("defects", Labels(defects=(1, 3)), Labels(defects=(3, 4))) == [1, 2, 2]
    gold = Labels(intents={0: "book", 2: "inform"})
    assert counts("intents", gold, Labels(intents={0: "book", 1: "ask", 2: "book"})) == [1, 2, 2]
    assert counts("intents", gold, Labels(intents={2: "inform"})) == [1, 1, 2]  # abstained from one
    assert counts("failure_point", Labels(failure_point={1: "result"}), Labels()) == [0, 0, 1]
    with pytest.raises(ValueError, match=r"label_counts: what must be one of goal_boundary, .*, got 'acts'"):
        label_counts("acts", gold, gold, TURNS)


def test_figures_of_nothing_are_zero() -> None:
    nothing = matching_counts((), ())
    assert [float(figure(nothing)) for figure in (precision, recall, f1)] == [0, 0, 0]
    assert macro_f1({}) == 0


@given(seeds, st.integers(1, 30), st.integers(2, 4))
def test_classes_against_scikit_learn(seed: int, num_items: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    gold, predicted = (list(map(str, rng.integers(0, num_classes, num_items))) for _ in range(2))
    found = class_counts(gold, predicted)
    assert macro_f1(found) == pytest.approx(sklearn.f1_score(gold, predicted, average="macro", zero_division=0))
    by_class = sklearn.precision_recall_fscore_support(gold, predicted, labels=list(found), zero_division=0)
    for place, own in enumerate(found.values()):
        ours = [float(figure(own)) for figure in (precision, recall, f1)]
        assert ours == pytest.approx([float(theirs[place]) for theirs in by_class[:3]])


def test_classes_that_were_abstained_from() -> None:
    found = class_counts(["a", "a", "b"], ["a", None, None])
    assert {name: own.tolist() for name, own in found.items()} == {"a": [1, 1, 2], "b": [0, 0, 1]}
    with pytest.raises(ValueError, match=r"class_counts: predicted must be of the 1 items, got 0"):
        class_counts(["a"], [])


@given(seeds, st.integers(1, 30))
def test_detection_against_scikit_learn(seed: int, num_items: int) -> None:
    rng = np.random.default_rng(seed)
    gold, scores = rng.random(num_items) < 0.4, rng.permutation(num_items) / num_items
    predicted = scores >= rng.random()
    found = detection_figures(detection_counts(*map(torch.from_numpy, (gold, predicted, scores))).sum(0))
    assert tuple(found) == DETECTION_FIGURES
    assert float(found["accuracy"]) == pytest.approx(sklearn.accuracy_score(gold, predicted))
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")(gold, predicted, zero_division=0)
        assert float(found[name]) == pytest.approx(theirs)
    surest = [place for place in np.argsort(-scores) if predicted[place]]
    surest = surest[: (len(surest) + 1) // 2]
    wanted = gold[surest].mean() if surest else 0.0
    assert float(found["precision_at_half_coverage"]) == pytest.approx(wanted)


def test_half_coverage_shares_what_is_equally_sure() -> None:
    gold = torch.tensor([True, False, True, False, False])
    predicted = torch.tensor([True, True, True, True, False])
    scores = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.99])
    found = detection_figures(detection_counts(gold, predicted, scores).sum(0))
    assert float(found["precision_at_half_coverage"]) == pytest.approx((1 + 1 / 3) / 2)
    even = detection_figures(detection_counts(gold, predicted, torch.zeros(5)).sum(0))
    assert even["precision_at_half_coverage"] == even["precision"] == 0.5
    halves = [scores[list(half)] for half in itertools.combinations(range(4), 2)]
    assert len(halves) == 6  # of which a random half is one: on average it has the precision of all


def test_detection_repeats_over_draws_of_gold() -> None:
    generator = torch.Generator().manual_seed(0)
    gold, scores = torch.rand(3, 7, generator=generator) < 0.5, torch.rand(7, generator=generator)
    together = detection_counts(gold, scores > 0.4, scores)
    assert together.shape == (3, 7, 7)
    for draw in range(3):
        assert torch.equal(together[draw], detection_counts(gold[draw], scores > 0.4, scores))
    with pytest.raises(ValueError, match=r"must be of the same items, got \[3\], \[2\], \[3\]"):
        detection_counts(torch.ones(3) > 0, torch.ones(2) > 0, torch.ones(3))
    with pytest.raises(TypeError, match=r"gold must be bool, got torch.float32"):
        detection_counts(torch.ones(3), torch.ones(3) > 0, torch.ones(3))


@given(seeds, st.integers(1, 12), st.integers(1, 5))
def test_segmentation_by_its_definition(seed: int, num_turns: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    gold, predicted = ({turn for turn in range(num_turns) if rng.random() < 0.4} for _ in range(2))
    different, apart, windows = 0, 0, 0
    for first in range(num_turns - window):
        own, other = (sum(first < turn <= first + window for turn in begins) for begins in (gold, predicted))
        different, apart, windows = different + (own != other), apart + ((own > 0) != (other > 0)), windows + 1
    assert segmentation_counts(gold, predicted, num_turns, window).tolist() == [different, apart, windows]


def test_segmentation_errors() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        segmentation_counts({1}, {1}, 4, 0)


def test_word_errors() -> None:
    assert word_error_counts("a b c", "a x c d").tolist() == [2, 3]
    assert word_error_counts("", "a b").tolist() == [2, 0]
    assert word_error_counts("a b", "").tolist() == [2, 2]


def test_turns_that_gold_does_not_judge_do_not_count() -> None:
    gold = Labels(
        defects=(1,), slots=(Slot(0, 11, 15, "place"), Slot(2, 0, 3, "people")),
        judged={"defects": (1, 3), "slots": (0, 4)},
    )  # fmt: skip
    made = Labels(defects=(0, 1, 3), slots=(Slot(0, 0, 1, "place"), Slot(2, 0, 3, "people"), Slot(1, 0, 3, "people")))
    assert counts("defects", gold, made) == [1, 2, 1]
    assert counts("slots", gold, made) == [0, 1, 1]
    assert counts("slot_values", gold, made) == [0, 1, 1]
    silent = Labels(defects=(), judged={"defects": ()})  # it abstained from all turns
    assert counts("defects", gold, silent) == [0, 0, 1]
