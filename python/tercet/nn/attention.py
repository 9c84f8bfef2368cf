"""Attention of kept frames where torch computes it: which keys a query sees, and one sequence after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Sight(NamedTuple):
    """What a query may see beside the gates: frames t - left .. t + right, and torch's src_mask."""

    left: int | None
    right: int | None
    mask: Tensor | None  # bool (True: seen) or added to the scores; [T, T] or [B, num_heads, T, T]


UNBOUNDED = Sight(None, None, None)


def key_ranges(offered: Tensor, rows: Tensor, left: int | None, right: int | None) -> tuple[Tensor, Tensor]:
    """First and last + 1 of the packed keys that the queries at `rows` (b T + t) see, where keys are the true `offered`
    [B, T] in order: int64 [M] each."""
    num_frames = offered.shape[1]
    counts = F.pad(offered.flatten().cumsum(0), (1, 0))
    first = rows - rows % max(num_frames, 1)
    low = first if left is None else torch.maximum(rows - left, first)
    high = first + num_frames if right is None else torch.minimum(rows + right + 1, first + num_frames)
    return counts.index_select(0, low), counts.index_select(0, high)


def in_window(queries: Tensor, keys: Tensor, sight: Sight) -> Tensor:
    """Whether keys at frames [..., K] lie in the windows of queries at frames [..., Q]: bool [..., Q, K]."""
    ahead = keys[..., None, :] - queries[..., :, None]
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if sight.left is not None:
        seen = seen & (ahead >= -sight.left)
    return seen if sight.right is None else seen & (ahead <= sight.right)


def with_mask(seen: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`seen` and the caller's mask in one, as torch's attention takes it."""
    if mask is None:
        return seen
    if mask.dtype == torch.bool:
        return seen & mask
    return mask.to(dtype).masked_fill(~seen, -torch.inf)


def attend_by_sequence(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Tensor,
    offered: Tensor,
    sight: Sight,
    num_heads: int,
    dropout: float,
) -> Tensor:
    """What `tercet.kept_attention` computes, by torch's attention: with gradients, dropout and the caller's mask.

    Queries are the true frames of `asking` [B, T] in order, keys and values those of `offered`.
    """
    if not len(asking):
        return queries
    parts = queries.split(asking.sum(1).tolist()), *(x.split(offered.sum(1).tolist()) for x in (keys, values))
    mixed = []
    for b, part in enumerate(zip(*parts, strict=True)):
        if not len(part[0]):
            continue
        seen = None
        if sight != UNBOUNDED:
            at, those = (frames[b].nonzero().squeeze(1) for frames in (asking, offered))
            own = sight.mask if sight.mask is None or sight.mask.ndim == 2 else sight.mask[b]
            own = None if own is None else own[..., at, :][..., those]
            seen = with_mask(in_window(at, those, sight), own, queries.dtype)
        query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(0, 1)[None] for x in part)
        out = F.scaled_dot_product_attention(query, key, value, seen, dropout)
        mixed.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat([queries.new_empty(0, queries.shape[1]), *mixed])
