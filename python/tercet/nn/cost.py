"""What a stack of gated blocks spent, in multiply-adds.

Counted is what the frames that are on need, with windows as wide as the layers'. So rows that `capacity` fills up with
frames that are off are computed but not counted, and pairs that an src_mask hides are counted.
"""

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


def window_sums(values: Tensor, left: int | None, right: int | None) -> Tensor:
    """The sum of `values` [B, T] over each frame's window, by one prefix sum: int64, or float64 with a gradient."""
    num_frames = values.shape[1]
    dtype = torch.float64 if values.is_floating_point() else torch.int64
    sums = torch.nn.functional.pad(values.cumsum(1, dtype=dtype), (1, 0))
    frame = torch.arange(num_frames, device=values.device)
    low = torch.zeros_like(frame) if left is None else (frame - left).clamp(min=0)
    high = torch.full_like(frame, num_frames) if right is None else (frame + right + 1).clamp(max=num_frames)
    return sums[:, high] - sums[:, low]


@dataclass(frozen=True)
class ComputeCost:
    """Multiply-adds of linear maps and attention products; norms, softmax and activations are not counted.

    Attributes:
        gates: bool [num_layers, 2, B, T]: attention and feed-forward of each block; padded frames are off.
        valid: bool [B, T]: frames that are not padding.
        shapes: one for each block.
        penalty: the expected share of the gated multiply-adds, a differentiable scalar: what attention, feed-forward
            and (with keys "kept") keys and values spend if every gate opens by itself with its probability (0 or 1
            where it is forced), over the same with every gate on. A pair of frames is paid for where the query's gate
            and the key's are on, so its expectation is p_query p_key; a frame's own pair costs p. Arbitrators and the
            keys and values of keys "all", which no gate saves, are left out, and so is what `capacity` cuts off. Train
            on `task loss + cost_weight * penalty`.
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
            scores = 2 * shape.dim * window_sums(keys, shape.left, shape.right)
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
            scores = 2 * shape.dim * window_sums(self.valid, shape.left, shape.right)
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
    spent, whole = valid.new_zeros((), dtype=torch.float64), valid.new_zeros((), dtype=torch.float64)
    for shape, pair in zip(shapes, probabilities, strict=True):
        attention, feed_forward = (chance.double().masked_fill(~valid, 0) for chance in pair)
        in_window = window_sums(valid, shape.left, shape.right)
        if shape.keys == "kept":
            projections = 4 * shape.dim**2
            expected_keys = window_sums(attention, shape.left, shape.right) - attention + 1  # a query is its own key
        else:
            projections, expected_keys = 2 * shape.dim**2, in_window
        to_transform = 2 * shape.dim * shape.feed_forward_dim
        spent = spent + (attention * (projections + 2 * shape.dim * expected_keys)).sum()
        spent = spent + to_transform * feed_forward.sum()
        whole = whole + ((projections + to_transform + 2 * shape.dim * in_window) * valid).sum()
    return (spent / whole.clamp(min=1)).to(probabilities[0][0].dtype)
