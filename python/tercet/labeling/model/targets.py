"""What a model is to learn from a dialogue: gold labels where there are any, else what annotators said, as shares.

A label with a confidence counts by it: an annotation that says "defect" with 0.8 says "defect" for 0.8 and "none" for
the rest, which is how weak labels with a noise rate of their own come in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tercet.labeling.data.dialogues import Dialogue, Labels, Slot
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
        slots: None: not known. transcription: by turn.
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
    slots: tuple[Slot, ...] | None
    transcription: Mapping[int, str]
    swapped: Floats | None = None
    swapped_weight: Floats | None = None


Said = list[tuple[Labels, tuple[float, ...] | None]]


def sources(dialogue: Dialogue, task: str) -> Said:
    """Who speaks of a task: gold alone where it does, else every annotator; with the confidence of each label."""
    if getattr(dialogue.labels, task) is not None:
        return [(dialogue.labels, None)]
    made = [each for each in dialogue.annotations if getattr(each.labels, task) is not None]
    return [(each.labels, each.confidence.get(task)) for each in made]


def targets_of(dialogue: Dialogue, classes: Classes, consensus: Consensus | None = None) -> Targets:
    """The targets of a dialogue.

    Raises:
        ValueError: a label has a name that is not among the classes, of a task that has any.
    """
    size = len(dialogue.turns)
    zeros, square = np.zeros(size, np.float32), np.zeros((size, size), np.float32)
    begins, begins_weight, success, success_weight = (zeros.copy() for _ in range(4))
    membership, membership_weight = square.copy(), square.copy()
    said = sources(dialogue, "goals")
    with_turns = [(goals, sure) for labels, sure in said if (goals := labels.goals or ()) is not None
                  and all(goal.turns is not None for goal in goals)]  # fmt: skip
    for goals, sure in with_turns:
        firsts = set()
        for number, goal in enumerate(goals):
            assert goal.turns is not None
            first = goal.turns[0]
            membership[first, list(goal.turns)] += 1
            membership_weight[first, first + 1 :] += 1
            firsts.add(first)
            if goal.success is not None:
                success[first] += _share(goal.success, sure, number)
                success_weight[first] += 1
        begins[list(firsts)] += 1
    count = max(len(with_turns), 1)
    begins, begins_weight = begins / count, begins_weight + float(bool(with_turns))
    membership = np.divide(membership, membership_weight, out=square, where=membership_weight > 0)
    success = np.divide(success, success_weight, out=zeros.copy(), where=success_weight > 0)
    whole, whole_weight = _whole(dialogue, said, consensus)
    defects, defects_weight = _defects(dialogue, consensus)
    return Targets(
        begins, begins_weight, np.triu(np.minimum(membership, 1), 1), membership_weight / count,
        success, success_weight / count, whole, whole_weight, defects, defects_weight,
        *_names(dialogue, "intents", classes.intents, consensus),
        *_names(dialogue, "failure_point", classes.failure_point, consensus),
        _slots(dialogue), _transcription(dialogue),
    )  # fmt: skip


def single_goal(dialogue: Dialogue) -> bool:
    """Whether nobody names more than one goal."""
    return all(len(labels.goals or ()) < 2 for labels, _ in sources(dialogue, "goals"))


def _share(yes: bool, sure: tuple[float, ...] | None, number: int) -> float:
    return float(yes) if sure is None else sure[number] if yes else 1 - sure[number]


def _whole(dialogue: Dialogue, said: Said, consensus: Consensus | None) -> tuple[float, float]:
    if not single_goal(dialogue):
        return 0.0, 0.0
    found = consensus and consensus.get(("goals", dialogue.id, ()))
    if found and dialogue.labels.goals is None:
        return found.get("reached", 0.0), 1.0
    votes = [
        _share(labels.goals[0].success, sure, 0)
        for labels, sure in said
        if labels.goals and labels.goals[0].success is not None
    ]
    return (float(np.mean(votes)), 1.0) if votes else (0.0, 0.0)


def _defects(dialogue: Dialogue, consensus: Consensus | None) -> tuple[Floats, Floats]:
    size, said = len(dialogue.turns), sources(dialogue, "defects")
    shares = np.zeros(size, np.float32)
    for labels, sure in said:
        for number, turn in enumerate(labels.defects or ()):
            shares[turn] += _share(True, sure, number)
    shares /= max(len(said), 1)
    if consensus is not None and dialogue.labels.defects is None:
        for turn in range(size):
            found = consensus.get(("defects", dialogue.id, (turn,)))
            shares[turn] = found.get("defect", 0.0) if found else shares[turn]
    return shares, np.full(size, float(bool(said)), np.float32)


def _names(dialogue: Dialogue, task: str, names: tuple[str, ...], consensus: Consensus | None) -> tuple[Floats, Floats]:
    shares = np.zeros((len(dialogue.turns), len(names)), np.float32)
    if not names:
        return shares, shares.sum(1)
    ids = {name: place for place, name in enumerate(names)}
    for labels, sure in sources(dialogue, task):
        for number, (turn, name) in enumerate(getattr(labels, task).items()):
            if name not in ids:
                raise ValueError(
                    f"tercet.labeling: dialogue {dialogue.id!r}: {task}.{turn} must be one of the {len(names)} names"
                    f" that the model knows, got {name!r}"
                )
            if consensus is not None and (found := consensus.get((task, dialogue.id, (turn,)))):
                for other, share in found.items():
                    shares[turn, ids[other]] = share
                continue
            share = _share(True, sure, number)
            shares[turn] += (1 - share) / max(len(names) - 1, 1)
            shares[turn, ids[name]] += share - (1 - share) / max(len(names) - 1, 1)
    total = shares.sum(1)
    known = (total > 0).astype(np.float32)
    return (shares / np.maximum(total, 1e-9)[:, None]).astype(np.float32), known


def _slots(dialogue: Dialogue) -> tuple[Slot, ...] | None:
    """Those that half of the annotators see, or more."""
    said = sources(dialogue, "slots")
    if not said:
        return None
    seen = Counter(slot for labels, _ in said for slot in set(labels.slots or ()))
    return tuple(sorted((s for s, count in seen.items() if 2 * count >= len(said)), key=lambda s: (s.turn, s.start)))


def _transcription(dialogue: Dialogue) -> dict[int, str]:
    """What most annotators heard; the first of those that equally many heard."""
    heard: dict[int, Counter[str]] = {}
    for labels, _ in sources(dialogue, "transcription"):
        for turn, text in (labels.transcription or {}).items():
            heard.setdefault(turn, Counter())[text] += 1
    return {turn: counts.most_common(1)[0][0] for turn, counts in heard.items()}
