"""`dawid_skene`: the true class of items from the labels of annotators who err, and how each of them errs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.ops import _checks, _native


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """Dawid and Skene's model of items, annotators and classes, as `dawid_skene` and `extend` fit it.

    Attributes:
        posteriors: float64 [num_items, num_classes], the probability of each class; an item without labels has the
            prior.
        prior: float64 [num_classes], the share of each class among the items with labels.
        confusions: float64 [num_annotators, num_classes, num_classes]: how often an annotator who meets a true class
            says a label, [annotator, true, label]. Rows sum to 1; one that nothing is known of is uniform.
        counts: float64, like confusions: how many labels each entry stands on, each shared out by its item's posterior.
        num_labels: int64 [num_items], the labels of each item.
        smoothing: what was added to each count before division.
        iterations: how many ran last.
    """

    posteriors: Tensor
    prior: Tensor
    confusions: Tensor
    counts: Tensor
    num_labels: Tensor
    smoothing: float
    iterations: int

    @property
    def confidence(self) -> Tensor:
        """The probability of each item's likeliest class, float64 [num_items]: where it is low, another label pays.

        Example:
            >>> items, annotators = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
            >>> labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
            >>> dawid_skene(items, annotators, labels, smoothing=1.0).confidence.argmin()
            tensor(2)
        """
        return self.posteriors.amax(1)

    def extend(
        self,
        items: Tensor,
        annotators: Tensor,
        labels: Tensor,
        *,
        num_items: int | None = None,
        num_annotators: int | None = None,
        iterations: int = 50,
        tolerance: float = 0.0,
        num_threads: int | None = None,
    ) -> DawidSkene:
        """The model with more labels, of its items and annotators or of new ones, without the labels that it stands on.

        Expectation-maximisation on the new labels, where earlier ones are represented by what the model keeps of them:

            counts[a, k, l] = counts of the model + sum of T[i, k] over the new labels (i, a, l)
            prior[k] ~ sum of T[i, k] over the items with labels
            T[i, k] ~ prior[k] evidence[i, k] product of confusions[a, k, l] over the new labels (i, a, l)

        An item's evidence is its posterior over the prior in the model, 1 if it had no labels; T starts from a vote in
        which each earlier label votes for its item's posterior. This is an approximation: earlier labels keep the
        confusions by which they were judged and the posteriors by which they were counted, and items without new labels
        keep their posteriors. It is the more exact the more labels the model stands on; labels that come in several
        calls count in that order. Of a model without labels it is `dawid_skene` itself.

        Cost: that of `dawid_skene` on the new labels, and a copy of the model.

        Args:
            items, annotators, labels: integers [num_labels]; new ids continue those of the model, classes are its own.
            num_items, num_annotators: in all; default one more than the largest, and no fewer than before.
            iterations, tolerance, num_threads: as for `dawid_skene`.

        Raises:
            TypeError, ValueError: an argument has the wrong type or shape, or an id is out of range.

        Source:
            Neal, Hinton: A View of the EM Algorithm that Justifies Incremental, Sparse, and Other Variants, 1998: an
            item's part of the counts may be renewed alone.

        Example:
            >>> items, annotators = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
            >>> model = dawid_skene(items, annotators, labels=torch.tensor([1, 1, 1, 0, 0, 0]), smoothing=1.0)
            >>> more = model.extend(torch.tensor([2, 2, 2]), torch.tensor([0, 1, 3]), torch.tensor([1, 1, 0]))
            >>> more.posteriors.argmax(1)
            tensor([1, 0, 1])
        """
        op = "DawidSkene.extend"
        sizes = len(self.posteriors), len(self.counts), len(self.prior)
        new = _check_labels(op, items, annotators, labels, (num_items, num_annotators, sizes[2]), sizes)
        return _fit(op, self, new, iterations, tolerance, num_threads)


def dawid_skene(
    items: Tensor,
    annotators: Tensor,
    labels: Tensor,
    *,
    num_items: int | None = None,
    num_annotators: int | None = None,
    num_classes: int | None = None,
    smoothing: float = 0.0,
    iterations: int = 50,
    tolerance: float = 0.0,
    num_threads: int | None = None,
) -> DawidSkene:
    """Dawid and Skene's model by expectation-maximisation from majority votes: a local maximum of the likelihood.

        counts[a, k, l] = sum of T[i, k] over the labels (i, a, l)
        prior[k] ~ sum of T[i, k] over the items with labels
        confusions[a, k, l] = (counts[a, k, l] + smoothing) / sum over l of the same
        T[i, k] ~ prior[k] product of confusions[a, k, l] over the labels (i, a, l)

    An annotator who labels an item twice counts twice. Computed on the CPU in float64, products by logarithms. Memory
    follows num_labels, num_items x num_classes, and num_annotators x num_classes^2, of which there are up to 20 tables.

    Args:
        items, annotators, labels: integers [num_labels]: who said what of which, in any order.
        num_items, num_annotators, num_classes: default one more than the largest.
        smoothing: added to each count; 0 maximises the likelihood, which trusts few labels too far.
        iterations: the most steps that compute T.
        tolerance: stop when no entry of T changes by more.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape, or an id is out of range.

    Source:
        Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979.

    Example:
        >>> items = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> annotators = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> labels = torch.tensor([1, 1, 0, 0, 0, 1])
        >>> dawid_skene(items, annotators, labels).posteriors.argmax(1)
        tensor([1, 0])
    """
    op = "dawid_skene"
    given = _check_labels(op, items, annotators, labels, (num_items, num_annotators, num_classes), (0, 0, 1))
    _check_amount(op, "smoothing", smoothing)
    classes, value = given.num_classes, torch.float64
    tables = torch.empty(0, classes, classes, dtype=value)
    empty = DawidSkene(torch.empty(0, classes, dtype=value), torch.full((classes,), 1 / classes, dtype=value), tables,
                       tables, torch.empty(0, dtype=torch.int64), smoothing, 0)  # fmt: skip
    return _fit(op, empty, given, iterations, tolerance, num_threads)


class _Labels(NamedTuple):
    """Labels that were checked."""

    items: Tensor
    annotators: Tensor
    labels: Tensor
    num_items: int
    num_annotators: int
    num_classes: int


class _Grouped(NamedTuple):
    """Labels by item, of the items that have any."""

    items: Tensor  # int64, ascending
    offsets: Tensor  # int64 [len(items) + 1]
    rows: Tensor  # int32 [num_labels], annotator x num_classes + label


_LIMIT = 2**31 - 1
_LARGEST = 1e100  # sums of it are finite


def _check_size(op: str, name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LIMIT:
        raise ValueError(f"tercet.{op}: {name} must be an integer in {least}..{_LIMIT}, got {value!r}")


def _check_amount(op: str, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST:
        raise ValueError(f"tercet.{op}: {name} must be a number in 0..{_LARGEST:g}, got {value!r}")


def _check_labels(
    op: str, items: Tensor, annotators: Tensor, labels: Tensor, sizes: tuple[int | None, ...], least: tuple[int, ...]
) -> _Labels:
    """Sizes that are None are one more than the largest id, and at least `least`."""
    columns, found = [], []
    for name, value in (("items", items), ("annotators", annotators), ("labels", labels)):
        _checks.integers(op, name, value)
        _checks.shape(op, name, value, (items.numel(),), "[num_labels]")
        columns.append(value.detach().cpu())
    for name, value, size, lowest in zip(("items", "annotators", "labels"), columns, sizes, least, strict=True):
        if size is None:
            size = max(lowest, int(value.max()) + 1) if len(value) else lowest
        _check_size(op, "num_classes" if name == "labels" else f"num_{name}", size, lowest)
        _checks.in_range(op, name, value, size)
        found.append(size)
    if found[1] * found[2] > _LIMIT:
        raise ValueError(
            f"tercet.{op}: num_annotators x num_classes must be at most {_LIMIT}, got {found[1]} x {found[2]}"
        )
    return _Labels(columns[0], columns[1], columns[2], *found)


def _grouped(given: _Labels) -> _Grouped:
    order = given.items.argsort(stable=True)
    items, counts = torch.unique_consecutive(given.items.long()[order], return_counts=True)
    rows = (given.annotators.to(torch.int32) * given.num_classes)[order]
    rows += given.labels[order]
    return _Grouped(items, torch.nn.functional.pad(counts.cumsum(0), (1, 0)), rows)


def _votes(labels: _Grouped, num_classes: int) -> Tensor:
    """How often each item was given each label, float64 [len(items), num_classes]."""
    rows = torch.arange(len(labels.items)).repeat_interleave(labels.offsets.diff())
    votes = rows.mul_(num_classes).add_(labels.rows % num_classes).bincount(minlength=len(labels.items) * num_classes)
    return votes.view(-1, num_classes).double()


def _grown(tensor: Tensor, size: int) -> Tensor:
    """A copy with rows of zeros appended."""
    return torch.cat([tensor, tensor.new_zeros(size - len(tensor), *tensor.shape[1:])])


def _fit(
    op: str, model: DawidSkene, given: _Labels, iterations: int, tolerance: float, num_threads: int | None
) -> DawidSkene:
    """`model` extended by the labels."""
    _check_size(op, "iterations", iterations, 1)
    _check_amount(op, "tolerance", tolerance)
    threads = _native.threads(_checks.threads(op, num_threads))
    labels, classes = _grouped(given), given.num_classes
    posteriors, num_labels = (_grown(old, given.num_items) for old in (model.posteriors, model.num_labels))
    counts = _grown(model.counts, given.num_annotators).transpose(1, 2)  # [annotator, label, true], as tables have it

    rows, sums, evidence = _votes(labels, classes), model.prior * int(num_labels.count_nonzero()), None
    weight = num_labels[labels.items].unsqueeze(1)
    if weight.any():
        known = posteriors[labels.items] * (weight > 0)
        # Added up by numpy: in one order, whatever the number of threads. A rest that rounding explains is none.
        rest = sums - torch.from_numpy(known.numpy().sum(0))
        sums = torch.where(rest > 1e-12 * sums, rest, 0.0)
        evidence = torch.where(weight > 0, torch.where(model.prior > 0, known / model.prior, 0.0), 1.0)
        rows += known * weight
    rows /= weight + labels.offsets.diff().unsqueeze(1)
    before = torch.cat([counts.flatten(), sums])
    del counts
    after, table, step = _iterate(
        labels, given, rows, evidence, before, model.smoothing, iterations, tolerance, threads
    )

    shape, prior = (given.num_annotators, classes, classes), table[-classes:].clone()
    posteriors[num_labels == 0] = prior
    posteriors[labels.items] = rows
    num_labels[labels.items] += labels.offsets.diff()
    confusions, counts = (
        entries[:-classes].view(shape).transpose(1, 2).clone(memory_format=torch.contiguous_format)
        for entries in (table, after)
    )
    return DawidSkene(posteriors, prior, confusions, counts, num_labels, model.smoothing, step)


def _iterate(
    labels: _Grouped, sizes: _Labels, posteriors: Tensor, evidence: Tensor | None, before: Tensor, smoothing: float,
    iterations: int, tolerance: float, threads: int,
) -> tuple[Tensor, Tensor, int]:  # fmt: skip
    """Changes `posteriors` in place; the tables of counts and of the model that they make, and how many steps ran."""
    args = (*map(_native.pointer, labels[1:]), len(labels.items), sizes.num_annotators, sizes.num_classes)
    workspace = torch.empty(_native.cpu.annotators_workspace(args), dtype=torch.float64)
    model, logarithms = torch.empty_like(before), torch.empty_like(before)
    counting = *map(_native.pointer, (before, posteriors, workspace)), threads
    maximising = workspace.data_ptr(), smoothing, model.data_ptr(), logarithms.data_ptr(), threads
    _native.cpu.annotators_count(args, *counting)
    step, change = 0, math.inf
    while step < iterations and change > tolerance:
        _native.cpu.annotators_maximise(args, *maximising)
        change = _native.cpu.annotators_expect(args, logarithms.data_ptr(), _native.pointer(evidence), *counting)
        step += 1
    _native.cpu.annotators_maximise(args, *maximising)
    return workspace[: len(before)], model, step
