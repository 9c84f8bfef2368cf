"""Gating by the CUDA kernels, on the current stream; the host never waits for the device."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from tercet.ops import _native
from tercet.ops._native import pointer
from tercet.ops._traversal_cuda import queue_of

DTYPE_CODES = {**_native.DTYPE_CODES, torch.bfloat16: 2, torch.float16: 3}


def arbiter_logits(
    native: ModuleType,
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    """As the reference; of halves in float32."""
    with torch.cuda.device(rows.device):
        rows = rows.contiguous()
        given = [None if value is None else value.contiguous() for value in (norm_weight, norm_bias, weight, bias)]
        logits = rows.new_empty(len(rows), dtype=torch.promote_types(rows.dtype, torch.float32))
        weights = [pointer(value) for value in given]
        native.arbiter_logits(queue_of(rows.device), DTYPE_CODES[rows.dtype], rows.data_ptr(), (*weights[:2], epsilon),
                              *weights[2:], logits.data_ptr(), *rows.shape)  # fmt: skip
        return logits


def kept_attention(
    native: ModuleType, queries: Tensor, keys: Tensor, values: Tensor, starts: Tensor, ends: Tensor, num_heads: int
) -> Tensor:
    """As the reference, halves computed in float32; heads of at most native.kept_attention_max_head_dim values."""
    num_queries, dim = queries.shape
    out = queries.new_empty(num_queries, dim)
    if not out.numel():
        return out
    with torch.cuda.device(queries.device):
        frames = [x if x.stride(1) == 1 else x.contiguous() for x in (queries, keys, values)]
        ranges = [bounds.contiguous() for bounds in (starts, ends)]
        head_dim = dim // num_heads
        native.kept_attention(queue_of(queries.device), DTYPE_CODES[queries.dtype],
                              *((x.data_ptr(), x.stride(0)) for x in frames), tuple(map(pointer, ranges)),
                              out.data_ptr(), (num_queries, num_heads, head_dim), head_dim**-0.5)  # fmt: skip
        return out
