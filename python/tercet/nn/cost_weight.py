"""A weight of compute in a loss that finds its own size."""

from __future__ import annotations


class CostWeight:
    """Steers the share of compute to a target, by dual ascent on the constraint share <= target.

        weight <- max(0, weight + rate (average - target)),   average <- smoothing average + (1 - smoothing) share

    The weight is what a unit of compute costs in the loss: it grows while more is spent than the target allows, falls
    while less is, and rests where the target is met or compute is free. The share of one batch is noisy, so a running
    average is compared.

    Args:
        rate: of ascent, for each step and unit of share.
        smoothing: of the average, in 0..1.
        weight: the first.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> steer = CostWeight(rate=0.5, smoothing=0.0)
        >>> [round(steer.update(share, target=0.5), 2) for share in (0.9, 0.7, 0.5, 0.1)]
        [0.2, 0.3, 0.3, 0.1]
    """

    def __init__(self, rate: float = 0.1, smoothing: float = 0.9, weight: float = 0.0) -> None:
        if rate <= 0 or not 0 <= smoothing < 1 or weight < 0:
            got = f"rate {rate}, smoothing {smoothing}, weight {weight}"
            raise ValueError(f"tercet.nn.CostWeight: rate must be > 0, smoothing in [0, 1) and weight >= 0, got {got}")
        self.rate, self.smoothing, self.weight = rate, smoothing, weight
        self.average: float | None = None

    def update(self, share: float, target: float) -> float:
        """The weight after a batch that spent `share`."""
        before = share if self.average is None else self.average
        self.average = self.smoothing * before + (1 - self.smoothing) * share
        self.weight = max(0.0, self.weight + self.rate * (self.average - target))
        return self.weight

    def state(self) -> dict[str, float | None]:
        """What `restore` takes; plain JSON."""
        return {"weight": self.weight, "average": self.average}

    def restore(self, state: dict[str, float | None]) -> None:
        """Be as at `state`."""
        self.weight, self.average = state["weight"] or 0.0, state["average"]
