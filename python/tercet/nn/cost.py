"""What a stack of gated blocks spent, in multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockShape:
    """What the multiply-adds of one gated block depend on beside its gates."""

    dim: int
    feed_forward_dim: int
    arbiter_inputs: int  # of both arbitrators together
    keys: str
    left: int | None  # the window that queries see, in frames; None: unbounded
    right: int | None


def frames_seen(keys: Tensor, left: int | None, right: int | None) -> Tensor:
    """How many of the true `keys` [B, T] lie in each frame's window: int64 [B, T]."""
    num_frames = keys.shape[1]
    counts = torch.nn.functional.pad(keys.long().cumsum(1), (1, 0))
    frame = torch.arange(num_frames, device=keys.device)
    low = torch.zeros_like(frame) if left is None else (frame - left).clamp(min=0)
    high = torch.full_like(frame, num_frames) if right is None else (frame + right + 1).clamp(max=num_frames)
    return counts[:, high] - counts[:, low]


@dataclass(frozen=True)
class ComputeCost:
    """Multiply-adds of linear maps and attention products; norms, softmax and activations are not counted.

    Attributes:
        gates: bool [num_layers, 2, B, T]: attention and feed-forward of each block; padded frames are off.
        valid: bool [B, T]: frames that are not padding.
        shapes: one for each block.
        penalty: a differentiable share of the gated cost, a scalar: the sum over blocks and the mean over valid frames
            of c_attention p_attention + c_feed_forward p_feed_forward, over the same with p = 1. p is a gate's
            probability (0 or 1 where it is forced); c_attention counts every valid key in the window, kept or not, so
            penalty is above `share` where few keys are kept. Train on `task loss + cost_weight * penalty`.
    """

    gates: Tensor
    valid: Tensor
    shapes: tuple[BlockShape, ...]
    penalty: Tensor

    @cached_property
    def multiply_adds(self) -> Tensor:
        """Spent at each frame: int64 [num_layers, B, T]; keys and values and the arbitrators' own included."""
        spent = []
        for shape, (attention, feed_forward) in zip(self.shapes, self.gates.long(), strict=True):
            square, valid = shape.dim**2, self.valid.long()
            keys = self.valid if shape.keys == "all" else attention.bool()
            scores = 2 * shape.dim * frames_seen(keys, shape.left, shape.right)
            keys_and_values = 2 * square * (valid if shape.keys == "all" else attention)
            spent.append(
                attention * (2 * square + scores)
                + keys_and_values
                + feed_forward * (2 * shape.dim * shape.feed_forward_dim)
                + valid * shape.arbiter_inputs
            )
        return torch.stack(spent)

    @cached_property
    def dense(self) -> Tensor:
        """What the same blocks spend with every gate on and no arbitrators: int64 [B, T], 0 at padded frames."""
        total = torch.zeros_like(self.valid, dtype=torch.int64)
        for shape in self.shapes:
            scores = 2 * shape.dim * frames_seen(self.valid, shape.left, shape.right)
            total += 4 * shape.dim**2 + scores + 2 * shape.dim * shape.feed_forward_dim
        return total * self.valid

    @property
    def share(self) -> float:
        """Multiply-adds spent over those of the dense stack; 0 without frames; above 1 where arbitrators cost more than
        they save."""
        return float(self.multiply_adds.sum() / self.dense.sum()) if bool(self.valid.any()) else 0.0


def expected_share(
    probabilities: Sequence[tuple[Tensor, Tensor]], valid: Tensor, shapes: Sequence[BlockShape]
) -> Tensor:
    """`ComputeCost.penalty` of gate probabilities (attention, feed-forward) [B, T] for each block."""
    frames = valid.sum().clamp(min=1)
    spent, whole = valid.new_zeros((), dtype=torch.float32), valid.new_zeros((), dtype=torch.float32)
    for shape, (attention, feed_forward) in zip(shapes, probabilities, strict=True):
        seen = frames_seen(valid, shape.left, shape.right)[valid].sum() / frames
        projections = 4 if shape.keys == "kept" else 2
        to_attend = projections * shape.dim**2 + 2 * shape.dim * seen
        to_transform = 2 * shape.dim * shape.feed_forward_dim
        for cost, probability in ((to_attend, attention), (to_transform, feed_forward)):
            spent = spent + cost * probability.float().masked_fill(~valid, 0).sum() / frames
        whole = whole + to_attend + to_transform
    return spent / whole
