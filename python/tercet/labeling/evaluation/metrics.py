"""How good labels are. Every metric is a figure of counts that dialogues add up, so that it can be resampled by them.

Matching, counts [..., 3] = right, predicted, gold; a figure whose divisor is 0 is 0:

    precision = right / predicted      recall = right / gold      f1 = 2 right / (predicted + gold)

what is matched   an item is                                                    predicted at
goal_boundary     a turn at which a goal begins, but for the first turn         any turn
goal_membership   two turns of one goal, or one turn of a goal with itself      any turns
defects           a turn with a defect                                          any turn
intents           a turn with its name: recall is the accuracy                  the turns that gold names
failure_point     the same                                                      the turns that gold names
slots             a span with its name, exactly                                 any span
slot_values       a turn, the name of a slot, its text in lower case            any span
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import Labels, Turn, turn_of
from tercet.ops import _checks

DETECTION_FIGURES = ("accuracy", "precision", "recall", "f1", "precision_at_half_coverage")
_Items = Callable[[Labels, Sequence[Turn]], Collection[Hashable] | None]


def matching_counts(gold: Iterable[Hashable], predicted: Iterable[Hashable]) -> Tensor:
    """Counts of two sets: float64 [3] = right, predicted, gold.

    Example:
        >>> matching_counts({1, 2, 3}, {3, 4})
        tensor([1., 2., 3.], dtype=torch.float64)
    """
    wanted, found = set(gold), set(predicted)
    return torch.tensor([len(wanted & found), len(found), len(wanted)], dtype=torch.float64)


def label_counts(what: str, gold: Labels, predicted: Labels, turns: Sequence[Turn]) -> Tensor | None:
    """Counts of one dialogue, float64 [3]; None where gold lacks the task, or the turns of a goal.

    Of goals, defects and slots the turns that gold judges count. Labels that are predicted for a task or turn that was
    abstained from are none: all of gold is missed.

    Args:
        what: see the module.
        gold, predicted: of the same dialogue.
        turns: its turns.

    Raises:
        ValueError: what is none of these.

    Example:
        >>> turns = (Turn("user", "play jazz"), Turn("system", "Playing jazz."))
        >>> gold, predicted = Labels(intents={0: "play"}), Labels(intents={0: "stop", 1: "play"})
        >>> label_counts("intents", gold, predicted, turns)
        tensor([0., 1., 1.], dtype=torch.float64)
    """
    if what not in MATCHED:
        raise ValueError(f"tercet.label_counts: what must be one of {', '.join(MATCHED)}, got {what!r}")
    task = _TASKS.get(what, what)
    if task in gold.judged:
        gold, predicted = (_at(labels, task, gold.judged[task]) for labels in (gold, predicted))
    wanted = MATCHED[what](gold, turns)
    if wanted is None:
        return None
    found = MATCHED[what](predicted, turns) or ()
    if what in ("intents", "failure_point"):
        asked = getattr(gold, what)
        found = [item for item in found if item[0] in asked]  # type: ignore[index]
    return matching_counts(wanted, found)


def precision(counts: Tensor) -> Tensor:
    """Of counts [..., 3]: the share of what was predicted that is right."""
    return _ratio(counts[..., 0], counts[..., 1])


def recall(counts: Tensor) -> Tensor:
    """Of counts [..., 3]: the share of gold that was predicted."""
    return _ratio(counts[..., 0], counts[..., 2])


def f1(counts: Tensor) -> Tensor:
    """Of counts [..., 3]: the harmonic mean of precision and recall."""
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def detection_counts(gold: Tensor, predicted: Tensor, scores: Tensor) -> Tensor:
    """What each item adds where a yes or no is wanted of it: float64 [..., num_items, 7].

    The counts are: items, agreeing, right, predicted, gold, surest, right of the surest. The surest are the half of the
    predicted ones with the highest scores; equal scores at its edge share what is left of it.

    Args:
        gold, predicted: bool [..., num_items]; leading dimensions are repetitions.
        scores: floats [..., num_items]: how sure each is; all equal where nothing says so, as of a person: the surest
            are then a half at random, on average.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape.

    Example:
        >>> gold, scores = torch.tensor([True, True, False, False]), torch.tensor([0.9, 0.2, 0.6, 0.1])
        >>> found = detection_figures(detection_counts(gold, scores > 0.5, scores).sum(0))
        >>> {name: float(value) for name, value in found.items()}
        {'accuracy': 0.5, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'precision_at_half_coverage': 1.0}
    """
    op = "detection_counts"
    _checks.real(op, "scores", scores)
    for name, value in (("gold", gold), ("predicted", predicted)):
        if _checks.tensor(op, name, value).dtype != torch.bool:
            raise TypeError(f"tercet.{op}: {name} must be bool, got {value.dtype}")
    try:
        gold, predicted, scores = torch.broadcast_tensors(gold, predicted, scores)
    except RuntimeError as error:
        raise ValueError(
            f"tercet.{op}: gold, predicted and scores must be of the same items,"
            f" got {list(gold.shape)}, {list(predicted.shape)}, {list(scores.shape)}"
        ) from error
    right, surest = gold & predicted, _surest_half(predicted, scores.double())
    flags = (torch.ones_like(gold), gold == predicted, right, predicted, gold)
    return torch.stack([*(flag.double() for flag in flags), surest, surest * gold], -1)


def detection_figures(counts: Tensor) -> dict[str, Tensor]:
    """Of counts [..., 7], summed over items: each of DETECTION_FIGURES, [...]."""
    matched = counts[..., 2:5]
    values = (
        _ratio(counts[..., 1], counts[..., 0]),
        precision(matched),
        recall(matched),
        f1(matched),
        _ratio(counts[..., 6], counts[..., 5]),
    )
    return dict(zip(DETECTION_FIGURES, values, strict=True))


def segmentation_counts(gold: Collection[int], predicted: Collection[int], num_turns: int, window: int) -> Tensor:
    """Counts of one dialogue for WindowDiff and Pk, which are their errors / windows: float64 [3] = window_diff errors,
    pk errors, windows.

    Of every two turns `window` apart: WindowDiff counts those with another number of boundaries between them than gold
    has, Pk those that are together in one and apart in the other. A dialogue of up to `window` turns has no windows.

    Args:
        gold, predicted: the turns at which something begins; the first turn says nothing.
        num_turns: of the dialogue.
        window: at least 1; half the mean length of gold segments is usual.

    Raises:
        ValueError: window is less than 1.

    Source:
        Beeferman, Berger, Lafferty: Statistical Models for Text Segmentation, 1999 (Pk). Pevzner, Hearst: A Critique
        and Improvement of an Evaluation Metric for Text Segmentation, 2002 (WindowDiff).

    Example:
        >>> segmentation_counts({2, 4}, {3, 4}, num_turns=6, window=2)
        tensor([2., 1., 4.], dtype=torch.float64)
    """
    if window < 1:
        raise ValueError(f"tercet.segmentation_counts: window must be at least 1, got {window}")
    between = []
    for begins in (gold, predicted):
        flags = torch.tensor([turn in begins for turn in range(num_turns)], dtype=torch.int64)
        between.append(flags[1:].unfold(0, window, 1).sum(1) if num_turns > window else flags[:0])
    wanted, found = between
    errors = (wanted != found).sum(), ((wanted > 0) != (found > 0)).sum()
    return torch.tensor([*map(int, errors), len(wanted)], dtype=torch.float64)


def word_error_counts(said: str, heard: str) -> Tensor:
    """Counts of one turn for the word error rate, errors / words: float64 [2] = errors, words, by jiwer.

    Words are what spaces separate, as they are written; where nothing was said, every word heard is an error.

    Raises:
        ImportError: jiwer is missing (extra `labels`).

    Example:
        >>> word_error_counts("play some jazz", "play jaz")
        tensor([2., 3.], dtype=torch.float64)
    """
    try:
        import jiwer
    except ImportError as error:
        raise ImportError("word error rates need jiwer: pip install 'tercet[labels]'") from error
    found = jiwer.process_words(said, heard)
    missed = found.substitutions + found.deletions
    return torch.tensor([missed + found.insertions, found.hits + missed], dtype=torch.float64)


def class_counts(gold: Sequence[str], predicted: Sequence[str | None]) -> dict[str, Tensor]:
    """Counts [3] of each class that is in gold or predicted, by name, in alphabetical order.

    Args:
        gold: the class of each item.
        predicted: the same; None where it was abstained from.

    Raises:
        ValueError: they are not of as many items.

    Example:
        >>> found = class_counts(["yes", "no", "no"], ["yes", "yes", None])
        >>> {name: f"{float(f1(counts)):.2f}" for name, counts in found.items()}, f"{macro_f1(found):.2f}"
        ({'no': '0.00', 'yes': '0.67'}, '0.33')
    """
    if len(gold) != len(predicted):
        raise ValueError(f"tercet.class_counts: predicted must be of the {len(gold)} items, got {len(predicted)}")
    names = sorted({*gold, *(name for name in predicted if name is not None)})
    return {
        name: matching_counts(
            (item for item, other in enumerate(gold) if other == name),
            (item for item, other in enumerate(predicted) if other == name),
        )
        for name in names
    }


def macro_f1(counts: Mapping[str, Tensor]) -> float:
    """The mean F1 of classes, of `class_counts`; 0 of none."""
    return float(f1(torch.stack([*counts.values()])).mean()) if counts else 0.0


def _at(labels: Labels, task: str, turns: Collection[int]) -> Labels:
    """The labels of a task that are at some turns, goals those that begin there."""
    found = getattr(labels, task)
    kept: dict[str, Any] = {task: tuple(label for label in found or () if turn_of(label) in turns)}
    return Labels() if found is None else Labels(**kept)


def _boundaries(labels: Labels, turns: Sequence[Turn]) -> Collection[Hashable] | None:
    goals = _turns_of_goals(labels)
    return None if goals is None else {goal[0] for goal in goals} - {0}


def _membership(labels: Labels, turns: Sequence[Turn]) -> set[Hashable] | None:
    goals = _turns_of_goals(labels)
    return None if goals is None else {pair for goal in goals for pair in combinations_with_replacement(goal, 2)}


def _turns_of_goals(labels: Labels) -> list[tuple[int, ...]] | None:
    """None where the turns of any goal are not known."""
    found = [goal.turns for goal in labels.goals or ()]
    if labels.goals is None or None in found:
        return None
    return [turns for turns in found if turns is not None]


def _slots(labels: Labels, turns: Sequence[Turn]) -> Collection[Hashable] | None:
    return labels.slots


def _slot_values(labels: Labels, turns: Sequence[Turn]) -> set[Hashable] | None:
    if labels.slots is None:
        return None
    return {(slot.turn, slot.name, turns[slot.turn].text[slot.start : slot.end].lower()) for slot in labels.slots}


def _defects(labels: Labels, turns: Sequence[Turn]) -> Collection[Hashable] | None:
    return labels.defects


def _intents(labels: Labels, turns: Sequence[Turn]) -> Collection[Hashable] | None:
    return None if labels.intents is None else list(labels.intents.items())


def _failure_points(labels: Labels, turns: Sequence[Turn]) -> Collection[Hashable] | None:
    return None if labels.failure_point is None else list(labels.failure_point.items())


_TASKS = {"goal_boundary": "goals", "goal_membership": "goals", "slot_values": "slots"}
MATCHED: dict[str, _Items] = {
    "goal_boundary": _boundaries,
    "goal_membership": _membership,
    "defects": _defects,
    "intents": _intents,
    "failure_point": _failure_points,
    "slots": _slots,
    "slot_values": _slot_values,
}


def _surest_half(predicted: Tensor, scores: Tensor) -> Tensor:
    """The part of each item that is in the surest half of the predicted ones: float64 in 0..1 [..., num_items]."""
    wanted = ((predicted.sum(-1, keepdim=True) + 1) // 2).double()
    scores = scores.masked_fill(~predicted, -torch.inf)
    ordered, _ = scores.sort(-1, descending=True)
    edge = ordered.gather(-1, (wanted - 1).clamp(min=0).long()) if scores.shape[-1] else ordered
    above, tied = scores > edge, (scores == edge) & predicted
    left = wanted - above.sum(-1, keepdim=True)
    return above.double() + tied * left / tied.sum(-1, keepdim=True).clamp(min=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(whole.dtype).tiny), torch.zeros_like(whole))
