"""How much of a difference between two systems is chance: a paired bootstrap over what was drawn independently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.ops import _checks

_PART = 256  # resamples that are weighed at once


@dataclass(frozen=True)
class Difference:
    """A figure of two systems on the same units.

    Attributes:
        ours, theirs: the figure of each, on all units.
        difference: ours - theirs.
        low, high: its 95 % interval: percentiles of the resamples.
        p: the share of resamples in which ours is not above theirs.
    """

    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    ours: Tensor,
    theirs: Tensor,
    figures: Callable[[Tensor], Mapping[str, Tensor]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Figures of sums, ours less theirs, with intervals: units are drawn with replacement, the same ones for both.

    Cost: resamples x num_units multiply-adds for each repetition and count; memory does not grow with the resamples.

    Args:
        ours, theirs: floats [..., num_units, num_counts]: what each unit (a dialogue) adds to the counts. Leading
            dimensions are repetitions (of a gold standard that is drawn, say), over which figures are averaged.
        figures: takes counts [..., num_counts], gives figures [...] by name.
        resamples: how many.
        seed: of the units that are drawn.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape, or there are no units.

    Source:
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993. Koehn: Statistical Significance Tests for Machine
        Translation Evaluation, 2004 (paired).

    Example:
        >>> def share(counts):
        ...     return {"share": counts[..., 0] / counts[..., 1]}
        >>> right = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
        >>> wrong = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
        >>> found = paired_bootstrap(right, wrong, share)["share"]
        >>> found.difference, found.low, found.high
        (0.25, 0.0, 0.75)
    """
    op = "paired_bootstrap"
    for name, value in (("ours", ours), ("theirs", theirs)):
        _checks.real(op, name, value)
        if value.ndim < 2 or not value.shape[-2]:
            raise ValueError(
                f"tercet.{op}: {name} must be [..., num_units, num_counts] with units, got {list(value.shape)}"
            )
    if theirs.shape[:-1] != ours.shape[:-1]:
        raise ValueError(
            f"tercet.{op}: theirs must be of the same repetitions and units as ours, {list(ours.shape[:-1])},"
            f" got {list(theirs.shape[:-1])}"
        )
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"tercet.{op}: resamples must be a positive integer, got {resamples!r}")
    ours, theirs = ours.double(), theirs.double()
    num_units = ours.shape[-2]
    generator = torch.Generator().manual_seed(seed)

    def means(counts: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Figures by row of weights [num_rows, num_units]."""
        made = figures(weights @ counts)
        return {name: values.reshape(-1, len(weights)).mean(0) for name, values in made.items()}

    everyone = torch.ones(1, num_units, dtype=torch.float64)
    first, second = means(ours, everyone), means(theirs, everyone)
    drawn: dict[str, list[Tensor]] = {name: [] for name in first}
    for start in range(0, resamples, _PART):
        units = torch.randint(num_units, (min(_PART, resamples - start), num_units), generator=generator)
        weights = torch.zeros(units.shape, dtype=torch.float64)
        weights.scatter_add_(1, units, torch.ones_like(weights))
        own, other = means(ours, weights), means(theirs, weights)
        for name, parts in drawn.items():
            parts.append(own[name] - other[name])
    return {name: _difference(float(first[name]), float(second[name]), torch.cat(drawn[name])) for name in first}


def _difference(ours: float, theirs: float, resampled: Tensor) -> Difference:
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(ours, theirs, ours - theirs, low, high, float((resampled <= 0).double().mean()))
