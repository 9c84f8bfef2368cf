"""What a model believes of a dialogue, and the labels that follow from it.

Goals are read off two tables: a goal begins where `begins` is at least a half, and its turns are those of its row of
`membership` that are at least a half, the first turn always. Where no dialogue names more than one goal, it is the
likeliest of them.

Goals, defects and slots may be absent, which is claimed too: that no goal begins at a turn, that it has no defect, that
its text has no slots but those that are claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import Annotation, Goal, Labels, Slot

# What has a threshold of its own: the tasks; the success of goals apart from their turns; that there is nothing.
KINDS = ("goals", "no_goal", "success", "defects", "no_defect", "intents", "slots", "no_slot", "transcription",
         "failure_point")  # fmt: skip
ABSENCES = {"no_goal": "goals", "no_defect": "defects", "no_slot": "slots"}
# What is written only beside claims of another kind that are written: of success those of its goal's turns, and that
# there are no other slots in a turn beside those that are claimed in it.
RESTS_ON = {"success": "goals", "no_slot": "slots"}


def task_of(kind: str) -> str:
    """The task, of TASKS, that a kind of claims belongs to."""
    return "goals" if kind == "success" else ABSENCES.get(kind, kind)


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
        defects: float32 [T], P(the system got the turn wrong). intents: float32 [T, num_intents], rows sum to 1.
            failure_point: float32 [T, num_classes], likewise. NaN: of this turn it says nothing, since training labels
            none of its speaker.
        slots: spans, each with the probability that it is a slot of this name.
        no_slot: float32 [T], P(the turn has no slots but those); None with slots: they are all that is said.
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
    no_slot: Tensor | None = None
    transcription: Mapping[int, tuple[str, float]] | None = None

    def kinds(self) -> tuple[str, ...]:
        """Those of KINDS that it speaks of, in their order."""
        there = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        if "begins" in there:
            there |= {"goals", "no_goal"}
        if "defects" in there:
            there.add("no_defect")
        if "whole_success" in there:
            there.add("success")
        return tuple(kind for kind in KINDS if kind in there)


class Claim(NamedTuple):
    """One label that a prediction amounts to.

    Attributes:
        kind: of KINDS.
        place: the item as `tercet.labeling.answers` names it: (turn,), (turn, start, end), the turns of a goal, ().
        label: a name; of success reached or missed, of defects defect; empty where the place says it all.
        confidence: the probability of the label.
        support: the least confidence of the claims that it rests on, see RESTS_ON; infinity where there are none.
    """

    kind: str
    place: tuple[int, ...]
    label: str
    confidence: float
    support: float = math.inf


def claims(prediction: Prediction, classes: Classes) -> list[Claim]:
    """The likeliest label of every item, in the order of KINDS and places.

    A goal's turns have the probability that it begins where it does and has just these turns, as if turns were
    independent of each other.
    """
    made: list[Claim] = []
    goals = _goals(prediction)
    made += (Claim("goals", turns, "", sure) for turns, sure in goals)
    begins = [] if prediction.begins is None else prediction.begins.tolist()
    firsts = {turns[0] for turns, _ in goals}
    made += (Claim("no_goal", (turn,), "", 1 - share) for turn, share in enumerate(begins) if turn not in firsts)
    if prediction.whole_success is not None:
        made.append(Claim("success", (), *_outcome(prediction.whole_success)))
    elif prediction.success is not None:
        outcomes = prediction.success.tolist()
        made += (Claim("success", turns, *_outcome(outcomes[turns[0]]), sure) for turns, sure in goals)
    defects = [] if prediction.defects is None else list(enumerate(prediction.defects.tolist()))
    made += (Claim("defects", (turn,), "defect", share) for turn, share in defects if share >= 0.5)
    made += (Claim("no_defect", (turn,), "", 1 - share) for turn, share in defects if share < 0.5)
    made += _likeliest("intents", prediction.intents, classes.intents)
    made += (Claim("slots", (s.turn, s.start, s.end), s.name, sure) for s, sure in prediction.slots or ())
    least: dict[int, float] = {}
    for slot, sure in prediction.slots or ():
        least[slot.turn] = min(sure, least.get(slot.turn, math.inf))
    rest = [] if prediction.no_slot is None else prediction.no_slot.tolist()
    made += (Claim("no_slot", (turn,), "", sure, least.get(turn, math.inf)) for turn, sure in enumerate(rest))
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

    Each claim stands by itself, turn by turn: `Labels.judged` holds the turns of which all that is claimed was sure
    enough, and is absent where those are all. So a turn counts as one without a goal's beginning, defect or further
    slot only where that reaches the threshold of its own kind. The success of a goal is left open where it stays
    below, or the goal's turns do; a dialogue's one goal may have its success without its turns.

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
    labels: dict[str, Any] = {}
    confidence: dict[str, tuple[float, ...]] = {}
    judged: dict[str, tuple[int, ...]] = {}
    for decided, task in ((_decided_goals, "goals"), (_decided_defects, "defects"), (_decided_slots, "slots")):
        found = decided(prediction, made, sure) if task in kinds or (task == "goals" and "success" in kinds) else None
        if found is not None:
            labels[task], turns, shares = found
            confidence |= shares
            if turns is not None:
                judged[task] = turns
    for kind in ("intents", "transcription", "failure_point"):
        if sure.get(kind):
            labels[kind] = {claim.place[0]: claim.label for claim in sure[kind]}
            confidence[kind] = tuple(claim.confidence for claim in sure[kind])
    return Annotation(annotator, Labels(**labels, judged=judged), confidence)


_Claims = Mapping[str, list[Claim]]
# Labels, the turns that are judged (None: all), and confidence. None: nothing is said.
_Decided = tuple[tuple[object, ...], tuple[int, ...] | None, dict[str, tuple[float, ...]]] | None


def _decided_goals(prediction: Prediction, made: _Claims, sure: _Claims) -> _Decided:
    outcomes = {claim.place: claim for claim in sure.get("success", ())}
    kept, none = sure.get("goals", []), sure.get("no_goal", [])
    whole = outcomes.get(())
    goals: list[tuple[Claim | None, Claim | None]]
    goals = [(claim, whole or outcomes.get(claim.place)) for claim in kept] or ([(None, whole)] if whole else [])
    if not goals and not none:
        return None
    said = [Goal(claim and claim.place, outcome and outcome.label == "reached") for claim, outcome in goals]
    shares = {"goals": tuple(first.confidence for pair in goals if (first := pair[0] or pair[1]))}
    if any(outcome for _, outcome in goals):
        shares["success"] = tuple(outcome.confidence for _, outcome in goals if outcome)
    turns = tuple(sorted(claim.place[0] for claim in (*kept, *none)))
    open_ended = any(goal.turns is None for goal in said)  # which says that no turn is judged, unless they are named
    return tuple(said), turns if turns and (open_ended or not _is_whole(turns, prediction.begins)) else None, shares


def _decided_defects(prediction: Prediction, made: _Claims, sure: _Claims) -> _Decided:
    said = sorted((*sure["defects"], *sure["no_defect"]), key=lambda claim: claim.place)
    if not said:
        return None
    turns = tuple(claim.place[0] for claim in said)
    defects = tuple(claim.place[0] for claim in sure["defects"])
    return (
        defects,
        None if _is_whole(turns, prediction.defects) else turns,
        {"defects": tuple(claim.confidence for claim in said)},
    )


def _decided_slots(prediction: Prediction, made: _Claims, sure: _Claims) -> _Decided:
    kept = [Slot(turn, start, end, claim.label) for claim in sure["slots"] for turn, start, end in [claim.place]]
    doubtful = {claim.place[0] for claim in set(made["slots"]) - set(sure["slots"])}
    turns = tuple(claim.place[0] for claim in sure.get("no_slot", ()) if claim.place[0] not in doubtful)
    if not kept and not turns:
        return None
    shares = {"slots": tuple(claim.confidence for claim in sure["slots"])}
    return tuple(kept), None if _is_whole(turns, prediction.no_slot) else turns, shares


def _is_whole(turns: Sequence[int], of_turns: Tensor | None) -> bool:
    return of_turns is not None and len(turns) == len(of_turns)


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
    return found if prediction.whole_success is None else sorted(found, key=lambda goal: -goal[1])[:1]


def _outcome(share: float) -> tuple[str, float]:
    return ("reached", share) if share >= 0.5 else ("missed", 1 - share)


def _likeliest(kind: str, shares: Tensor | None, names: tuple[str, ...]) -> Iterable[Claim]:
    if shares is None:
        return []
    sure, index = torch.max(shares, 1)
    pairs = enumerate(zip(sure.tolist(), index.tolist(), strict=True))
    said = ((turn, each, place) for turn, (each, place) in pairs if not math.isnan(each))
    return [Claim(kind, (turn,), names[place], min(1.0, each)) for turn, each, place in said]
