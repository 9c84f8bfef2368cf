"""Labels from probabilities: against the definitions, by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import KINDS, Claim, Classes, Dialogue, Goal, Prediction, Slot, Turn, claims, decide

CLASSES = Classes(("play", "stop", "none"), ("correct", "result"), ("genre", "artist"))


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Prediction, int]:
    """Which fields are there by hypothesis, values by a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.sampled_from([1, 2, 5]))
    given_fields = draw(
        st.sets(
            st.sampled_from(
                ["begins", "success", "whole_success", "defects", "intents", "failure_point", "slots", "transcription"]
            )
        )
    )

    def shares(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.random(shape).astype(np.float32))

    slots = tuple((Slot(turn, 0, 2, "genre"), float(rng.random())) for turn in range(size))
    values = {
        "begins": shares(size), "membership": shares(size, size).triu().fill_diagonal_(1), "success": shares(size),
        "whole_success": float(rng.random()), "defects": shares(size), "intents": shares(size, 3).softmax(1),
        "failure_point": shares(size, 2).softmax(1), "slots": slots, "transcription": {0: ("hi", float(rng.random()))},
    }  # fmt: skip
    if "begins" in given_fields:
        given_fields.add("membership")
    else:
        given_fields.discard("success")
    return Prediction(**{name: values[name] for name in given_fields}), size  # type: ignore[arg-type]


def goals_by_hand(prediction: Prediction, size: int) -> list[tuple[int, ...]]:
    if prediction.begins is None or prediction.membership is None:
        return []
    return [
        (s, *(t for t in range(s + 1, size) if prediction.membership[s, t] >= 0.5))
        for s in range(size)
        if prediction.begins[s] >= 0.5
    ]


@given(predictions(), st.dictionaries(st.sampled_from(KINDS), st.sampled_from([0.0, 0.5, 0.7, 0.95, math.inf])))
def test_labels_are_those_that_reach_their_threshold(
    given_one: tuple[Prediction, int], thresholds: dict[str, float]
) -> None:
    prediction, size = given_one
    made = claims(prediction, CLASSES)
    assert {claim.kind for claim in made} <= set(prediction.kinds())
    annotation = decide(prediction, CLASSES, thresholds)
    labels = annotation.labels
    Dialogue("1", (Turn("user", "play jazz"),) * size, annotations=(annotation,))  # it is valid
    least = {kind: thresholds.get(kind, 0.0) for kind in KINDS}
    for task in ("intents", "failure_point", "transcription"):
        want = {c.place[0]: c.label for c in made if c.kind == task and c.confidence >= least[task]}
        assert (getattr(labels, task) or {}) == want
    found = [claim for claim in made if claim.kind == "defects" and claim.label == "defect"]
    if prediction.defects is None or any(c.confidence < least["defects"] for c in found) or least["defects"] > 1:
        assert labels.defects is None
    else:
        assert labels.defects == tuple(turn for turn in range(size) if prediction.defects[turn] >= 0.5)
    if prediction.slots is not None:
        whole = all(sure >= least["slots"] for _, sure in prediction.slots)
        assert labels.slots == (tuple(slot for slot, _ in prediction.slots) if whole else None)
    by_hand = goals_by_hand(prediction, size)
    sure = {c.place: c.confidence for c in made if c.kind == "goals"}
    assert list(sure) == by_hand
    if prediction.begins is not None and all(each >= least["goals"] for each in sure.values()) and by_hand:
        assert labels.goals is not None
        assert [goal.turns for goal in labels.goals] == by_hand
        for goal in labels.goals:
            assert goal.turns is not None
            if prediction.whole_success is None and prediction.success is not None:
                share = float(prediction.success[goal.turns[0]])
                assert goal.success == (share >= 0.5 if max(share, 1 - share) >= least["success"] else None)
    elif (
        prediction.whole_success is not None
        and max(prediction.whole_success, 1 - prediction.whole_success) >= least["success"]
    ):
        assert labels.goals == (Goal(None, prediction.whole_success >= 0.5),)
    else:
        assert not labels.goals


def test_confidence_may_be_calibrated() -> None:
    prediction = Prediction(defects=torch.tensor([0.9, 0.1]), whole_success=0.8)

    def half(claim: Claim) -> float:
        return claim.confidence / 2

    annotation = decide(prediction, CLASSES, {"success": 0.4}, calibrated=half, annotator="m")
    assert annotation.labels.goals == (Goal(None, success=True),)
    assert annotation.annotator == "m"
    assert annotation.confidence["goals"] == (0.4,)
    assert annotation.confidence["defects"] == (pytest.approx(0.45),)
    assert decide(prediction, CLASSES, {"success": 0.41}, calibrated=half).labels.goals is None


def test_a_threshold_of_no_kind() -> None:
    with pytest.raises(ValueError, match=r"tercet\.decide: thresholds must be of goals, success, .* got 'goal'"):
        decide(Prediction(), CLASSES, {"goal": 0.5})
