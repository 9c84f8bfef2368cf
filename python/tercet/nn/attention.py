"""Attention of kept frames where torch computes it: which keys a query sees, and two ways through a batch.

On a CPU sequences are attended one after the other, without padding; elsewhere that would wait for the device at every
one of them, so they are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tercet.nn.arbiter import wide_dtype, without_autocast
from tercet.nn.capacity import padded_rows

_LARGEST_EXPONENT = 80.0  # of a key that is off, relative to the keys that are seen: float32 holds exp of it
_SMALL_TOTAL = 1.125  # of weights of which the largest is 1: without that one three bits are lost, not more
_SCORES_AT_ONCE = 1 << 20  # on a CPU: 4 MB a temporary, which malloc uses again; larger ones are mapped anew each time


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
    whole = mask.expand(queries.shape[0], 1, -1, -1) if mask.ndim == 2 else mask
    heads = whole.shape[1]
    across = whole.gather(2, queries[:, None, :, None].expand(-1, heads, -1, whole.shape[3]))
    return across.gather(3, keys[:, None, None, :].expand(-1, heads, queries.shape[1], -1))


def with_key_effects(
    mixed: Tensor, scale: Tensor, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, on: Tensor
) -> Tensor:
    """`mixed` as it is, with the gradient of gates for what their keys do to other frames' attention.

    A gate's gradient is <g, difference>, the difference between what a query gets with the key and without it, all
    other gates left as they are; attention is taken without dropout, its mean.

    Args:
        mixed: what attention gives [B, heads, T, dim / heads], of keys that are on and of a frame itself.
        scale: [B, T], which gets that gradient.
        queries, keys, values: as `mixed`; they get no gradient here.
        allowed: as torch's attention takes it, the keys that a query may see, on or off [B, 1 or heads, T, T].
        on: bool [B, T].
    """
    apply: Callable[..., Tensor] = _KeyEffects.apply  # torch gives it no types
    return apply(mixed, scale, queries, keys, values, allowed, on)


class _KeyEffects(torch.autograd.Function):
    @staticmethod
    def forward(
        mixed: Tensor, scale: Tensor, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, on: Tensor
    ) -> Tensor:
        return mixed.view_as(mixed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, scale, *others = inputs
        ctx.dtype = scale.dtype
        ctx.save_for_backward(*others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, allowed, on = ctx.saved_tensors
        with without_autocast(gradient.device):
            wide = wide_dtype(values.dtype)
            found = _differences(gradient.to(wide), queries.to(wide), keys.to(wide), values.to(wide), allowed, on)
        return gradient, found.to(ctx.dtype), None, None, None, None, None


def _differences(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, on: Tensor
) -> Tensor:
    """For each key, <g, difference> (see `with_key_effects`) summed over queries: [B, T]."""
    batch, heads, num_frames, _ = queries.shape
    on, queries = on[:, None, None, :], queries * queries.shape[-1] ** -0.5
    turned = torch.where(on, -1.0, 1.0).to(queries.dtype)  # what a key's weight does to the total when it is turned
    itself = torch.eye(num_frames, dtype=torch.bool, device=on.device)
    at_once = _SCORES_AT_ONCE if on.device.type == "cpu" else 64 * _SCORES_AT_ONCE
    size = max(1, at_once // max(1, batch * heads * num_frames))
    found = queries.new_zeros(batch, num_frames)
    for first in range(0, num_frames, size):
        rows = slice(first, first + size)
        scores = queries[:, :, rows] @ keys.transpose(-1, -2)
        inside = allowed[:, :, rows]
        scores = scores.masked_fill_(~inside, -torch.inf) if inside.dtype == torch.bool else scores.add_(inside)
        said = gradient[:, :, rows] @ values.transpose(-1, -2)  # <g, value>, of each query and key
        visible = on | itself[rows]
        seen = scores.masked_fill(~visible, -torch.inf)
        peak, top = seen.max(-1, keepdim=True)
        weights = (scores - peak).clamp_(max=_LARGEST_EXPONENT).exp_()
        weights_seen = weights * visible
        total = weights_seen.sum(-1, keepdim=True)
        mean = weights_seen.mul_(said).sum(-1, keepdim=True).div_(total)
        difference = weights.div_(torch.addcmul(total, weights, turned)).mul_(said - mean)
        # Without a key that has nearly all weight (its own is exp(0)), what is left of the total is rounding: attention
        # of the others then. A GPU is waited for here, once a piece.
        frame = torch.arange(num_frames, device=on.device)[rows, None]
        few = ((total < _SMALL_TOTAL) & (top != frame)) | (peak == -torch.inf)
        few = few.flatten().nonzero().squeeze(1)
        parts = (part.flatten(0, 2)[few] for part in (scores, seen, said, peak, top, total, difference))
        difference.view(-1, num_frames)[few] = _with_the_largest(*parts)
        difference.diagonal(first, -2, -1).zero_()
        found += difference.sum((1, 2))
    return found


def _with_the_largest(
    scores: Tensor, seen: Tensor, said: Tensor, peak: Tensor, top: Tensor, total: Tensor, difference: Tensor
) -> Tensor:
    """`difference` [rows, T] with that of each query's key at `top`, and that of queries that see nothing as it is; all
    as in `_differences`."""
    others = seen.scatter(-1, top, -torch.inf)
    rest = (others.softmax(-1) * said).sum(-1, keepdim=True)
    rest = rest.masked_fill(others.amax(-1, keepdim=True) == -torch.inf, 0)
    difference = difference.scatter(-1, top, (said.gather(-1, top) - rest) / total)
    return torch.where(peak == -torch.inf, said.masked_fill(scores == -torch.inf, 0), difference)


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
