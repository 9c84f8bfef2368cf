"""What a model is to learn from a dialogue: gold labels where there are any, else what annotators said, as shares.

A label with a confidence counts by it: an annotation that says "defect" with 0.8 says "defect" for 0.8 and "none" for
the rest, and a turn with a weight counts by that, which is how weak labels with a noise rate of their own come in. A
turn that nobody judged is masked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercet.labeling.data.dialogues import Annotation, Dialogue, Slot
from tercet.labeling.model.predictions import Classes

Floats = npt.NDArray[np.float32]
Consensus = Mapping[tuple[str, str, tuple[int, ...]], Mapping[str, float]]  # (task, dialogue, place) -> shares of names


@dataclass(frozen=True, eq=False)
class Targets:
    """Of a dialogue of T turns; a weight of 0 says that nothing is known.

    Attributes:
        begins: [T] shares; begins_weight: [T].
        membership, membership_weight: [T, T], above the diagonal.
        success, success_weight: [T], of the goal that begins at the turn.
        whole_success, whole_weight: of the dialogue.
        defects, defects_weight: [T]. swapped, swapped_weight: [T], of answers put in from another dialogue.
        intents [T, num_intents], intents_weight [T]; failure_point likewise.
        slots: of all turns; slots_known: [T], 1 where all slots of the turn are known. transcription: by turn.
    """

    begins: Floats
    begins_weight: Floats
    membership: Floats
    membership_weight: Floats
    success: Floats
    success_weight: Floats
    whole_success: float
    whole_weight: float
    defects: Floats
    defects_weight: Floats
    intents: Floats
    intents_weight: Floats
    failure_point: Floats
    failure_point_weight: Floats
    slots: tuple[Slot, ...]
    slots_known: Floats
    transcription: Mapping[int, str]
    swapped: Floats | None = None
    swapped_weight: Floats | None = None


def sources(dialogue: Dialogue, task: str) -> list[Annotation]:
    """Who speaks of a task: gold alone where it does, as one who is sure, else every annotator."""
    if getattr(dialogue.labels, task) is not None:
        return [Annotation("gold", dialogue.labels)]
    return [each for each in dialogue.annotations if getattr(each.labels, task) is not None]


def targets_of(dialogue: Dialogue, classes: Classes, consensus: Consensus | None = None) -> Targets:
    """The targets of a dialogue.

    Raises:
        ValueError: a label has a name that is not among the classes, of a task that has any.
    """
    begins, begins_weight, membership, membership_weight, success, success_weight = _goals(dialogue)
    return Targets(
        begins, begins_weight, membership, membership_weight, success, success_weight,
        *_whole(dialogue, consensus), *_defects(dialogue, consensus),
        *_names(dialogue, "intents", classes.intents, consensus),
        *_names(dialogue, "failure_point", classes.failure_point, consensus),
        *_slots(dialogue), _transcription(dialogue),
    )  # fmt: skip


def _goals(dialogue: Dialogue) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Shares and weights of begins, membership and success, of the turns that are judged."""
    size = len(dialogue.turns)
    begins, judged, success, success_weight = (np.zeros(size, np.float32) for _ in range(4))
    membership, membership_weight = (np.zeros((size, size), np.float32) for _ in range(2))
    for each in sources(dialogue, "goals"):
        turns, firsts, sure = each.labels.judged_turns("goals", size), set(), each.sure_of_success()
        judged[list(turns)] += 1
        for number, goal in enumerate(each.labels.goals or ()):
            if goal.turns is None or goal.turns[0] not in turns:
                continue
            first = goal.turns[0]
            membership[first, list(goal.turns)] += 1
            membership_weight[first, first + 1 :] += 1
            firsts.add(first)
            if goal.success is not None:
                success[first] += _share(goal.success, sure.get(number, 1.0))
                success_weight[first] += 1
        begins[list(firsts)] += 1
    count = np.maximum(judged, 1).astype(np.float32)
    membership = np.divide(membership, membership_weight, out=np.zeros_like(membership), where=membership_weight > 0)
    success = np.divide(success, success_weight, out=np.zeros_like(success), where=success_weight > 0)
    return (
        begins / count, (judged > 0).astype(np.float32), np.triu(np.minimum(membership, 1), 1),
        membership_weight / count[:, None], success, success_weight / count,
    )  # fmt: skip


def single_goal(dialogue: Dialogue) -> bool:
    """Whether nobody names more than one goal."""
    return all(len(each.labels.goals or ()) < 2 for each in sources(dialogue, "goals"))


def _share(yes: bool, sure: float) -> float:
    return sure if yes else 1 - sure


def _whole(dialogue: Dialogue, consensus: Consensus | None) -> tuple[float, float]:
    if not single_goal(dialogue):
        return 0.0, 0.0
    found = consensus and consensus.get(("goals", dialogue.id, ()))
    if found and dialogue.labels.goals is None:
        return found.get("reached", 0.0), 1.0
    votes = [
        _share(each.labels.goals[0].success, each.sure_of_success().get(0, 1.0))
        for each in sources(dialogue, "goals")
        if each.labels.goals and each.labels.goals[0].success is not None
    ]
    return (float(np.mean(votes)), 1.0) if votes else (0.0, 0.0)


def _defects(dialogue: Dialogue, consensus: Consensus | None) -> tuple[Floats, Floats]:
    """Of each turn the mean over those who judge it, by their weights, and the largest of these."""
    size = len(dialogue.turns)
    shares, sums, weights = (np.zeros(size, np.float32) for _ in range(3))
    for each in sources(dialogue, "defects"):
        turns, sure = each.labels.judged_turns("defects", size), each.sure_of_defects(size)
        for turn, weight in zip(turns, each.weight.get("defects", (1.0,) * len(turns)), strict=True):
            shares[turn] += weight * _share(turn in (each.labels.defects or ()), sure.get(turn, 1.0))
            sums[turn] += weight
            weights[turn] = max(weights[turn], weight)
    shares = np.divide(shares, sums, out=np.zeros_like(shares), where=sums > 0)
    if consensus is not None and dialogue.labels.defects is None:
        for turn in range(size):
            found = consensus.get(("defects", dialogue.id, (turn,)))
            shares[turn] = found.get("defect", 0.0) if found else shares[turn]
    return shares, weights


def _names(dialogue: Dialogue, task: str, names: tuple[str, ...], consensus: Consensus | None) -> tuple[Floats, Floats]:
    shares = np.zeros((len(dialogue.turns), len(names)), np.float32)
    if not names:
        return shares, shares.sum(1)
    ids = {name: place for place, name in enumerate(names)}
    for each in sources(dialogue, task):
        given = getattr(each.labels, task)
        for (turn, name), share in zip(given.items(), each.confidence.get(task, (1.0,) * len(given)), strict=True):
            if name not in ids:
                raise ValueError(
                    f"tercet.labeling: dialogue {dialogue.id!r}: {task}.{turn} must be one of the {len(names)} names"
                    f" that the model knows, got {name!r}"
                )
            if consensus is not None and (found := consensus.get((task, dialogue.id, (turn,)))):
                for other, share in found.items():
                    shares[turn, ids[other]] = share
                continue
            shares[turn] += (1 - share) / max(len(names) - 1, 1)
            shares[turn, ids[name]] += share - (1 - share) / max(len(names) - 1, 1)
    total = shares.sum(1)
    known = (total > 0).astype(np.float32)
    return (shares / np.maximum(total, 1e-9)[:, None]).astype(np.float32), known


def _slots(dialogue: Dialogue) -> tuple[tuple[Slot, ...], Floats]:
    """Those that half of the annotators see, or more, who judge the turn or see them; and which turns are judged."""
    known = np.zeros(len(dialogue.turns), np.float32)
    seen: Counter[Slot] = Counter()
    apart: Counter[Slot] = Counter()  # by those who did not judge its turn
    for each in sources(dialogue, "slots"):
        judged = each.labels.judged_turns("slots", len(known))
        known[list(judged)] += 1
        for slot in set(each.labels.slots or ()):
            seen[slot] += 1
            apart[slot] += slot.turn not in judged
    found = (slot for slot, count in seen.items() if 2 * count >= known[slot.turn] + apart[slot])
    return tuple(sorted(found, key=lambda slot: (slot.turn, slot.start))), np.minimum(known, 1)


def _transcription(dialogue: Dialogue) -> dict[int, str]:
    """What most annotators heard; the first of those that equally many heard."""
    heard: dict[int, Counter[str]] = {}
    for each in sources(dialogue, "transcription"):
        for turn, text in (each.labels.transcription or {}).items():
            heard.setdefault(turn, Counter())[text] += 1
    return {turn: counts.most_common(1)[0][0] for turn, counts in heard.items()}
