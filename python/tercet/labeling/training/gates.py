"""Text encoders that do not compute everything: their arbitrators learn which tokens need which blocks.

In the first fifth of the steps every block runs. Then arbitrators decide, and a controller (`tercet.nn.CostWeight`)
steers what compute costs in the loss so that its share comes down to the target over the next two fifths. At the end
all thresholds are shifted alike until texts of the training data take the target's share with gates as in use.

Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022, for speech; the schedule is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tercet.labeling.model.encoder import TextEncoder
from tercet.nn import ComputeCost, CostWeight
from tercet.nn.block import ArbitratedBlock

_WARM_UP, _RAMP = 0.2, 0.4  # shares of the steps
_RATE = 0.05  # of the controller
_WIDEST_SHIFT, _HALVINGS = 8.0, 14  # of thresholds, in logits


class Steering:
    """The course of a text encoder's gates while it is trained; `state` and `restore` are all that checkpoints need."""

    def __init__(self, encoder: TextEncoder, target: float) -> None:
        self.encoder, self.target, self.weight = encoder, target, CostWeight(rate=_RATE)

    def begin(self, progress: float) -> None:
        """Before a step at this share of all steps: what of the gates holds in it."""
        self.encoder.forced = progress < _WARM_UP
        self.encoder.costs = None if self.encoder.forced else []

    def cost(self, progress: float) -> Tensor | None:
        """After the forward pass: what to add to the loss, if anything."""
        costs, self.encoder.costs = self.encoder.costs, None
        self.encoder.forced = False
        if not costs:
            return None
        ramp = min((progress - _WARM_UP) / _RAMP, 1.0)
        weight = self.weight.update(share_of(costs), 1 - (1 - self.target) * ramp)
        counts = [float(cost.valid.sum()) for cost in costs]
        terms = [cost.penalty * count for cost, count in zip(costs, counts, strict=True)]
        return weight * torch.stack(terms).sum() / sum(counts)

    def state(self) -> dict[str, float | None]:
        """What `restore` takes; plain JSON."""
        return self.weight.state()

    def restore(self, state: dict[str, float | None]) -> None:
        """Be as at `state`."""
        self.weight.restore(state)


def share_of(costs: Sequence[ComputeCost]) -> float:
    """Multiply-adds spent over those of all blocks on: above 1 where arbitrators cost more than they save."""
    spent, whole = (sum(int(getattr(cost, name).sum()) for cost in costs) for name in ("multiply_adds", "dense"))
    return spent / max(whole, 1)


def measured(encoder: TextEncoder, run: Callable[[], object]) -> float:
    """The share of compute of what `run` encodes."""
    encoder.costs = []
    try:
        run()
        return share_of(encoder.costs)
    finally:
        encoder.costs = None


@torch.no_grad()
def meet_target(encoder: TextEncoder, target: float, run: Callable[[], object]) -> float:
    """Shift the thresholds of all arbitrators alike until `run` takes the target's share; the share that it then takes.
    Where even the widest shift takes less or more, it stays at that."""
    blocks = [module for module in encoder.modules() if isinstance(module, ArbitratedBlock)]
    low, high, share = -_WIDEST_SHIFT, _WIDEST_SHIFT, 1.0
    for _ in range(_HALVINGS):
        shift = (low + high) / 2
        for block in blocks:
            block.attention_threshold.fill_(shift)
            block.feed_forward_threshold.fill_(shift)
        share = measured(encoder, run)
        low, high = (shift, high) if share > target else (low, shift)
    return share
