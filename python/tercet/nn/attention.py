"""Attention of kept frames where torch computes it: which keys a query sees, and two ways through a batch.

On a CPU sequences are attended one after the other, without padding; elsewhere that would wait for the device at every
one of them, so they are padded to the longest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn.capacity import padded_rows


class AttentionWindow(NamedTuple):
    """What a query may see beside the gates: frames t - left .. t + right, and torch's src_mask."""

    left: int | None
    right: int | None
    mask: Tensor | None  # bool (True: seen) or added to the scores; [T, T] or [B, num_heads, T, T]


UNBOUNDED = AttentionWindow(None, None, None)


def key_ranges(key_mask: Tensor, rows: Tensor, left: int | None, right: int | None) -> tuple[Tensor, Tensor]:
    """First and last + 1 of the packed keys that the queries at `rows` (b T + t) see, where keys are the frames of
    `key_mask` [B, T] in order: int64 [M] each."""
    num_frames = key_mask.shape[1]
    counts = F.pad(key_mask.flatten().cumsum(0), (1, 0))
    first = rows - rows % max(num_frames, 1)
    low = first if left is None else torch.maximum(rows - left, first)
    high = first + num_frames if right is None else torch.minimum(rows + right + 1, first + num_frames)
    return counts.index_select(0, low), counts.index_select(0, high)


def in_window(queries: Tensor, keys: Tensor, window: AttentionWindow) -> Tensor:
    """Whether keys at frames [..., K] lie in the windows of queries at frames [..., Q]: bool [..., Q, K]."""
    ahead = keys[..., None, :] - queries[..., :, None]
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if window.left is not None:
        seen = seen & (ahead >= -window.left)
    return seen if window.right is None else seen & (ahead <= window.right)


def with_mask(seen: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`seen` and the caller's mask in one, as torch's attention takes it."""
    if mask is None:
        return seen
    if mask.dtype == torch.bool:
        return seen & mask
    return mask.to(dtype).masked_fill(~seen, -torch.inf)


def mask_of(mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """The caller's mask [T, T] or [B, heads or 1, T, T] at frames [B, Q] and [B, K]: [B, heads or 1, Q, K]."""
    whole = mask.expand(len(queries), 1, -1, -1) if mask.ndim == 2 else mask
    heads = whole.shape[1]
    across = whole.gather(2, queries[:, None, :, None].expand(-1, heads, -1, whole.shape[3]))
    return across.gather(3, keys[:, None, None, :].expand(-1, heads, queries.shape[1], -1))


def key_effects(
    parts: tuple[Tensor, Tensor, Tensor], mixed: Tensor, allowed: Tensor, on: Tensor, scale: Tensor
) -> Tensor:
    """Zeros like `mixed` that give gates the gradient of what their keys do to other frames' attention.

    A gate's gradient is <g, difference>, the exact difference between what a query gets with the key and without: of a
    key that it sees with weight p, p / (1 - p) (value - mixed); of one that it would see with weight p if that were on,
    p (value - mixed). A key that is all that a query sees counts for nothing.

    Args:
        parts: queries, keys, values [B, heads, T, dim / heads].
        mixed: what attention gives [B, heads, T, dim / heads], of keys that are on and of a frame itself.
        allowed: as torch's attention takes it, the keys that a query may see, on or off.
        on: bool [B, T], keys that are on.
        scale: [B, T], 1, with the gates' gradients.
    """
    queries, keys, values = (part.detach() for part in parts)
    with torch.no_grad():
        itself = torch.eye(on.shape[1], dtype=torch.bool, device=on.device)
        scores = (queries @ keys.transpose(-1, -2)).to(scale.dtype) * queries.shape[-1] ** -0.5
        scores = scores.masked_fill(~allowed, -torch.inf) if allowed.dtype == torch.bool else scores + allowed
        key_on = on[:, None, None, :]
        total = scores.masked_fill(~(key_on | itself), -torch.inf).logsumexp(-1, keepdim=True)
        weights = torch.where(key_on, (scores - total).exp(), (scores - total).sigmoid())
        # value - mixed, of the size of 1 - p, is rounded: where p is 1 but for rounding it says nothing
        others = (1 - weights).clamp(min=torch.finfo(values.dtype).eps ** 0.5)
        weights = torch.where(key_on, weights / others, weights).masked_fill(itself | (scores == -torch.inf), 0)
    effects = (weights * (scale - 1)[:, None, None, :]).to(values.dtype)
    return effects @ values - effects.sum(-1, keepdim=True) * mixed.detach()


def attend_padded(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_mask: Tensor,
    key_mask: Tensor,
    window: AttentionWindow,
    num_heads: int,
    dropout: float,
) -> Tensor:
    """As `attend_by_sequence`, all sequences at once; the host waits for the device once, for the largest counts."""
    if not len(queries) or not len(keys):
        return attend_by_sequence(queries, keys, values, query_mask, key_mask, window, num_heads, dropout)
    num_queries, num_keys = torch.stack([query_mask.sum(1).amax(), key_mask.sum(1).amax()]).tolist()
    rows, asked = padded_rows(query_mask, num_queries)
    columns, present = padded_rows(key_mask, num_keys)
    places, key_places = (
        real.flatten().nonzero_static(size=len(part)).squeeze(1) for real, part in ((asked, queries), (present, keys))
    )

    def padded(part: Tensor, at: Tensor, size: int) -> Tensor:
        whole = part.new_zeros(len(query_mask) * size, part.shape[1]).index_copy(0, at, part)
        return whole.view(len(query_mask), size, num_heads, -1).transpose(1, 2)

    seen = with_mask(
        (present[:, None, :] & in_window(rows, columns, window))[:, None],
        None if window.mask is None else mask_of(window.mask, rows, columns),
        queries.dtype,
    )
    padding = ~asked[:, None, :, None]  # sees everything: a softmax over nothing would be NaN, its gradient too
    seen = seen | padding if seen.dtype == torch.bool else seen.masked_fill(padding, 0)
    query, (key, value) = (
        padded(queries, places, num_queries),
        (padded(x, key_places, num_keys) for x in (keys, values)),
    )
    mixed = F.scaled_dot_product_attention(query, key, value, seen, dropout)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, places)


def attend_by_sequence(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_mask: Tensor,
    key_mask: Tensor,
    window: AttentionWindow,
    num_heads: int,
    dropout: float,
) -> Tensor:
    """What `tercet.kept_attention` computes, by torch's attention: with gradients, dropout and the caller's mask.

    Queries are the frames of `query_mask` [B, T] in order, keys and values those of `key_mask`.
    """
    if not len(query_mask):
        return queries
    parts = queries.split(query_mask.sum(1).tolist()), *(x.split(key_mask.sum(1).tolist()) for x in (keys, values))
    mixed = []
    for b, part in enumerate(zip(*parts, strict=True)):
        if not len(part[0]):
            continue
        seen = None
        if window != UNBOUNDED:
            at, those = (frames[b].nonzero().squeeze(1) for frames in (query_mask, key_mask))
            own = window.mask if window.mask is None or window.mask.ndim == 2 else window.mask[b]
            own = None if own is None else own[..., at, :][..., those]
            seen = with_mask(in_window(at, those, window), own, queries.dtype)
        query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(0, 1)[None] for x in part)
        out = F.scaled_dot_product_attention(query, key, value, seen, dropout)
        mixed.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat([queries.new_empty(0, queries.shape[1]), *mixed])
