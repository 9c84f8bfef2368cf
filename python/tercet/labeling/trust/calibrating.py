"""How far a model's confidence can be trusted, measured on labelled dialogues that it has not learnt from.

Each claim of the model is right or wrong by the dialogue's labels; where annotators stand in for gold, by what at least
half of them say who judge its turn; a claim about a turn that nobody judged is neither, and weak labels, which have a
weight, judge nothing: they are guesses themselves. One temperature by kind makes
confidence fit how often claims are right, and leaves their order as it is, so that thresholds may be chosen on the same
claims. Of claims that are written only beside others (`RESTS_ON`) the threshold is chosen on those beside which the
others would be written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import JUDGED, Annotation, Dialogue, Goal, Slot, turn_of
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import ABSENCES, KINDS, RESTS_ON, Claim, claims, task_of
from tercet.labeling.model.targets import sources
from tercet.labeling.trust.thresholds import Threshold, choose_threshold, fit_temperature

_SUREST = 1 - 1e-7


@dataclass(frozen=True, eq=False)
class Judged:
    """Claims of one kind that could be judged.

    Attributes:
        confidence: float64 [num_claims], the model's own. correct: bool [num_claims].
        dialogues: int64 [num_claims]. temperature: of confidence.
        support: float64 [num_claims], of a kind of RESTS_ON: see `Claim`.
    """

    confidence: Tensor
    correct: Tensor
    dialogues: Tensor
    temperature: float
    support: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """Judged claims by kind, of KINDS; a kind that nothing is known of is absent."""

    kinds: Mapping[str, Judged] = field(default_factory=dict)

    def calibrated(self, kind: str, confidence: float) -> float:
        """The confidence of a claim by its kind's temperature; as it is where nothing is known of the kind."""
        judged = self.kinds.get(kind)
        if judged is None:
            return confidence
        return _tempered(confidence, judged.temperature)

    def threshold(self, kind: str, min_precision: float, *, alpha: float = 0.05) -> Threshold:
        """The lowest threshold of calibrated confidence that keeps the promise (`choose_threshold`): infinity where
        none does or nothing is known of the kind."""
        judged = self.kinds.get(kind)
        if judged is None:
            return Threshold(math.inf, 0, 0, 0, 0.0, min_precision, alpha)
        kept = torch.ones_like(judged.correct)
        if judged.support is not None:
            other = self.kinds.get(RESTS_ON[kind])
            lowest = self.threshold(RESTS_ON[kind], min_precision, alpha=alpha).threshold
            beside = _all_tempered(judged.support, 1.0 if other is None else other.temperature)
            kept = judged.support.isinf() | (beside >= lowest)
        found = choose_threshold(
            _all_tempered(judged.confidence, judged.temperature)[kept],
            judged.correct[kept],
            min_precision=min_precision,
            alpha=alpha,
            dialogues=judged.dialogues[kept],
        )
        return replace(found, items=len(kept))


def calibrate(model: LabelModel, dialogues: Iterable[Dialogue]) -> Calibration:
    """How often the model is right on labelled dialogues.

    Raises:
        ValueError: a label has a name that the model does not know.
    """
    rows: dict[str, list[tuple[float, bool, int, float]]] = {}
    kept: list[Dialogue] = list(dialogues)
    for number, (dialogue, prediction) in enumerate(zip(kept, model.predictions(kept), strict=True)):
        _check_names(model, dialogue)
        for claim, right in judge(dialogue, claims(prediction, model.classes)):
            rows.setdefault(claim.kind, []).append((claim.confidence, right, number, claim.support))
    return Calibration({kind: _judged(kind, rows[kind]) for kind in KINDS if kind in rows})


def judge(dialogue: Dialogue, made: Sequence[Claim]) -> Iterator[tuple[Claim, bool]]:
    """The claims that the dialogue's labels can judge, and whether they are right.

    The turns of a goal are right if some goal has the same; its success, if it is that of the goal that begins with the
    same turn, and it is wrong if there is none. That a turn has no further slots is right if every slot in it has words
    in common with one that is claimed.
    """
    tasks = {task_of(claim.kind) for claim in made}
    seen = {task: _Seen(dialogue, task) for task in JUDGED if task in tasks}
    votes = {kind: _votes(dialogue, kind) for kind in {claim.kind for claim in made} - {*JUDGED, *ABSENCES}}
    spans = [claim.place for claim in made if claim.kind == "slots"]
    for claim in made:
        if claim.kind in votes:
            known = votes[claim.kind]
            place = claim.place[:1] if claim.kind == "success" else claim.place
            if place in known:
                wanted = known[place]
                same = " ".join(claim.label.split()) == " ".join(wanted.split())
                yield claim, same if claim.kind == "transcription" else claim.label == wanted
            elif claim.kind == "success" and place and known and seen["goals"].judges[place[0]]:
                yield claim, False
            continue
        of, turn = seen[task_of(claim.kind)], claim.place[0]
        if not of.judges[turn]:
            continue
        if claim.kind in JUDGED:
            yield claim, of.holds(claim.place, claim.label)
        elif claim.kind == "no_slot":
            yield claim, all(any(_overlap(place, span) for span in spans) for place in of.places(turn))
        else:
            yield claim, 2 * of.at[turn] < of.judges[turn]


def _judges(dialogue: Dialogue, task: str) -> list[Annotation]:
    return [each for each in sources(dialogue, task) if each.judges(task)]


class _Seen:
    """Labels of goals, defects or slots by those who judge their turns.

    Attributes:
        judges: how many judge each turn. at: how many of them see a label there.
        labels: how many see each, by place and name as `Claim` has them.
    """

    def __init__(self, dialogue: Dialogue, task: str) -> None:
        self.judges: Counter[int] = Counter()
        self.at: Counter[int] = Counter()
        self.labels: Counter[tuple[tuple[int, ...], str]] = Counter()
        for each in _judges(dialogue, task):
            turns = set(each.labels.judged_turns(task, len(dialogue.turns)))
            found = {_named(label) for label in getattr(each.labels, task) if turn_of(label) in turns}
            self.judges.update(turns)
            self.at.update({place[0] for place, _ in found})
            self.labels.update(found)

    def holds(self, place: tuple[int, ...], name: str) -> bool:
        """Whether half of those who judge the turn see the label, or more."""
        return 2 * self.labels[place, name] >= self.judges[place[0]]

    def places(self, turn: int) -> list[tuple[int, ...]]:
        """Of the labels that hold at a turn."""
        return [place for place, name in self.labels if place[0] == turn and self.holds(place, name)]


def _named(label: Goal | Slot | int) -> tuple[tuple[int, ...], str]:
    """Place and name of a label, as `Claim` has them."""
    if isinstance(label, Goal):
        return label.turns or (), ""
    return ((label.turn, label.start, label.end), label.name) if isinstance(label, Slot) else ((label,), "defect")


def _overlap(span: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return span[0] == other[0] and span[1] < other[2] and other[1] < span[2]


def _votes(dialogue: Dialogue, kind: str) -> dict[tuple[int, ...], str]:
    """What most say, by place; of success () is the dialogue's one goal, (turn,) one that begins there."""
    votes: dict[tuple[int, ...], Counter[str]] = {}
    for each in _judges(dialogue, task_of(kind)):
        if kind != "success":
            for turn, name in getattr(each.labels, kind).items():
                votes.setdefault((turn,), Counter())[name] += 1
            continue
        goals = each.labels.goals or ()
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


def _check_names(model: LabelModel, dialogue: Dialogue) -> None:
    """That intents and failure points, where the model does them, have names that it knows."""
    for task in ("intents", "failure_point"):
        known = getattr(model.classes, task)
        for each in sources(dialogue, task) if known else ():
            for name in getattr(each.labels, task).values():
                if name not in known:
                    raise ValueError(
                        f"dialogue {dialogue.id!r}: {task} must have names that the model was trained for, got {name!r}"
                    )


def _judged(kind: str, rows: list[tuple[float, bool, int, float]]) -> Judged:
    types = torch.float64, torch.bool, torch.int64, torch.float64
    columns = zip(zip(*rows, strict=True), types, strict=True)
    confidence, correct, dialogues, support = (torch.tensor(column, dtype=dtype) for column, dtype in columns)
    temperature = 1.0
    if bool(correct.any()) and not bool(correct.all()):
        temperature = fit_temperature(_logit(confidence), correct)
    return Judged(confidence, correct, dialogues, temperature, support if kind in RESTS_ON else None)


def _logit(confidence: Tensor) -> Tensor:
    return confidence.double().clamp(1 - _SUREST, _SUREST).logit()


def _tempered(confidence: float, temperature: float) -> float:
    share = min(max(confidence, 1 - _SUREST), _SUREST)
    return 1 / (1 + math.exp(-math.log(share / (1 - share)) / temperature))


def _all_tempered(confidence: Tensor, temperature: float) -> Tensor:
    """One by one, so that a claim reaches a threshold by the same bits with which that was chosen."""
    return torch.tensor([_tempered(each, temperature) for each in confidence.tolist()], dtype=torch.float64)
