"""CUDA: arbiter logits and attention of kept frames against the float64 reference where there is a device; without one,
what surrounds the kernels.

The kernels' own steps run on the host in tests/cpp/driver_cuda_gating.cpp.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import TOLERANCE, normal, seeds
from tercet.nn import ArbitratedEncoderLayer
from tercet.ops import _gating_cuda, _native, gating
from tercet.ops.reference import gating as reference

NOBODY = 10_000  # the index of a device that does not exist
CALLS = {
    "arbiter_logits": (0, (0, 0, 1e-5), 0, 0, 0, 1, 1),
    "kept_attention": ((0, 1), (0, 1), (0, 1), (0, 0), 0, (1, 1, 1), 1.0),
}
quietly = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
all_dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
# Either side of a block's rows (8) and queries (16, 32, 64), of a tile's keys (32), of a head's steps (32, 64, 128).
COUNTS = st.sampled_from([0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 300])
HEAD_DIMS = st.sampled_from([1, 8, 31, 32, 33, 64, 65, 128, 130, 256])
DIMS = st.sampled_from([1, 31, 32, 33, 256, 257, 512, 1024, 1025, 3000])


# Without a device.


@pytest.mark.parametrize("name", CALLS)
def test_without_the_device_every_function_names_what_failed(module: ModuleType, name: str) -> None:
    for dtype in range(4):
        with pytest.raises(RuntimeError, match=r"^tercet: CUDA: cuda(Get|Set)Device: \w+"):
            getattr(module, name)((NOBODY, 0), dtype, *CALLS[name])
    for dtype in (-1, 4):
        with pytest.raises(ValueError, match="dtype must be 0"):
            getattr(module, name)((NOBODY, 0), dtype, *CALLS[name])


def as_reference(inputs: tuple[Tensor | None, ...], dtype: torch.dtype) -> list[Tensor | None]:
    """The same floating values on the CPU; integers stay."""
    return [x if x is None else x.cpu().to(dtype) if x.is_floating_point() else x.cpu() for x in inputs]


def assert_close(got: Tensor, want: Tensor) -> None:
    """`want` is float64; halves have been rounded once."""
    assert want.dtype == torch.float64
    rounding = torch.finfo(got.dtype).eps if got.dtype not in TOLERANCE else 0
    scale = max(1.0, float(want.nan_to_num().abs().max())) if want.numel() else 1.0
    atol = 10 * scale * TOLERANCE.get(got.dtype, TOLERANCE[torch.float32])
    torch.testing.assert_close(got.cpu().double(), want, rtol=rounding, atol=atol, equal_nan=True)


def random_arbiter(
    rng: np.random.Generator, num_rows: int, dim: int, norm: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Rows, weight, bias, norm_weight, norm_bias; rows whose mean is far from 0."""
    rows = 2 * normal(rng, num_rows, dim, dtype=torch.float64) + 5 * normal(rng, num_rows, 1, dtype=torch.float64)
    weight, norm_weight, norm_bias = normal(rng, 3, dim, dtype=torch.float64) / dim**0.5
    bias = normal(rng, 1, dtype=torch.float64)
    used = (norm_weight if norm != "none" else None, norm_bias if norm == "whole" else None)
    return tuple(x if x is None else x.to(dtype) for x in (rows, weight, bias, *used))  # type: ignore[return-value]


def random_attention(
    rng: np.random.Generator, num_queries: int, num_keys: int, dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, starts and ends: windows as kept frames have them, everything, or anything, empty too."""
    queries = normal(rng, num_queries, dim, dtype=torch.float64).to(dtype)
    keys, values = normal(rng, num_keys, 2 * dim, dtype=torch.float64).to(dtype).split(dim, dim=1)
    kind = rng.integers(3)
    if kind == 0:
        middle = np.sort(rng.integers(0, num_keys + 1, num_queries))
        starts, ends = middle - rng.integers(0, 100), middle + rng.integers(0, 20, num_queries)
    elif kind == 1:
        starts, ends = np.zeros(num_queries, dtype=np.int64), np.full(num_queries, num_keys)
    else:
        starts, ends = (rng.integers(0, num_keys + 1, num_queries) for _ in range(2))
    bounds = (torch.from_numpy(b.clip(0, num_keys)) for b in (starts, ends))
    return queries, keys, values, *bounds  # type: ignore[return-value]


@given(seeds, st.integers(0, 9), st.integers(1, 20), st.sampled_from(["none", "weight", "whole"]))
@quietly
def test_the_reference_gives_logits_in_the_kernels_place(
    monkeypatch: pytest.MonkeyPatch, seed: int, num_rows: int, dim: int, norm: str
) -> None:
    monkeypatch.setattr(_native, "cuda_kernel", lambda name: None)
    rows, weight, bias, *norms = random_arbiter(np.random.default_rng(seed), num_rows, dim, norm, torch.float64)
    got = gating._arbiter_cuda(rows, weight, bias, *norms, 1e-5, 0)
    assert_close(got, gating._arbiter_cpu(rows, weight, bias, *norms, 1e-5, 1))


@given(seeds, st.integers(0, 9), st.integers(0, 20), st.sampled_from([None, 2, 3]))
@quietly
def test_the_reference_attends_in_the_kernels_place(
    monkeypatch: pytest.MonkeyPatch, seed: int, num_queries: int, num_keys: int, widest: int | None
) -> None:
    """Without kernels, and for heads of 4 values where kernels take fewer."""
    native = None if widest is None else SimpleNamespace(kept_attention_max_head_dim=widest)
    monkeypatch.setattr(_native, "cuda_kernel", lambda name: native)
    inputs = random_attention(np.random.default_rng(seed), num_queries, num_keys, 8, torch.float64)
    assert_close(gating._attention_cuda(*inputs, 2, 0), gating._attention_cpu(*inputs, 2, 1))


# With a device.


@pytest.mark.cuda
@given(seeds, st.sampled_from([0, 1, 7, 8, 9, 500]), DIMS, st.sampled_from(["none", "weight", "whole"]), all_dtypes)
@quietly
def test_logits_agree_with_the_reference(
    kernels: ModuleType, seed: int, num_rows: int, dim: int, norm: str, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    rows, *parameters = random_arbiter(rng, num_rows, dim, norm, dtype)
    if num_rows and rng.random() < 0.3:
        rows[rng.integers(num_rows), rng.integers(dim)] = torch.nan
    rows_there, *there = (x if x is None else x.cuda() for x in (rows, *parameters))
    assert rows_there is not None
    weight, bias, norm_weight, norm_bias = there

    def run(x: Tensor) -> Tensor:
        assert weight is not None
        assert bias is not None
        return tercet.arbiter_logits(x, weight, bias, norm_weight=norm_weight, norm_bias=norm_bias)

    got = run(rows_there)
    wide, weight_64, bias_64, *norms = as_reference((rows, *parameters), torch.float64)
    assert_close(got, reference.arbiter_logits(wide, weight_64, bias_64, *norms, 1e-5))  # type: ignore[arg-type]
    assert_close(run(rows_there.T.contiguous().T), got.double().cpu())
    bits = torch.int64 if dtype == torch.float64 else torch.int32
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(run(rows_there[num_rows // 3 :]).view(bits), got[num_rows // 3 :].view(bits))


@pytest.mark.cuda
@given(seeds, COUNTS, COUNTS, HEAD_DIMS, st.integers(1, 3), all_dtypes)
@quietly
def test_attention_agrees_with_the_reference(
    kernels: ModuleType, seed: int, num_queries: int, num_keys: int, head_dim: int, num_heads: int, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    inputs = random_attention(rng, num_queries, num_keys, head_dim * num_heads, dtype)
    there = [x.cuda() for x in inputs]
    assert not num_keys or there[1].stride(0) == 2 * head_dim * num_heads
    got = tercet.kept_attention(*there, num_heads=num_heads)
    want = reference.kept_attention(*as_reference(inputs, torch.float64), num_heads)  # type: ignore[arg-type]
    assert_close(got, want)
    assert torch.equal(tercet.kept_attention(*there, num_heads=num_heads), got)
    # Beside other queries, in other tiles, a query has the same result.
    first = num_queries // 3
    queries, keys, values, *bounds = there
    part = tercet.kept_attention(queries[first:], keys, values, *(b[first:] for b in bounds), num_heads=num_heads)
    assert torch.equal(part, got[first:])
    more = torch.cat([keys.new_full((5, keys.shape[1]), torch.nan), keys])
    moved = tercet.kept_attention(queries, more, torch.cat([more[:5], values]), *(b + 5 for b in bounds),
                                  num_heads=num_heads)  # fmt: skip
    assert torch.equal(moved, got)


@pytest.mark.cuda
@given(seeds, st.sampled_from([1, 40, 100]), st.sampled_from([1, 40, 100]), st.booleans(), all_dtypes)
@quietly
def test_what_is_no_number_stays_with_those_that_see_it(
    kernels: ModuleType, seed: int, num_queries: int, num_keys: int, in_keys: bool, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    inputs = [x.cuda() for x in random_attention(rng, num_queries, num_keys, 48, dtype)]
    want = tercet.kept_attention(*inputs, num_heads=2)
    key = int(rng.integers(num_keys))
    inputs[1 if in_keys else 2][key] = torch.nan
    got = tercet.kept_attention(*inputs, num_heads=2)
    sees = (inputs[3] <= key) & (key < inputs[4])
    assert got[sees].isnan().all()
    assert torch.equal(got[~sees], want[~sees])


@pytest.mark.cuda
def test_more_work_than_a_grid_has_blocks(kernels: ModuleType) -> None:
    # 8192 blocks, of 8 rows and of 64 queries of a head.
    rng = np.random.default_rng(0)
    rows, weight, bias, *_ = random_arbiter(rng, 70_000, 3, "none", torch.float32)
    want = reference.arbiter_logits(rows.double(), weight.double(), bias.double(), None, None, 0.0)
    assert_close(tercet.arbiter_logits(rows.cuda(), weight.cuda(), bias.cuda()), want)
    queries, keys, values = (normal(rng, 8_300, 64, dtype=torch.float32) for _ in range(3))
    ends = torch.arange(8_300)
    inputs = queries, keys, values, (ends - 5).clamp(min=0), ends
    some = torch.arange(0, 8_300, 97)
    got = tercet.kept_attention(*(x.cuda() for x in inputs), num_heads=64)[some.cuda()]
    there = (queries[some].double(), keys.double(), values.double(), inputs[3][some], ends[some])
    assert_close(got, reference.kept_attention(*there, 64))


@pytest.mark.cuda
def test_scores_far_apart(kernels: ModuleType) -> None:
    rng = np.random.default_rng(1)
    inputs = random_attention(rng, 65, 200, 64, torch.float32)
    inputs[0].mul_(100)
    want = reference.kept_attention(*as_reference(inputs, torch.float64), 1)  # type: ignore[arg-type]
    got = tercet.kept_attention(*(x.cuda() for x in inputs), num_heads=1)
    torch.testing.assert_close(got.cpu().double(), want, rtol=0, atol=3e-3)  # scores of some thousands are rounded


@pytest.mark.cuda
def test_streams_and_no_waiting(kernels: ModuleType) -> None:
    rng = np.random.default_rng(2)
    inputs = [x.cuda() for x in random_attention(rng, 300, 300, 64, torch.bfloat16)]
    rows, weight, bias, *_ = (
        None if x is None else x.cuda() for x in random_arbiter(rng, 99, 64, "none", torch.float32)
    )
    assert rows is not None
    assert weight is not None
    assert bias is not None
    want = tercet.kept_attention(*inputs, num_heads=4), tercet.arbiter_logits(rows, weight, bias)
    torch.cuda.synchronize()
    stream, done = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)  # what runs on another stream would be done before
        queries, shifted = inputs[0] * 2 / 2, rows * 2 / 2
        got = (_gating_cuda.kept_attention(kernels, queries, *inputs[1:], 4),
               _gating_cuda.arbiter_logits(kernels, shifted, weight, bias, None, None, 0.0))  # fmt: skip
        done.record()
        waited = done.query()
    stream.synchronize()
    assert not waited
    assert all(map(torch.equal, got, want))


@pytest.mark.cuda
@pytest.mark.parametrize("keys", ["kept", "all"])
def test_a_layer_on_both_devices(kernels: ModuleType, keys: str) -> None:
    generator = torch.Generator().manual_seed(3)
    layer = ArbitratedEncoderLayer(96, 4, 128, keys=keys, window=(20, 5)).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
        x = torch.randn(3, 150, 96, generator=generator)
        gates = tuple(torch.rand(3, 150, generator=generator) < 0.5 for _ in range(2))
        want = layer(x, gates=gates)
        got = layer.cuda()(x.cuda(), gates=tuple(g.cuda() for g in gates))
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=1e-4)
