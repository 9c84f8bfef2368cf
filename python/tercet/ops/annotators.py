"""`dawid_skene`: the true class of items from the labels of annotators who err, and how each of them errs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.ops import _checks, _native


@dataclass(frozen=True)
class DawidSkene:
    """What `dawid_skene` found.

    Attributes:
        posteriors: float64 [num_items, num_classes], the probability of each class; an item without labels has the
            prior.
        confusions: float64 [num_annotators, num_classes, num_classes], how an annotator labels items of a true class:
            [annotator, true, label], rows of sum 1.
        prior: float64 [num_classes], the share of each class.
        log_likelihood: of the labels, under the confusions and the prior.
        iterations: how many ran.
        counts: float64 [num_annotators, num_classes (label), num_classes (true)] and sums [num_classes]: what the model
            was made from; `extend` goes on from them.
    """

    posteriors: Tensor
    confusions: Tensor
    prior: Tensor
    log_likelihood: float
    iterations: int
    counts: tuple[Tensor, Tensor]

    @property
    def confidence(self) -> Tensor:
        """The probability of each item's likeliest class, float64 [num_items]: where it is low, another label pays."""
        return self.posteriors.max(1).values


def dawid_skene(
    items: Tensor,
    annotators: Tensor,
    labels: Tensor,
    *,
    num_items: int | None = None,
    num_annotators: int | None = None,
    num_classes: int | None = None,
    iterations: int = 50,
    tolerance: float = 0.0,
    smoothing: float = 0.0,
    num_threads: int | None = None,
) -> DawidSkene:
    """Expectation-maximisation of Dawid and Skene's model, from majority votes.

    An annotator who labels an item twice counts twice. Memory: 12 bytes a label, 8 num_classes an item, and 8
    num_classes^2 an annotator sixteen times.

    Args:
        items, annotators, labels: integers [num_labels]: who said what of which; in any order.
        num_items, num_annotators, num_classes: default one more than the largest.
        iterations: the most steps.
        tolerance: stop where the log likelihood of a label rises by less on average; 0: after `iterations`.
        smoothing: added to each count of an annotator's labels; 0 is the maximum of the likelihood.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape, or an id is out of range.

    Source:
        Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979.

    Example:
        >>> items = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> annotators = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> labels = torch.tensor([1, 1, 0, 0, 0, 1])
        >>> dawid_skene(items, annotators, labels, iterations=20).posteriors.argmax(1)
        tensor([1, 0])
    """
    op = "dawid_skene"
    given = {"items": items, "annotators": annotators, "labels": labels}
    sizes = []
    for (name, value), size in zip(given.items(), (num_items, num_annotators, num_classes), strict=True):
        _checks.integers(op, name, value)
        _checks.shape(op, name, value, (len(items),), "[num_labels]")
        size = (int(value.max()) + 1 if len(value) else 0) if size is None else size
        _checks.in_range(op, name, value, size)
        sizes.append(size)
    if sizes[2] < 1:
        raise ValueError(f"tercet.{op}: num_classes must be positive, got {sizes[2]}")
    if iterations < 1:
        raise ValueError(f"tercet.{op}: iterations must be positive, got {iterations}")
    if smoothing < 0 or tolerance < 0:
        raise ValueError(f"tercet.{op}: smoothing and tolerance must not be negative, got {smoothing} and {tolerance}")
    threads = _native.threads(_checks.threads(op, num_threads))
    order = items.long().argsort(stable=True)
    counts = torch.bincount(items.long(), minlength=sizes[0])
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    who, said = (value.to(torch.int32)[order].contiguous() for value in (annotators, labels))
    native = (offsets.data_ptr(), who.data_ptr(), said.data_ptr(), *sizes)

    num_annotators, num_classes = sizes[1:]
    posteriors = torch.empty(sizes[0], num_classes, dtype=torch.float64)
    size = num_annotators * num_classes**2 + num_classes
    shares = torch.empty(_native.cpu.annotators_shares, size, dtype=torch.float64)
    log_confusions = torch.empty(num_annotators, num_classes, num_classes, dtype=torch.float64)
    log_prior = torch.empty(num_classes, dtype=torch.float64)
    _native.cpu.annotators_vote(native, posteriors.data_ptr(), threads)
    _native.cpu.annotators_count(native, posteriors.data_ptr(), shares.data_ptr(), threads)
    likelihood = -torch.inf
    for step in range(1, iterations + 1):
        _native.cpu.annotators_maximise(shares.data_ptr(), smoothing, log_confusions.data_ptr(), log_prior.data_ptr(),
                                        num_annotators, num_classes, threads)  # fmt: skip
        before, likelihood = likelihood, _native.cpu.annotators_expect(
            native, log_confusions.data_ptr(), log_prior.data_ptr(), posteriors.data_ptr(), shares.data_ptr(), threads
        )
        if likelihood - before < tolerance * len(items):
            break
    made = shares[0].clone()
    confusions = log_confusions.exp().transpose(1, 2).contiguous()
    sums = made[num_annotators * num_classes**2 :]
    return DawidSkene(posteriors, confusions, log_prior.exp(), likelihood, step,
                      (made[: -num_classes].view(num_annotators, num_classes, num_classes), sums))  # fmt: skip
