"""How well a model's goals, slots and transcriptions match gold labels: figures over a set of dialogues.

Its likeliest labels are compared, nothing is abstained from. Dialogues without gold labels of a task do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tercet.evaluation.bootstrap import paired_bootstrap
from tercet.labeling.data.dialogues import Dialogue, Labels
from tercet.labeling.evaluation.metrics import (
    f1,
    label_counts,
    precision,
    recall,
    segmentation_counts,
    word_error_counts,
)
from tercet.labeling.model.predictions import Classes, Prediction, decide

_WHAT = {"goals": ("goal_boundary", "goal_membership"), "slots": ("slots", "slot_values")}


def likeliest(predictions: Sequence[Prediction], classes: Sequence[Classes]) -> list[Labels]:
    """The labels of every prediction, none abstained from."""
    return [decide(*each).labels for each in zip(predictions, classes, strict=True)]


def counts_by_dialogue(what: str, dialogues: Sequence[Dialogue], labels: Sequence[Labels]) -> Tensor | None:
    """What each dialogue with gold adds to precision, recall and F1: float64 [num, 3]; None where none has gold.

    Args:
        what: of `tercet.labeling.evaluation.metrics.label_counts`.
        dialogues: with gold labels, or without.
        labels: predicted, of each.
    """
    pairs = zip(dialogues, labels, strict=True)
    found = [label_counts(what, dialogue.labels, own, dialogue.turns) for dialogue, own in pairs]
    known = [counts for counts in found if counts is not None]
    return torch.stack(known) if known else None


def segmentation_by_dialogue(dialogues: Sequence[Dialogue], labels: Sequence[Labels]) -> Tensor | None:
    """What each dialogue adds to WindowDiff and Pk, see `segmentation_counts`: float64 [num, 3]; None without gold of
    all turns.

    The window is half the mean length of gold's segments, rounded, and at least 1.
    """
    known = []
    for dialogue, own in zip(dialogues, labels, strict=True):
        size = len(dialogue.turns)
        if len(dialogue.labels.judged_turns("goals", size)) == size:
            known.append((_begins(dialogue.labels), _begins(own), size))
    if not known:
        return None
    segments = sum(len(begins - {0}) + 1 for begins, _, _ in known)
    window = max(1, round(sum(size for _, _, size in known) / segments / 2))
    return torch.stack([segmentation_counts(*each, window) for each in known])


def word_errors_by_dialogue(dialogues: Sequence[Dialogue], labels: Sequence[Labels]) -> tuple[Tensor, Tensor] | None:
    """Errors and words of each dialogue with gold transcription, before and after correction: float64 [num, 2] each.

    Before: the text of turns as it was logged. A turn of which nothing is predicted keeps it.

    Raises:
        ImportError: jiwer is missing (extra `labels`).
    """
    before, after = [], []
    for dialogue, own in zip(dialogues, labels, strict=True):
        gold = dialogue.labels.transcription
        if not gold:
            continue
        sums = torch.zeros(2, 2, dtype=torch.float64)
        for turn, said in gold.items():
            logged = dialogue.turns[turn].text
            corrected = (own.transcription or {}).get(turn, logged)
            sums += torch.stack([word_error_counts(said, heard) for heard in (logged, corrected)])
        before.append(sums[0])
        after.append(sums[1])
    return (torch.stack(before), torch.stack(after)) if before else None


def word_error_rate(counts: Tensor) -> Tensor:
    """Of counts [..., 2] = errors, words."""
    return counts[..., 0] / counts[..., 1].clamp(min=1)


def matching_figures(
    dialogues: Sequence[Dialogue],
    predictions: Sequence[Prediction],
    classes: Sequence[Classes],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """JSON, by task: goals (boundary and membership, WindowDiff, Pk), slots (spans and values), transcription (word
    error rate, and that of the logged text, with a paired bootstrap of what the correction gains).

    A task is absent where no dialogue has gold or the model does not do it.

    Args:
        dialogues, predictions, classes: of the same number.
        resamples, seed: of the bootstrap.
    """
    kinds = {kind for prediction in predictions for kind in prediction.kinds()}
    labels = likeliest(predictions, classes)
    found: dict[str, Any] = {}
    for task, names in _WHAT.items():
        made = {name: counts_by_dialogue(name, dialogues, labels) for name in names if task in kinds}
        known = {name: _figures(counts.sum(0)) for name, counts in made.items() if counts is not None}
        if known:
            found[task] = known
    segments = segmentation_by_dialogue(dialogues, labels) if "goals" in found else None
    if segments is not None:
        different, apart, windows = segments.sum(0).tolist()
        found["goals"] |= {"window_diff": different / max(windows, 1), "pk": apart / max(windows, 1)}
    errors = word_errors_by_dialogue(dialogues, labels) if "transcription" in kinds else None
    if errors is not None:
        name = "word_error_rate"
        gain = paired_bootstrap(
            *errors, lambda counts: {name: word_error_rate(counts)}, resamples=resamples, seed=seed
        )[name]
        found["transcription"] = {name: gain.theirs, "logged": gain.ours, "gain": vars(gain)}
    return found


def _begins(labels: Labels) -> set[int]:
    return {goal.turns[0] for goal in labels.goals or () if goal.turns is not None}


def _figures(counts: Tensor) -> dict[str, float]:
    return {name: float(figure(counts)) for name, figure in (("precision", precision), ("recall", recall), ("f1", f1))}
