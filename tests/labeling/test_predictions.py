"""Labels from probabilities: against the definitions, by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import KINDS, Claim, Classes, Dialogue, Goal, Labels, Prediction, Slot, Turn, claims, decide

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

    spans = [(turn, first) for turn in range(size) for first in (0, 5) if rng.integers(2)]
    slots = tuple((Slot(turn, first, first + 2, "genre"), float(rng.random())) for turn, first in spans)
    values = {
        "begins": shares(size), "membership": shares(size, size).triu().fill_diagonal_(1), "success": shares(size),
        "whole_success": float(rng.random()), "defects": shares(size), "intents": shares(size, 3).softmax(1),
        "failure_point": shares(size, 2).softmax(1), "slots": slots, "no_slot": shares(size), "transcription": {0: ("hi", float(rng.random()))},
    }  # fmt: skip
    if "begins" in given_fields:
        given_fields.add("membership")
    else:
        given_fields.discard("success")
    if "slots" in given_fields:
        given_fields.add("no_slot")
    return Prediction(**{name: values[name] for name in given_fields}), size  # type: ignore[arg-type]


def goals_by_hand(prediction: Prediction, size: int) -> list[tuple[int, ...]]:
    if prediction.begins is None or prediction.membership is None:
        return []
    found = [
        (s, *(t for t in range(s + 1, size) if prediction.membership[s, t] >= 0.5))
        for s in range(size)
        if prediction.begins[s] >= 0.5
    ]
    if prediction.whole_success is None or not found:
        return found
    membership, begins = prediction.membership.double(), prediction.begins.double()

    def share(goal: tuple[int, ...]) -> float:
        own = membership[goal[0], goal[0] + 1 :]
        return float(begins[goal[0]] * torch.where(own >= 0.5, own, 1 - own).prod())

    return [max(found, key=share)]  # no dialogue has more than one


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
    sure = [claim for claim in made if claim.confidence >= least[claim.kind]]

    def places(kind: str, among: list[Claim] = sure) -> set[tuple[int, ...]]:
        return {claim.place for claim in among if claim.kind == kind}

    def judged(task: str) -> set[int]:
        return set(labels.judged_turns(task, size))

    if prediction.defects is not None:
        believed = {turn: float(prediction.defects[turn]) for turn in range(size)}
        yes = {t for t, share in believed.items() if share >= 0.5 and share >= least["defects"]}
        no = {t for t, share in believed.items() if share < 0.5 and 1 - share >= least["no_defect"]}
        assert judged("defects") == yes | no
        assert set(labels.defects or ()) == yes
        for turn, share in annotation.sure_of_defects(size).items():
            assert share == pytest.approx(believed[turn] if turn in yes else 1 - believed[turn])
        assert ("defects" in labels.judged) == (0 < len(yes | no) < size)
    if prediction.slots is not None and prediction.no_slot is not None:
        kept = {(s.turn, s.start, s.end) for s in labels.slots or ()}
        assert kept == places("slots")
        unsure = {place[0] for place in places("slots", made) - kept}
        rest = {t for t in range(size) if float(prediction.no_slot[t]) >= least["no_slot"]}
        assert judged("slots") == rest - unsure
        by_turn = {t: [sure for slot, sure in prediction.slots if slot.turn == t] for t in range(size)}
        for claim in made:
            if claim.kind == "no_slot":
                assert claim.support == min(by_turn[claim.place[0]], default=math.inf)
    by_hand = goals_by_hand(prediction, size)
    assert [claim.place for claim in made if claim.kind == "goals"] == by_hand
    if prediction.begins is not None:
        kept = {goal.turns for goal in labels.goals or () if goal.turns is not None}
        assert kept == places("goals")
        empty = {place[0] for place in places("no_goal")}
        assert {place[0] for place in places("no_goal", made)} == set(range(size)) - {goal[0] for goal in by_hand}
        assert judged("goals") == empty | {goal[0] for goal in kept}
    for number, goal in enumerate(labels.goals or ()):
        whole = prediction.whole_success is not None
        share = prediction.whole_success if whole else None
        if not whole and prediction.success is not None and goal.turns is not None:
            share = float(prediction.success[goal.turns[0]])
        if share is None or max(share, 1 - share) < least["success"]:
            assert goal.success is None
        else:
            assert goal.success == (share >= 0.5)
            assert annotation.sure_of_success()[number] == pytest.approx(max(share, 1 - share))
    if prediction.whole_success is not None and places("success"):
        assert len(labels.goals or ()) == 1


def test_what_is_sure_is_kept_beside_what_is_not() -> None:
    """One unsure claim leaves open its turn alone."""
    prediction = Prediction(
        begins=torch.tensor([0.95, 0.1, 0.6, 0.02]), membership=torch.tensor([0.9, 0.95, 0.1, 0.05]).repeat(4, 1).triu(),
        success=torch.tensor([0.9, 0.5, 0.9, 0.5]), defects=torch.tensor([0.1, 0.95, 0.6, 0.45]),
        slots=((Slot(0, 0, 4, "genre"), 0.95), (Slot(0, 5, 9, "artist"), 0.5), (Slot(1, 0, 4, "genre"), 0.9)),
        no_slot=torch.tensor([0.99, 0.95, 0.9, 0.4]),
    )  # fmt: skip
    annotation = decide(prediction, CLASSES, {"goals": 0.7} | {kind: 0.8 for kind in KINDS if kind != "goals"})
    labels = annotation.labels
    assert (labels.defects, labels.judged["defects"]) == ((1,), (0, 1))
    assert labels.goals == (Goal((0, 1), success=True),)
    assert labels.judged["goals"] == (0, 1, 3)
    assert labels.slots == (Slot(0, 0, 4, "genre"), Slot(1, 0, 4, "genre"))
    assert labels.judged["slots"] == (1, 2)  # of turn 0 one slot is known, of turn 3 none
    assert annotation.confidence["success"] == pytest.approx((0.9,))


def test_turns_of_which_nothing_is_believed_are_not_judged() -> None:
    made = decide(Prediction(defects=torch.tensor([math.nan, 0.9, math.nan, 0.2])), CLASSES)
    assert (made.labels.defects, made.labels.judged) == ((1,), {"defects": (1, 3)})
    silent = torch.full((2,), math.nan)
    for task in ("intents", "failure_point"):
        shares = torch.stack([silent, torch.tensor([0.3, 0.7])])
        assert getattr(decide(Prediction(**{task: shares}), CLASSES).labels, task) == {1: getattr(CLASSES, task)[1]}
    slots = ((Slot(0, 0, 2, "genre"), 0.9),)
    assert decide(Prediction(slots=slots), CLASSES).labels == Labels(slots=(slots[0][0],), judged={"slots": ()})


def test_confidence_may_be_calibrated() -> None:
    prediction = Prediction(defects=torch.tensor([0.9, 0.1]), whole_success=0.8)

    def half(claim: Claim) -> float:
        return claim.confidence / 2

    annotation = decide(prediction, CLASSES, {"success": 0.4}, calibrated=half, annotator="m")
    assert annotation.labels.goals == (Goal(None, success=True),)
    assert annotation.annotator == "m"
    assert annotation.confidence["goals"] == (0.4,)
    assert annotation.confidence["defects"] == pytest.approx((0.45, 0.45))
    assert decide(prediction, CLASSES, {"success": 0.41}, calibrated=half).labels.goals is None


def test_a_threshold_of_no_kind() -> None:
    with pytest.raises(
        ValueError, match=r"tercet\.decide: thresholds must be of goals, no_goal, success, .* got 'goal'"
    ):
        decide(Prediction(), CLASSES, {"goal": 0.5})
