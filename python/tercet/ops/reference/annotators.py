"""Dawid-Skene by plain expectation-maximisation, as the textbook writes it, and its extension by more labels.

Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, Applied Statistics 28, 1979.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dawid_skene(
    items: Tensor, annotators: Tensor, labels: Tensor, num_items: int, num_annotators: int, num_classes: int,
    iterations: int, smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Posteriors [I, K], prior [K], confusions and their counts [A, K (true), K (label)]; float64."""
    votes = _votes(items, labels, num_items, num_classes)
    labelled = votes.sum(1) > 0
    posteriors = votes / votes.sum(1, keepdim=True).clamp(min=1)
    for step in range(iterations + 1):
        counts = _counts(items, annotators, labels, posteriors, num_annotators)
        confusions = _divided(counts, smoothing)
        prior = _divided(posteriors[labelled].sum(0))
        if step < iterations:
            logits = prior.log().repeat(num_items, 1)
            logits.index_add_(0, items, confusions.log()[annotators, :, labels])
            posteriors = logits.softmax(1)
    posteriors[~labelled] = prior
    return posteriors, prior, confusions, counts


def extend(
    model: tuple[Tensor, Tensor, Tensor, Tensor], num_labels: Tensor, items: Tensor, annotators: Tensor, labels: Tensor,
    num_items: int, num_annotators: int, iterations: int, smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The same four of a model that stands on num_labels [I] labels of its items, and of more labels."""
    posteriors, prior, _, counts = model
    num_classes = len(prior)
    before = torch.cat([posteriors, posteriors.new_zeros(num_items - len(posteriors), num_classes)])
    num_before = torch.cat([num_labels, num_labels.new_zeros(num_items - len(num_labels))])[:, None]
    counts_before = torch.cat([counts, counts.new_zeros(num_annotators - len(counts), num_classes, num_classes)])
    log_evidence = torch.where((num_before > 0) & (before == 0), -torch.inf, 0.0)
    log_evidence = torch.where((num_before > 0) & (before > 0), before.log() - prior.log(), log_evidence)
    votes = _votes(items, labels, num_items, num_classes)
    new = votes.sum(1) > 0
    labelled = new | (num_before[:, 0] > 0)
    posteriors = (num_before * before + votes) / (num_before + votes.sum(1, keepdim=True)).clamp(min=1)
    posteriors[~new] = before[~new]
    for step in range(iterations + 1):
        counts = counts_before + _counts(items, annotators, labels, posteriors, num_annotators)
        confusions = _divided(counts, smoothing)
        prior = _divided(posteriors[labelled].sum(0))
        if step < iterations:
            logits = prior.log() + log_evidence
            logits.index_add_(0, items, confusions.log()[annotators, :, labels])
            posteriors[new] = logits[new].softmax(1)
    posteriors[~labelled] = prior
    return posteriors, prior, confusions, counts


def _votes(items: Tensor, labels: Tensor, num_items: int, num_classes: int) -> Tensor:
    votes = torch.zeros(num_items, num_classes, dtype=torch.float64)
    return votes.index_put_((items, labels), torch.ones(len(items), dtype=torch.float64), accumulate=True)


def _counts(items: Tensor, annotators: Tensor, labels: Tensor, posteriors: Tensor, num_annotators: int) -> Tensor:
    num_classes = posteriors.shape[1]
    counts = torch.zeros(num_annotators, num_classes, num_classes, dtype=torch.float64)  # [annotator, label, true]
    return counts.index_put_((annotators, labels), posteriors[items], accumulate=True).transpose(1, 2)


def _divided(counts: Tensor, smoothing: float = 0.0) -> Tensor:
    """Shares of the last dimension; uniform where there is nothing."""
    sums = (counts + smoothing).sum(-1, keepdim=True)
    return torch.where(sums > 0, (counts + smoothing) / sums, 1 / counts.shape[-1])
