"""How far a model's confidence can be trusted, measured on labelled dialogues that it has not learnt from.

Each claim of the model is right or wrong by the dialogue's labels; where annotators stand in for gold, by what at least
half of them say. One temperature by kind makes confidence fit how often claims are right, and leaves their order as it
is, so that thresholds may be chosen on the same claims.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import Dialogue, Goal, Slot
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import KINDS, Claim, claims
from tercet.labeling.model.targets import sources
from tercet.labeling.trust.thresholds import Threshold, choose_threshold, fit_temperature

_SUREST = 1 - 1e-7


@dataclass(frozen=True, eq=False)
class Judged:
    """Claims of one kind that could be judged.

    Attributes:
        confidence: float64 [num_claims], the model's own. correct: bool [num_claims].
        dialogues: int64 [num_claims]. temperature: of confidence.
    """

    confidence: Tensor
    correct: Tensor
    dialogues: Tensor
    temperature: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Judged claims by kind, of KINDS; a kind that nothing is known of is absent."""

    kinds: Mapping[str, Judged] = field(default_factory=dict)

    def calibrated(self, kind: str, confidence: float) -> float:
        """The confidence of a claim by its kind's temperature; as it is where nothing is known of the kind."""
        judged = self.kinds.get(kind)
        if judged is None:
            return confidence
        share = min(max(confidence, 1 - _SUREST), _SUREST)
        return 1 / (1 + math.exp(-math.log(share / (1 - share)) / judged.temperature))

    def threshold(self, kind: str, min_precision: float, *, alpha: float = 0.05) -> Threshold:
        """The lowest threshold of calibrated confidence that keeps the promise (`choose_threshold`): infinity where
        none does or nothing is known of the kind."""
        judged = self.kinds.get(kind)
        if judged is None:
            return Threshold(math.inf, 0, 0, 0, 0.0, min_precision, alpha)
        return choose_threshold(
            _tempered(judged.confidence, judged.temperature),
            judged.correct,
            min_precision=min_precision,
            alpha=alpha,
            dialogues=judged.dialogues,
        )


def calibrate(model: LabelModel, dialogues: Iterable[Dialogue]) -> Calibration:
    """How often the model is right on labelled dialogues.

    Raises:
        ValueError: a label has a name that the model does not know.
    """
    rows: dict[str, list[tuple[float, bool, int]]] = {}
    kept: list[Dialogue] = list(dialogues)
    for number, (dialogue, prediction) in enumerate(zip(kept, model.predictions(kept), strict=True)):
        _check_names(model, dialogue)
        for claim, right in judge(dialogue, claims(prediction, model.classes)):
            rows.setdefault(claim.kind, []).append((claim.confidence, right, number))
    return Calibration({kind: _judged(rows[kind]) for kind in KINDS if kind in rows})


def judge(dialogue: Dialogue, made: Iterable[Claim]) -> Iterator[tuple[Claim, bool]]:
    """The claims that the dialogue's labels can judge, and whether they are right.

    The turns of a goal are right if some goal has the same; its success, if it is that of the goal that begins with the
    same turn, and it is wrong if there is none. Turns without a defect are not claimed.
    """
    truth: dict[str, dict[tuple[int, ...], str] | set[object] | None] = {}
    for claim in made:
        if claim.kind not in truth:
            truth[claim.kind] = _truth(dialogue, claim.kind)
        known = truth[claim.kind]
        if known is None or (claim.kind == "defects" and claim.label == "none"):
            continue
        if isinstance(known, set):
            key = (claim.place, claim.label) if claim.kind == "slots" else claim.place
            yield claim, key in known
        elif claim.kind == "success":
            place = claim.place[:1]
            if place in known:
                yield claim, known[place] == claim.label
            elif place and known:
                yield claim, False
        elif claim.place in known:
            wanted = known[claim.place]
            same = " ".join(claim.label.split()) == " ".join(wanted.split())
            yield claim, same if claim.kind == "transcription" else claim.label == wanted


def _truth(dialogue: Dialogue, kind: str) -> dict[tuple[int, ...], str] | set[object] | None:
    """What is so: labels by place, or the set of places; None: not known."""
    said = [labels for labels, _ in sources(dialogue, "goals" if kind == "success" else kind)]
    if not said:
        return None
    if kind in ("goals", "defects", "slots"):
        if kind == "goals" and any(goal.turns is None for labels in said for goal in labels.goals or ()):
            return None
        seen = Counter(key for labels in said for key in set(_keys(getattr(labels, kind))))
        return {key for key, count in seen.items() if 2 * count >= len(said)}
    votes: dict[tuple[int, ...], Counter[str]] = {}
    for labels in said:
        if kind != "success":
            for turn, name in getattr(labels, kind).items():
                votes.setdefault((turn,), Counter())[name] += 1
            continue
        goals = labels.goals or ()
        for goal in goals:
            for place in _places(goal, len(goals)):
                votes.setdefault(place, Counter())["reached" if goal.success else "missed"] += 1
    return {place: counts.most_common(1)[0][0] for place, counts in votes.items()}


def _places(goal: Goal, count: int) -> Iterator[tuple[int, ...]]:
    if goal.success is not None:
        if count == 1:
            yield ()
        if goal.turns is not None:
            yield goal.turns[:1]


def _keys(labels: Iterable[Goal | Slot | int]) -> Iterator[object]:
    """What tells the labels of whole dialogues apart: a goal's turns, a slot's place and name, a defect's turn."""
    for label in labels:
        if isinstance(label, Goal):
            yield label.turns
        elif isinstance(label, Slot):
            yield (label.turn, label.start, label.end), label.name
        else:
            yield (label,)


def _check_names(model: LabelModel, dialogue: Dialogue) -> None:
    """That the labels of tasks which the model does have names that it knows."""
    for task in ("intents", "failure_point", "slots"):
        known = getattr(model.classes, task)
        for labels, _ in sources(dialogue, task) if known else ():
            given = getattr(labels, task)
            for name in [slot.name for slot in given] if task == "slots" else given.values():
                if name not in known and task != "slots":
                    raise ValueError(
                        f"dialogue {dialogue.id!r}: {task} must have names that the model was trained for, got {name!r}"
                    )


def _judged(rows: list[tuple[float, bool, int]]) -> Judged:
    confidence, correct, dialogues = (torch.tensor(column) for column in zip(*rows, strict=True))
    confidence = confidence.double()
    temperature = 1.0
    if bool(correct.any()) and not bool(correct.all()):
        temperature = fit_temperature(_logit(confidence), correct)
    return Judged(confidence, correct, dialogues, temperature)


def _logit(confidence: Tensor) -> Tensor:
    return confidence.double().clamp(1 - _SUREST, _SUREST).logit()


def _tempered(confidence: Tensor, temperature: float) -> Tensor:
    return (_logit(confidence) / temperature).sigmoid()
