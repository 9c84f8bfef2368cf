"""`arbiter_logits` and `kept_attention`: what a gated block needs beside matrix products.

Each result depends on its own row and keys alone: not on threads, nor on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tercet.ops import _checks, _gating_cuda, _native
from tercet.ops._library import define
from tercet.ops.reference import gating as reference


def arbiter_logits(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    epsilon: float = 1e-5,
    num_threads: int | None = None,
) -> Tensor:
    """Logits of an arbitrator, <weight, row> + bias, from one read of the rows; no gradient.

    Args:
        rows: float32, float64, bfloat16 or float16 [num_rows, dim]; halves are computed in float32.
        weight, bias: the same dtype, [dim] and [1].
        norm_weight, norm_bias: [dim] each: rows are layer-normalised first, (row - mean) / sqrt(variance + epsilon)
            times norm_weight plus norm_bias. Without norm_weight they are taken as they are.
        epsilon: of that normalisation.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Returns:
        [num_rows], float64 of float64 rows, else float32; a NaN in a row makes its logit NaN.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.
        NotImplementedError: a gradient is asked for.

    Source:
        Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022.

    Example:
        >>> arbiter_logits(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([1.0, 1.0]), torch.tensor([0.5]))
        tensor([ 3.5000, -0.5000])
    """
    op = "arbiter_logits"
    _checks.real(op, "rows", rows)
    if rows.ndim != 2:
        raise ValueError(f"tercet.{op}: rows must be [num_rows, dim], got {list(rows.shape)}")
    given = {"weight": weight, "bias": bias, "norm_weight": norm_weight, "norm_bias": norm_bias}
    for name, value in given.items():
        if value is not None or not name.startswith("norm"):
            value = _checks.tensor(op, name, value)
            _checks.same(op, name, value, "rows", rows)
            size, meaning = (1, "[1]") if name == "bias" else (rows.shape[1], "[dim]")
            _checks.shape(op, name, value, (size,), meaning)
    if norm_bias is not None and norm_weight is None:
        raise ValueError(f"tercet.{op}: norm_bias needs norm_weight")
    threads = _checks.threads(op, num_threads)
    logits: Tensor = _arbiter_logits(rows, weight, bias, norm_weight, norm_bias, epsilon, threads)
    return logits


def kept_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    key_starts: Tensor,
    key_ends: Tensor,
    *,
    num_heads: int,
    num_threads: int | None = None,
) -> Tensor:
    """Softmax attention of packed frames, each query to one range of keys; no gradient.

    out[i] = sum over j in key_starts[i] .. key_ends[i] - 1 of softmax_j(<q[i], k[j]> / sqrt(dim / num_heads)) v[j],
    for each head. Frames of many sequences lie one after another, so that lengths, windows and frames that gates
    left out are all ranges; `tercet.nn.ArbitratedEncoderLayer` makes them from prefix sums of its gates.

    Args:
        queries: [num_queries, dim]; keys, values: [num_keys, dim]. One dtype, float32, float64, bfloat16 or float16
            (halves are computed in float32); rows may lie apart, as the three parts of one projection do.
        key_starts, key_ends: int64 [num_queries], 0 <= start, end <= num_keys; no key where start >= end.
        num_heads: divides dim.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Returns:
        [num_queries, dim]; zeros for a query without keys.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape; a range leaves the keys.
        NotImplementedError: a gradient is asked for.

    Source:
        Vaswani et al.: Attention Is All You Need, NIPS 2017.

    Example:
        >>> frames = torch.tensor([[1.0], [2.0], [4.0]])
        >>> starts, ends = torch.tensor([0, 0, 2]), torch.tensor([1, 0, 3])
        >>> kept_attention(frames, frames, frames, starts, ends, num_heads=1).flatten()
        tensor([1., 0., 4.])
    """
    op = "kept_attention"
    _checks.real(op, "queries", queries)
    if queries.ndim != 2:
        raise ValueError(f"tercet.{op}: queries must be [num_queries, dim], got {list(queries.shape)}")
    num_queries, dim = queries.shape
    for name, value in (("keys", keys), ("values", values)):
        _checks.same(op, name, _checks.tensor(op, name, value), "queries", queries)
        if value.ndim != 2 or value.shape[1] != dim or value.shape != keys.shape:
            raise ValueError(f"tercet.{op}: keys and values must be [num_keys, {dim}], got {list(value.shape)}")
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"tercet.{op}: num_heads must divide dim = {dim}, got {num_heads}")
    for name, value in (("key_starts", key_starts), ("key_ends", key_ends)):
        if _checks.tensor(op, name, value).dtype != torch.int64:
            raise TypeError(f"tercet.{op}: {name} must be int64, got {value.dtype}")
        _checks.same(op, name, value, "queries", queries, dtype=False)
        _checks.shape(op, name, value, (num_queries,), "[num_queries]")
        _checks.in_range(op, name, value, keys.shape[0] + 1)
    threads = _checks.threads(op, num_threads)
    mixed: Tensor = kept_attention_op(queries, keys, values, key_starts, key_ends, num_heads, threads)
    return mixed


def _arbiter_cpu(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    num_threads: int,
) -> Tensor:
    wide = _wide(rows).contiguous()
    given = [None if value is None else _wide(value).contiguous() for value in (norm_weight, norm_bias, weight, bias)]
    logits = wide.new_empty(len(wide))
    weights = [_native.pointer(value) for value in given]
    _native.cpu.arbiter_logits(_native.DTYPE_CODES[wide.dtype], wide.data_ptr(), (*weights[:2], epsilon), *weights[2:],
                               logits.data_ptr(), *wide.shape, _native.threads(num_threads))  # fmt: skip
    return logits


def _arbiter_cuda(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    num_threads: int,
) -> Tensor:
    native = _native.cuda_kernel("arbiter_logits")
    if native is None:
        one, other = (None if value is None else _wide(value) for value in (norm_weight, norm_bias))
        return reference.arbiter_logits(_wide(rows), _wide(weight), _wide(bias), one, other, epsilon)
    return _gating_cuda.arbiter_logits(native, rows, weight, bias, norm_weight, norm_bias, epsilon)


def _arbiter_fake(rows: Tensor, *rest: object) -> Tensor:
    return rows.new_empty(rows.shape[0], dtype=torch.promote_types(rows.dtype, torch.float32))


def _attention_cpu(
    queries: Tensor, keys: Tensor, values: Tensor, starts: Tensor, ends: Tensor, num_heads: int, num_threads: int
) -> Tensor:
    threads = _native.threads(num_threads)
    frames = [_wide(x) if x.stride(1) == 1 else _wide(x).contiguous() for x in (queries, keys, values)]
    ranges = [bounds.contiguous() for bounds in (starts, ends)]
    bounds = tuple(x.data_ptr() for x in ranges)
    num_queries, dim = queries.shape
    head_dim = dim // num_heads
    size = _native.cpu.kept_attention_scratch(bounds, num_queries, head_dim)
    out = frames[0].new_empty(num_queries, dim)
    scratch = frames[0].new_empty(size * threads)
    _native.cpu.kept_attention(_native.DTYPE_CODES[out.dtype], *((x.data_ptr(), x.stride(0)) for x in frames), bounds,
                               out.data_ptr(), (scratch.data_ptr(), size, threads),
                               (num_queries, num_heads, head_dim), max(head_dim, 1) ** -0.5)  # fmt: skip
    return out.to(queries.dtype)


def _attention_cuda(
    queries: Tensor, keys: Tensor, values: Tensor, starts: Tensor, ends: Tensor, num_heads: int, num_threads: int
) -> Tensor:
    native = _native.cuda_kernel("kept_attention")
    if native is None or queries.shape[1] > num_heads * native.kept_attention_max_head_dim:
        return reference.kept_attention(queries, keys, values, starts, ends, num_heads)
    return _gating_cuda.kept_attention(native, queries, keys, values, starts, ends, num_heads)


def _attention_fake(queries: Tensor, *rest: object) -> Tensor:
    return queries.new_empty(queries.shape)


def _wide(x: Tensor) -> Tensor:
    """Halves as float32, in rows of whole memory."""
    return x.float() if x.dtype in _checks.HALF_DTYPES else x


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pass


def _no_gradient(op: str) -> Callable[..., None]:
    def backward(ctx: Any, grad: Tensor) -> None:
        raise NotImplementedError(f"tercet.{op} has no gradient; tercet.nn computes what has one by torch")

    return backward


_arbiter_logits = define(
    "arbiter_logits(Tensor rows, Tensor weight, Tensor bias, Tensor? norm_weight, Tensor? norm_bias, float epsilon,"
    " int num_threads) -> Tensor",
    cpu=_arbiter_cpu,
    cuda=_arbiter_cuda,
    fake=_arbiter_fake,
    setup_context=_setup_context,
    backward=_no_gradient("arbiter_logits"),
)
# Unchecked: reading the ranges would wait for the device.
kept_attention_op = define(
    "kept_attention(Tensor queries, Tensor keys, Tensor values, Tensor key_starts, Tensor key_ends, int num_heads,"
    " int num_threads) -> Tensor",
    cpu=_attention_cpu,
    cuda=_attention_cuda,
    fake=_attention_fake,
    setup_context=_setup_context,
    backward=_no_gradient("kept_attention"),
)
