"""A fixed number of frames of each sequence: no size depends on the data, so nothing waits for the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def checked_capacity(name: str, capacity: int | float | None) -> int | float | None:
    """`capacity` as layers take it: None, a number of frames, or a share of them."""
    fine = (
        capacity is None
        or (isinstance(capacity, int) and capacity >= 1)
        or (isinstance(capacity, float) and 0 < capacity <= 1)
    )
    if not fine or isinstance(capacity, bool):
        raise ValueError(f"tercet.nn.{name}: capacity must be a number of frames or a share in (0, 1], got {capacity}")
    return capacity


def within_capacity(on: Tensor, capacity: int | float) -> Tensor:
    """`on` [B, T] without the frames beyond capacity, in each sequence the last ones."""
    return on & (on.cumsum(1) <= _size(capacity, on.shape[1]))


def padded_rows(on: Tensor, capacity: int | float) -> tuple[Tensor, Tensor]:
    """The frames that are on, then others, as many as capacity: their numbers int64 [B, size] and which are on.

    `on` must be within capacity.
    """
    index = (~on).to(torch.int8).argsort(dim=1, stable=True)[:, : _size(capacity, on.shape[1])]
    return index, on.gather(1, index)


def _size(capacity: int | float, num_frames: int) -> int:
    return capacity if isinstance(capacity, int) else math.ceil(capacity * num_frames - 1e-9)
