"""Dawid-Skene by plain expectation-maximisation, as the textbook writes it.

Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, Applied Statistics 28, 1979.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dawid_skene(
    items: Tensor, annotators: Tensor, labels: Tensor, num_items: int, num_annotators: int, num_classes: int,
    iterations: int, smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, list[float]]:  # fmt: skip
    """Posteriors [I, K], confusions [A, K (true), K (label)], prior [K], and the log likelihood before each iteration's
    last step; float64."""
    votes = torch.zeros(num_items, num_classes, dtype=torch.float64)
    votes.index_put_((items, labels), torch.ones(len(items), dtype=torch.float64), accumulate=True)
    total = votes.sum(1, keepdim=True)
    posteriors = torch.where(total > 0, votes / total, 1 / num_classes)
    likelihoods = []
    for _ in range(iterations):
        confusions = torch.full((num_annotators, num_classes, num_classes), smoothing, dtype=torch.float64)
        counts = torch.zeros(num_annotators, num_classes, num_classes, dtype=torch.float64)  # [annotator, label, true]
        counts.index_put_((annotators, labels), posteriors[items], accumulate=True)
        confusions += counts.transpose(1, 2)
        sums = confusions.sum(2, keepdim=True)
        confusions = torch.where(sums > 0, confusions / sums, 1 / num_classes)
        prior = posteriors.mean(0) if num_items else torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
        logits = prior.log().repeat(num_items, 1)
        logits.index_add_(0, items, confusions.log()[annotators, :, labels])
        likelihoods.append(float(logits.logsumexp(1).sum()))
        posteriors = logits.softmax(1)
    return posteriors, confusions, prior, likelihoods
