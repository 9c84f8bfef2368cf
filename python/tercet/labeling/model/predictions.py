"""What a model believes of a dialogue, and the labels that follow from it.

Goals are read off two tables: a goal begins where `begins` is at least a half, and its turns are those of its row of
`membership` that are at least a half, the first turn always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import TASKS, Annotation, Goal, Labels, Slot

# What has a threshold of its own: the tasks, and the success of goals apart from their turns.
KINDS = ("goals", "success", *TASKS[1:])


@dataclass(frozen=True)
class Classes:
    """The names that a model knows, by task, in the order of its probabilities; empty where it does not do the task."""

    intents: tuple[str, ...] = ()
    failure_point: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model believes of one dialogue of T turns. What the model was not trained for is None.

    Attributes:
        begins: float32 [T], P(a goal begins at the turn).
        membership: float32 [T, T]: [s, t] for t >= s, P(turn t serves the goal that begins at s), if one does; 1 on the
            diagonal, 0 below it.
        success: float32 [T], P(the goal that begins at the turn is reached), if one does.
        whole_success: P(the dialogue's goal is reached), where no dialogue of the training data names more than one.
        defects: float32 [T], P(the system got the turn wrong).
        intents: float32 [T, num_intents]; rows sum to 1.
        failure_point: float32 [T, num_classes]; rows sum to 1.
        slots: spans, each with the probability that it is a slot of this name.
        transcription: by user turn, what was said, with the probability that this is right.
    """

    begins: Tensor | None = None
    membership: Tensor | None = None
    success: Tensor | None = None
    whole_success: float | None = None
    defects: Tensor | None = None
    intents: Tensor | None = None
    failure_point: Tensor | None = None
    slots: tuple[tuple[Slot, float], ...] | None = None
    transcription: Mapping[int, tuple[str, float]] | None = None

    def kinds(self) -> tuple[str, ...]:
        """Those of KINDS that it speaks of, in their order."""
        there = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        if "begins" in there:
            there.add("goals")
        if "whole_success" in there:
            there.add("success")
        return tuple(kind for kind in KINDS if kind in there)


class Claim(NamedTuple):
    """One label that a prediction amounts to.

    Attributes:
        kind: of KINDS.
        place: the item as `tercet.labeling.answers` names it: (turn,), (turn, start, end), the turns of a goal, ().
        label: a name; of success reached or missed, of goals empty, of defects defect or none.
        confidence: the probability of the label.
    """

    kind: str
    place: tuple[int, ...]
    label: str
    confidence: float


def claims(prediction: Prediction, classes: Classes) -> list[Claim]:
    """The likeliest label of every item, in the order of KINDS and places.

    A goal's turns have the probability that it begins where it does and has just these turns, as if turns were
    independent of each other.
    """
    made: list[Claim] = []
    goals = _goals(prediction)
    made += (Claim("goals", turns, "", sure) for turns, sure in goals)
    outcomes: Iterable[tuple[tuple[int, ...], float]] = ()
    if prediction.whole_success is not None:
        outcomes = [((), prediction.whole_success)]
    elif prediction.success is not None:
        outcomes = [(turns, float(prediction.success[turns[0]])) for turns, _ in goals]
    made += (Claim("success", place, *_of_two(share, "reached", "missed")) for place, share in outcomes)
    if prediction.defects is not None:
        shares = enumerate(prediction.defects.tolist())
        made += (Claim("defects", (turn,), *_of_two(share, "defect", "none")) for turn, share in shares)
    made += _likeliest("intents", prediction.intents, classes.intents)
    made += (Claim("slots", (s.turn, s.start, s.end), s.name, sure) for s, sure in prediction.slots or ())
    texts = (prediction.transcription or {}).items()
    made += (Claim("transcription", (turn,), text, sure) for turn, (text, sure) in texts)
    made += _likeliest("failure_point", prediction.failure_point, classes.failure_point)
    return made


def decide(
    prediction: Prediction,
    classes: Classes,
    thresholds: Mapping[str, float] | None = None,
    *,
    annotator: str = "tercet",
    calibrated: Callable[[Claim], float] | None = None,
) -> Annotation:
    """The labels whose confidence reaches their kind's threshold; of the others it says nothing.

    Of intents, transcription and failure points each turn stands by itself. Goals, defects and slots speak of the whole
    dialogue (see `Labels`), so one label that stays below its threshold leaves the task out of the annotation; of
    defects only those that are found count, since a turn without one is the rule. The success of a goal is left open
    where it stays below. A model of a dialogue's one goal says its turns only if they reach their threshold.

    Args:
        prediction: of a model.
        classes: the model's.
        thresholds: by kind, of KINDS; a kind that is absent has 0. Infinity: always abstain.
        annotator: the name in the annotation.
        calibrated: the confidence of a claim, which thresholds are of and which is written; None: the model's own.

    Raises:
        ValueError: a threshold is of no kind.

    Example:
        >>> from tercet.labeling.model.predictions import Classes, Prediction, decide
        >>> believed = Prediction(intents=torch.tensor([[0.9, 0.1], [0.4, 0.6]]))
        >>> decide(believed, Classes(intents=("play", "stop")), {"intents": 0.8}).labels.intents
        {0: 'play'}
    """
    thresholds = thresholds or {}
    for kind in thresholds:
        if kind not in KINDS:
            raise ValueError(f"tercet.decide: thresholds must be of {', '.join(KINDS)}, got {kind!r}")
    kinds = prediction.kinds()
    made: dict[str, list[Claim]] = {kind: [] for kind in kinds}
    for claim in claims(prediction, classes):
        made[claim.kind].append(claim if calibrated is None else claim._replace(confidence=calibrated(claim)))
    sure = {kind: [c for c in found if c.confidence >= thresholds.get(kind, 0.0)] for kind, found in made.items()}
    labels: dict[str, object] = {}
    confidence: dict[str, tuple[float, ...]] = {}
    goals = _decided_goals(made, sure)
    if goals is not None:
        labels["goals"], confidence["goals"] = tuple(goal for goal, _ in goals), tuple(each for _, each in goals)
    for kind in ("defects", "slots"):
        if kind not in kinds:
            continue
        found, kept = ([c for c in part[kind] if c.label != "none" or kind == "slots"] for part in (made, sure))
        if len(found) == len(kept) and thresholds.get(kind, 0.0) <= 1:
            confidence[kind] = tuple(claim.confidence for claim in kept)
            labels[kind] = tuple(c.place[0] if kind == "defects" else Slot(*c.place, c.label) for c in kept)  # type: ignore[call-arg, arg-type]
    for kind in ("intents", "transcription", "failure_point"):
        if sure.get(kind):
            labels[kind] = {claim.place[0]: claim.label for claim in sure[kind]}
            confidence[kind] = tuple(claim.confidence for claim in sure[kind])
    return Annotation(annotator, Labels(**labels), confidence)  # type: ignore[arg-type]


def _decided_goals(made: Mapping[str, list[Claim]], sure: Mapping[str, list[Claim]]) -> list[tuple[Goal, float]] | None:
    """Goals with the confidence of what is said of them, or None: nothing is said."""
    turns_sure = "goals" in made and len(made["goals"]) == len(sure["goals"])
    outcomes = {claim.place: claim for claim in sure.get("success", ())}
    whole = outcomes.get(())
    if not turns_sure:
        return None if whole is None else [(Goal(None, whole.label == "reached"), whole.confidence)]
    if whole is not None and len(made["goals"]) == 1:
        outcomes[made["goals"][0].place] = whole
    elif whole is not None and not made["goals"]:
        return [(Goal(None, whole.label == "reached"), whole.confidence)]
    goals = []
    for claim in made["goals"]:
        outcome = outcomes.get(claim.place)
        success = None if outcome is None else outcome.label == "reached"
        goals.append((Goal(claim.place, success), claim.confidence * (1.0 if outcome is None else outcome.confidence)))
    return goals


def _goals(prediction: Prediction) -> list[tuple[tuple[int, ...], float]]:
    """The turns of every goal, with their probability."""
    if prediction.begins is None:
        return []
    found = []
    for first in (prediction.begins >= 0.5).nonzero().flatten().tolist():
        turns, sure = [first], float(prediction.begins[first])
        if prediction.membership is not None:
            for turn, share in enumerate(prediction.membership[first, first + 1 :].tolist(), first + 1):
                sure *= max(share, 1 - share)
                if share >= 0.5:
                    turns.append(turn)
        found.append((tuple(turns), sure))
    return found


def _of_two(share: float, yes: str, no: str) -> tuple[str, float]:
    return (yes, share) if share >= 0.5 else (no, 1 - share)


def _likeliest(kind: str, shares: Tensor | None, names: tuple[str, ...]) -> Iterable[Claim]:
    if shares is None:
        return []
    sure, index = torch.max(shares, 1)
    pairs = enumerate(zip(sure.tolist(), index.tolist(), strict=True))
    return [Claim(kind, (turn,), names[place], min(1.0, each)) for turn, (each, place) in pairs]
