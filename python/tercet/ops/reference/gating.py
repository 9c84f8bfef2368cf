"""Gated blocks in plain torch: the arbitrators' logits, and attention over the frames that gates keep.

Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 256  # queries whose keys are looked at together


def arbiter_logits(
    rows: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, epsilon: float
) -> Tensor:
    """<weight, row> + bias of layer-normalised rows [..., dim], or of rows as they are without norm_weight: [...]."""
    if norm_weight is not None:
        rows = F.layer_norm(rows, rows.shape[-1:], norm_weight, norm_bias, epsilon)
    return rows @ weight + bias


def kept_attention(
    queries: Tensor, keys: Tensor, values: Tensor, key_starts: Tensor, key_ends: Tensor, num_heads: int
) -> Tensor:
    """Softmax attention of packed queries [M, dim] to the keys key_starts[i] .. key_ends[i] - 1; no keys: zeros.

    A value that is not finite makes its head NaN for the queries that see it.
    """
    heads = (num_heads, queries.shape[1] // num_heads)
    query, key, value = (x.unflatten(1, heads).transpose(0, 1) for x in (queries, keys, values))
    scale = max(heads[1], 1) ** -0.5
    # A value that is not finite times a weight of 0 would be NaN for everybody; in the score it is for who sees it.
    fine = value.isfinite()
    poison = queries.new_zeros(fine.shape[:2]).masked_fill(~fine.all(-1), torch.nan)[:, None]
    value = value.masked_fill(~fine, 0)
    mixed = [query[:, :0]]
    for first in range(0, len(queries), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        starts, ends = key_starts[chunk, None], key_ends[chunk, None]
        seen = starts < ends
        low, high = int(starts.where(seen, len(keys)).min()), int(ends.where(seen, 0).max())
        span = slice(low, max(low, high))
        position = torch.arange(span.start, span.stop, device=keys.device)
        scores = query[:, chunk] @ key[:, span].transpose(1, 2) * scale + poison[..., span]
        scores = scores.masked_fill((position < starts) | (position >= ends), -torch.inf)
        mixed.append(scores.softmax(-1).masked_fill(~seen, 0) @ value[:, span])
    return torch.cat(mixed, 1).transpose(0, 1).flatten(1)
