"""Set operations in plain torch: which members the result has, and where each came from."""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.ops.reference.traversal import offsets_of, rows_of


def merge(
    a_offsets: Tensor, a_entities: Tensor, b_offsets: Tensor, b_entities: Tensor, how: str, num_entities: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The members of the intersection, union or difference of two batches of sets.

    Returns (offsets, entities, index_a, index_b): where each member stands in a and in b, -1 where it does not.
    """
    a = rows_of(a_offsets) * num_entities + a_entities
    b = rows_of(b_offsets) * num_entities + b_entities
    keys = torch.unique(torch.cat([a, b])) if how == "union" else a[torch.isin(a, b, invert=how == "difference")]
    rows = keys.div(max(num_entities, 1), rounding_mode="floor")
    offsets = offsets_of(rows, len(a_offsets) - 1)
    return offsets, (keys - rows * num_entities).int(), _position(a, keys), _position(b, keys)


def _position(sorted_keys: Tensor, keys: Tensor) -> Tensor:
    """Where each of `keys` stands in `sorted_keys`, -1 where it does not."""
    if not len(sorted_keys):
        return torch.full_like(keys, -1)
    position = torch.searchsorted(sorted_keys, keys).clamp(max=len(sorted_keys) - 1)
    return torch.where(sorted_keys[position] == keys, position, -1)


def top(weights: Tensor, offsets: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest members of each row, the smaller id first among equals: (index int64, offsets), index ascending."""
    order = torch.sort(weights, descending=True, stable=True).indices
    rows = rows_of(offsets)
    order = order[torch.sort(rows[order], stable=True).indices]
    rank = torch.arange(len(order), device=order.device) - offsets[rows]
    index = order[rank < k].sort().values
    return index, offsets_of(rows[index], len(offsets) - 1)
