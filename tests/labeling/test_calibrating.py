"""Which claims labels can judge, and thresholds of claims that are written beside others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from label_models import SIZES, music
from tercet.labeling import (
    KINDS,
    Annotation,
    Calibration,
    Claim,
    Classes,
    Dialogue,
    Goal,
    LabelModel,
    Labels,
    Prediction,
    Slot,
    TrainingSettings,
    Turn,
    claims,
    decide,
    load_model,
    precision_lower_bound,
    train,
)
from tercet.labeling.model.storage import save_model
from tercet.labeling.trust.calibrating import Judged, _judged, judge

TURNS = (Turn("user", "play some jazz"), Turn("system", "Playing."), Turn("user", "stop it"), Turn("system", "Bye."))


def judged(made: list[Claim], gold: Labels, *notes: Labels) -> dict[tuple[object, ...], bool]:
    """Kind, place and label of each claim that is judged -> whether it is right."""
    annotations = tuple(Annotation(f"{number}", labels) for number, labels in enumerate(notes))
    found = judge(Dialogue("1", TURNS, gold, annotations), made)
    return {(claim.kind, claim.place): right for claim, right in found}


def test_claims_of_turns_that_nobody_judged_are_neither_right_nor_wrong() -> None:
    gold = Labels(
        goals=(Goal((0, 1), success=True),), defects=(1,),
        slots=(Slot(0, 10, 14, "genre"), Slot(2, 0, 4, "act"), Slot(3, 0, 3, "act")),
        judged={"goals": (0, 2), "defects": (1, 2), "slots": (0, 3)},
    )  # fmt: skip
    made = [
        Claim("goals", (0, 1), "", 0.9), Claim("goals", (1, 2), "", 0.9), Claim("goals", (2,), "", 0.9),
        Claim("no_goal", (3,), "", 0.9), Claim("no_goal", (2,), "", 0.9), Claim("no_goal", (0,), "", 0.9),
        Claim("success", (0, 1), "reached", 0.9), Claim("success", (1, 2), "reached", 0.9),
        Claim("success", (2,), "reached", 0.9), Claim("defects", (0,), "defect", 0.9),
        Claim("defects", (1,), "defect", 0.9), Claim("no_defect", (2,), "", 0.9), Claim("no_defect", (3,), "", 0.9),
        Claim("slots", (0, 5, 14), "genre", 0.9), Claim("slots", (2, 0, 4), "act", 0.9),
        Claim("no_slot", (0,), "", 0.9), Claim("no_slot", (2,), "", 0.9), Claim("no_slot", (3,), "", 0.9),
    ]  # fmt: skip
    want = {
        ("goals", (0, 1)): True, ("goals", (2,)): False, ("no_goal", (2,)): True, ("no_goal", (0,)): False,
        ("success", (0, 1)): True, ("success", (2,)): False, ("defects", (1,)): True, ("no_defect", (2,)): True,
        ("slots", (0, 5, 14)): False, ("no_slot", (0,)): True, ("no_slot", (3,)): False,
    }  # fmt: skip
    assert judged(made, gold) == want


def test_annotators_count_where_they_judge() -> None:
    notes = (
        Labels(defects=(1, 2), judged={"defects": (1, 2)}), Labels(defects=(), judged={"defects": (0, 2)}),
        Labels(defects=(), judged={"defects": (2,)}),
    )  # fmt: skip
    made = [Claim("defects", (turn,), "defect", 0.9) for turn in range(4)]
    none = [Claim("no_defect", (turn,), "", 0.9) for turn in range(4)]
    assert judged(made, Labels(), *notes) == {("defects", (t,)): t == 1 for t in (0, 1, 2)}
    assert judged(none, Labels(), *notes) == {("no_defect", (t,)): t != 1 for t in (0, 1, 2)}


def test_weak_labels_judge_nothing() -> None:
    said = Labels(defects=(1,), judged={"defects": (1, 2)})
    weak = Annotation("feedback", said, weight={"defects": (1.0, 0.5)})
    made = [Claim("defects", (turn,), "defect", 0.9) for turn in range(4)]
    assert not list(judge(Dialogue("1", TURNS, annotations=(weak,)), made))
    both = Dialogue("1", TURNS, annotations=(weak, Annotation("ann", Labels(defects=(2,), judged={"defects": (2, 3)}))))
    assert [(claim.place, right) for claim, right in judge(both, made)] == [((2,), True), ((3,), False)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.6, 0.8, 0.9]))
def test_thresholds_are_chosen_on_the_claims_that_are_kept(seed: int, least: float) -> None:
    """Of no_slot those in turns all of whose slots are kept: on the calibration's own claims the bound is theirs."""
    rng = np.random.default_rng(seed)
    predictions, golds = [], []
    for _ in range(150):
        spans = [Slot(turn, first, first + 1, "act") for turn in range(4) for first in range(int(rng.integers(3)))]
        sure, rest = rng.random(len(spans)) ** 0.3, rng.random(4) ** 0.3
        right = rng.random(len(spans)) < sure
        extra = tuple(Slot(turn, 2, 3, "act") for turn in range(4) if rng.random() > rest[turn])
        kept = tuple(slot for slot, yes in zip(spans, right, strict=True) if yes)
        golds.append(Labels(slots=tuple(sorted((*kept, *extra), key=lambda slot: (slot.turn, slot.start)))))
        slots = tuple(zip(spans, sure.tolist(), strict=True))
        predictions.append(Prediction(slots=slots, no_slot=torch.from_numpy(rest)))
    rows: dict[str, list[tuple[float, bool, int, float]]] = {"slots": [], "no_slot": []}
    for number, (prediction, gold) in enumerate(zip(predictions, golds, strict=True)):
        for claim, yes in judge(Dialogue("1", TURNS, gold), claims(prediction, Classes())):
            rows[claim.kind].append((claim.confidence, yes, number, claim.support))
    calibration = Calibration({kind: _judged(kind, each) for kind, each in rows.items()})
    found = {kind: calibration.threshold(kind, least) for kind in rows}
    counts, limits = {kind: [0, 0] for kind in rows}, {kind: each.threshold for kind, each in found.items()}

    def shown(claim: Claim) -> float:
        return calibration.calibrated(claim.kind, claim.confidence)

    for prediction, gold in zip(predictions, golds, strict=True):
        labels = decide(prediction, Classes(), limits, calibrated=shown).labels
        truth = gold.slots or ()
        for slot in labels.slots or ():
            counts["slots"][0] += slot in truth
            counts["slots"][1] += 1
        for turn in labels.judged_turns("slots", 4):
            claimed = {(slot.start, slot.end) for slot, _ in prediction.slots or () if slot.turn == turn}
            counts["no_slot"][0] += all((s.start, s.end) in claimed for s in truth if s.turn == turn)
            counts["no_slot"][1] += 1
    for kind, each in found.items():
        assert counts[kind] == [each.correct, each.accepted]
        assert each.items == len(rows[kind])
        assert not each.accepted or each.bound >= least > 0
        assert each.bound <= precision_lower_bound(*counts[kind], alpha=0.5) or not each.accepted


def test_without_a_threshold_of_slots_only_turns_without_any_are_judged() -> None:
    sure = torch.full((100,), 0.9, dtype=torch.float64)
    support = torch.tensor([0.9, math.inf], dtype=torch.float64).repeat(50)
    yes = torch.ones(100, dtype=torch.bool)
    alone = Calibration({"no_slot": Judged(sure, yes, torch.arange(100), 1.0, support)})
    found = alone.threshold("no_slot", 0.9)
    assert (found.items, found.accepted) == (100, 50)
    both = Calibration({**alone.kinds, "slots": Judged(sure, yes, torch.arange(100), 1.0)})
    assert both.threshold("no_slot", 0.9).accepted == 100


@pytest.fixture(scope="module")
def trained() -> tuple[LabelModel, Calibration]:
    settings = TrainingSettings(epochs=4, batch_size=8, held_out=0.4, learning_rate=5e-3)
    result = train([music(number) for number in range(60)], settings, SIZES)
    return result.model, result.calibration


def test_every_kind_is_judged_and_kept_with_the_model(trained: tuple[LabelModel, Calibration], tmp_path: Path) -> None:
    model, calibration = trained
    assert {*calibration.kinds} >= {*KINDS} - {"goals", "slots"}  # which it may not claim at all
    save_model(tmp_path / "m", model, calibration, {})
    loaded = load_model(tmp_path / "m")[1]
    for kind, each in calibration.kinds.items():
        other = loaded.kinds[kind].support
        assert (each.support is None) == (other is None) == (kind not in ("success", "no_slot"))
        assert each.support is None or torch.equal(each.support, other)
    assert replace(calibration, kinds={}).threshold("no_slot", 0.9).threshold == math.inf
