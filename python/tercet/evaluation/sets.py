"""Metrics of predicted sets against the right ones, one number for each row of a batch.

They depend on ids only through equality, never through order: renaming the entities changes no figure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.graph.entity_sets import EntitySets
from tercet.ops import _checks


def hits_at_1(scores: EntitySets, answers: EntitySets, *, tolerance: float = 1e-5) -> Tensor:
    """The chance that a best-scored entity, drawn evenly among the tied best, is an answer.

    hits[b] = |best of b that are answers| / |best of b|; 0 where no entity has a score above 0.

    Args:
        scores: the predicted sets [batch].
        answers: the right sets [batch]; membership only.
        tolerance: scores within this fraction of the best are tied with it. Sums that differ in nothing but the order
            of their terms round differently; without a tolerance the order of ids would decide such ties.

    Returns:
        float64 [batch], in 0..1.

    Raises:
        ValueError: the batches differ in size, or tolerance is not in 0..1.

    Example:
        >>> scores = EntitySets.from_lists([{1: 0.5, 2: 0.5, 3: 0.1}, {1: 1.0}, {}])
        >>> hits_at_1(scores, EntitySets.from_lists([{2}, {1}, {1}]))
        tensor([0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    _same_batch("hits_at_1", "scores", scores, answers)
    if not 0 <= tolerance < 1:
        raise ValueError(f"tercet.hits_at_1: tolerance must be in 0..1, got {tolerance}")
    rows, weights = scores.rows(), scores.weights.detach().double()
    best = weights.new_zeros(len(scores)).scatter_reduce(0, rows, weights, "amax")
    tied = (weights > 0) & (weights >= best[rows] * (1 - tolerance))
    right = tied & members_of(scores, answers)
    return _sums(right, rows, len(scores)) / _sums(tied, rows, len(scores)).clamp(min=1)


def f1(predicted: EntitySets, answers: EntitySets, *, absent: Tensor | None = None) -> Tensor:
    """The harmonic mean of precision and recall of each predicted set: 2 |p & a| / (|p| + |a|).

    Args:
        predicted: the predicted sets [batch]; membership only.
        answers: the right sets [batch]; membership only.
        absent: integers [batch], right answers beyond `answers` that no prediction can name; they lower recall.

    Returns:
        float64 [batch], in 0..1; 1 where both sets are empty.

    Raises:
        ValueError: the batches differ in size, or absent is not [batch].

    Example:
        >>> f1(EntitySets.from_lists([{1, 2}, {}]), EntitySets.from_lists([{2}, {}]))
        tensor([0.6667, 1.0000], dtype=torch.float64)
    """
    _same_batch("f1", "predicted", predicted, answers)
    right = _sums(members_of(predicted, answers), predicted.rows(), len(predicted))
    return _ratio(right, predicted.sizes().double(), _num_answers("f1", answers, absent))


def f1_by_threshold(
    scores: EntitySets, answers: EntitySets, thresholds: Tensor, *, absent: Tensor | None = None
) -> Tensor:
    """F1 of the members whose score is at least each threshold: float64 [batch, num_thresholds].

    Args:
        scores, answers, absent: as for `hits_at_1` and `f1`.
        thresholds: ascending [num_thresholds].

    Raises:
        ValueError: the batches differ in size, or thresholds do not ascend.

    Example:
        >>> scores = EntitySets.from_lists([{1: 0.9, 2: 0.4}])
        >>> f1_by_threshold(scores, EntitySets.from_lists([{1}]), torch.tensor([0.3, 0.5, 0.95]))
        tensor([[0.6667, 1.0000, 0.0000]], dtype=torch.float64)
    """
    _same_batch("f1_by_threshold", "scores", scores, answers)
    if thresholds.ndim != 1 or bool((thresholds.diff() <= 0).any()):
        raise ValueError("tercet.f1_by_threshold: thresholds must ascend in one dimension")
    # A member with k thresholds at or below its score is predicted by the first k: count by k, then sum from above.
    weights = scores.weights.detach()
    passed = torch.bucketize(weights, thresholds.to(weights), right=True)
    columns = len(thresholds) + 1
    cell = scores.rows() * columns + passed
    right = members_of(scores, answers)
    at_least = [
        _sums(kept, cell, len(scores) * columns).view(-1, columns).flip(1).cumsum(1).flip(1)[:, 1:]
        for kept in (torch.ones_like(right), right)
    ]
    return _ratio(at_least[1], at_least[0], _num_answers("f1_by_threshold", answers, absent)[:, None])


def members_of(sets: EntitySets, others: EntitySets) -> Tensor:
    """Whether each member of `sets` is a member of the same row of `others`: bool [num_members]."""
    size = max(sets.num_entities, others.num_entities)
    keys, wanted = (s.rows() * size + s.entities for s in (sets, others))
    if not len(wanted):
        return torch.zeros_like(keys, dtype=torch.bool)
    at = torch.searchsorted(wanted, keys).clamp(max=len(wanted) - 1)
    return wanted[at] == keys


def _sums(kept: Tensor, cell: Tensor, size: int) -> Tensor:
    return torch.bincount(cell[kept], minlength=size).double()


def _ratio(right: Tensor, num_predicted: Tensor, num_answers: Tensor) -> Tensor:
    total = num_predicted + num_answers
    return torch.where(total > 0, 2 * right / total.clamp(min=1), torch.ones_like(total))


def _num_answers(op: str, answers: EntitySets, absent: Tensor | None) -> Tensor:
    sizes = answers.sizes().double()
    if absent is None:
        return sizes
    _checks.shape(op, "absent", absent, (len(answers),), "[batch]")
    return sizes + absent


def _same_batch(op: str, name: str, sets: EntitySets, answers: EntitySets) -> None:
    if len(sets) != len(answers):
        raise ValueError(
            f"tercet.{op}: {name} and answers must have one batch size, got {len(sets)} and {len(answers)}"
        )
