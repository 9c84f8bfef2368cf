"""Gated blocks in plain torch: the arbitrators' logits, and attention over the frames that gates keep.

Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024  # queries whose keys are looked at together


def arbiter_logits(
    rows: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, epsilon: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """<weight, row> + bias of layer-normalised rows [N, dim], or of the rows themselves without norm_weight: [N]."""
    if norm_weight is not None:
        rows = F.layer_norm(rows, rows.shape[-1:], norm_weight, norm_bias, epsilon)
    return rows @ weight + bias


def kept_attention(
    queries: Tensor, keys: Tensor, values: Tensor, key_starts: Tensor, key_ends: Tensor, num_heads: int
) -> Tensor:
    """Softmax attention of packed queries [M, dim] to the keys key_starts[i] .. key_ends[i] - 1; no keys: zeros."""
    chunks = [queries.new_empty(0, queries.shape[1])]
    for first in range(0, len(queries), _CHUNK):
        starts, ends = (bounds[first : first + _CHUNK] for bounds in (key_starts, key_ends))
        seen = starts < ends
        low = int(torch.where(seen, starts, len(keys)).min())
        high = max(low, int(torch.where(seen, ends, 0).max()))
        position = torch.arange(low, high, device=keys.device)
        mask = (position >= starts[:, None]) & (position < ends[:, None])
        heads = (x.unflatten(1, (num_heads, -1)).transpose(0, 1) for x in (keys[low:high], values[low:high]))
        query = queries[first : first + _CHUNK].unflatten(1, (num_heads, -1)).transpose(0, 1)
        key, value = heads
        scores = query @ key.transpose(1, 2) / key.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~seen[:, None], 0)
        # A product, so that a value that is not finite stays out of the queries that do not see it.
        terms = (
            torch.where(mask[None, :, :, None], weights[..., None] * value[:, None], 0)
            if not bool(value.isfinite().all())
            else None
        )
        mixed = weights @ value if terms is None else terms.sum(2)
        chunks.append(mixed.transpose(0, 1).flatten(1))
    return torch.cat(chunks)
