"""arbiter_logits and kept_attention: against the reference, their laws, their checks."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import dtypes, instruction_set, normal, seeds
from tercet.ops import _native, gating
from tercet.ops.reference import gating as reference

HALVES = (torch.bfloat16, torch.float16)
# Around the vectors (2 to 16 values), the panels of keys (two vectors), the queries that go together (4, 8) and a
# chunk of them (256).
HEAD_DIMS = (1, 2, 3, 4, 7, 8, 9, 16, 17, 31, 32, 33, 64, 65)
QUERIES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 17, 255, 256, 257, 300)
KEYS = (0, 1, 2, 4, 7, 8, 15, 16, 17, 31, 32, 33, 65, 150)
# Errors of outputs of size 1, where scores have size 1: rounding of some hundred terms.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 5e-14}


@dataclass
class Case:
    """The arguments of one kept_attention."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    starts: Tensor
    ends: Tensor
    num_heads: int

    def run(self, **options: int) -> Tensor:
        frames = self.queries, self.keys, self.values
        return tercet.kept_attention(*frames, self.starts, self.ends, num_heads=self.num_heads, **options)

    def to(self, dtype: torch.dtype) -> Case:
        return replace(self, queries=self.queries.to(dtype), keys=self.keys.to(dtype), values=self.values.to(dtype))

    def of_queries(self, rows: slice) -> Case:
        return replace(self, queries=self.queries[rows], starts=self.starts[rows], ends=self.ends[rows])

    def sees(self) -> Tensor:
        """bool [num_queries, num_keys]."""
        position = torch.arange(len(self.keys))
        return (position >= self.starts[:, None]) & (position < self.ends[:, None])

    def reference(self) -> Tensor:
        wide = self.to(torch.float64)
        return reference.kept_attention(wide.queries, wide.keys, wide.values, self.starts, self.ends, self.num_heads)


def random_ranges(rng: np.random.Generator, kind: str, num_queries: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """Ranges in the keys: of windows that move on, of hubs that see all, of single keys, of anything."""
    ends = np.sort(rng.integers(0, num_keys + 1, num_queries))
    starts = np.maximum(ends - rng.integers(0, 40, num_queries), 0)
    if kind == "random":
        starts, ends = (rng.integers(0, num_keys + 1, num_queries) for _ in range(2))
    elif kind == "one key":
        starts = np.maximum(ends - 1, 0)
    hubs = rng.random(num_queries) < {"hubs": 0.3, "whole": 1.0}.get(kind, 0.0)
    starts[hubs], ends[hubs] = 0, num_keys
    empty = rng.random(num_queries) < {"empty": 1.0, "whole": 0.0}.get(kind, 0.1)
    ends[empty] = np.minimum(starts, ends)[empty]
    return torch.from_numpy(starts), torch.from_numpy(ends)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Ranges of every kind over sizes around those of the kernels."""
    rng = np.random.default_rng(draw(seeds))
    num_heads, head_dim = draw(st.integers(1, 3)), draw(st.sampled_from(HEAD_DIMS))
    num_queries, num_keys = draw(st.sampled_from(QUERIES)), draw(st.sampled_from(KEYS))
    kind = draw(st.sampled_from(["window", "random", "one key", "hubs", "whole", "empty"]))
    dtype = draw(dtypes)
    frames = (normal(rng, rows, num_heads * head_dim, dtype=dtype) for rows in (num_queries, num_keys, num_keys))
    return Case(*frames, *random_ranges(rng, kind, num_queries, num_keys), num_heads)


def plain_attention(case: Case) -> Tensor:
    """The formula, one query and head at a time, in float64."""
    wide, out = case.to(torch.float64), torch.zeros(case.queries.shape, dtype=torch.float64)
    dim = case.queries.shape[1] // case.num_heads
    for i, (start, end) in enumerate(zip(case.starts.tolist(), case.ends.tolist(), strict=True)):
        for head in range(case.num_heads if start < end else 0):
            part = slice(head * dim, (head + 1) * dim)
            weights = (wide.keys[start:end, part] @ wide.queries[i, part] / dim**0.5).softmax(0)
            out[i, part] = weights @ wide.values[start:end, part]
    return out


@given(cases())
def test_attention_equals_reference(case: Case) -> None:
    want = case.reference()
    for isa in _native.available_isas():
        with instruction_set(isa):
            got = case.run()
        assert got.dtype == case.queries.dtype
        torch.testing.assert_close(got.double(), want, rtol=0, atol=TOLERANCE[got.dtype])


@given(cases())
@settings(max_examples=20)
def test_reference_is_the_formula(case: Case) -> None:
    case = case.of_queries(slice(240, None)) if len(case.queries) > 250 else case
    torch.testing.assert_close(case.reference(), plain_attention(case), rtol=0, atol=1e-13)


@given(cases(), st.sampled_from([10.0, 300.0]))
@settings(max_examples=20)
def test_large_scores_do_not_overflow(case: Case, scale: float) -> None:
    case = replace(case, queries=scale * case.queries).to(torch.float64)
    got, largest = case.run(), 1 + scale
    assert got.isfinite().all()
    torch.testing.assert_close(got, case.reference(), rtol=0, atol=largest * TOLERANCE[torch.float64])
    single = case.to(torch.float32)
    torch.testing.assert_close(
        single.run().double(), single.reference(), rtol=0, atol=largest * TOLERANCE[torch.float32]
    )


@given(cases(), seeds)
def test_same_bits_for_any_thread_count_and_split(case: Case, seed: int) -> None:
    want = case.run(num_threads=1)
    for threads in (2, 7):
        assert torch.equal(case.run(num_threads=threads), want)
    cuts = [0, *np.sort(np.random.default_rng(seed).integers(0, len(case.queries) + 1, 3)).tolist(), len(case.queries)]
    parts = [case.of_queries(slice(*pair)).run() for pair in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat(parts), want)


@given(cases(), cases(), seeds)
@settings(max_examples=30)
def test_sequences_keep_their_bits_in_a_batch(first: Case, second: Case, seed: int) -> None:
    """Packed one after the other, and with the queries in another order."""
    dim = first.queries.shape[1]
    rng = np.random.default_rng(seed)
    frames = [normal(rng, len(x), dim, dtype=first.queries.dtype) for x in (second.queries, second.keys, second.values)]
    second = replace(second, queries=frames[0], keys=frames[1], values=frames[2], num_heads=first.num_heads)
    both = Case(
        *(torch.cat(pair) for pair in ((first.queries, second.queries), (first.keys, second.keys),
                                       (first.values, second.values))),
        torch.cat([first.starts, second.starts + len(first.keys)]),
        torch.cat([first.ends, second.ends + len(first.keys)]),
        first.num_heads,
    )  # fmt: skip
    want = torch.cat([first.run(), second.run()])
    assert torch.equal(both.run(), want)
    order = torch.from_numpy(rng.permutation(len(want)))
    shuffled = replace(both, queries=both.queries[order], starts=both.starts[order], ends=both.ends[order])
    assert torch.equal(shuffled.run(), want[order])


@given(cases(), seeds, st.sampled_from(["queries", "keys", "values"]), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_not_a_number_stays_with_who_sees_it(case: Case, seed: int, where: str, bad: float) -> None:
    rng = np.random.default_rng(seed)
    frames = getattr(case, where).clone()
    if not len(frames):
        return
    row = int(rng.integers(len(frames)))
    frames[row, int(rng.integers(frames.shape[1]))] = bad
    broken = replace(case, **{where: frames})
    seen = case.sees()
    touched = torch.arange(len(seen)) == row if where == "queries" else seen[:, row]
    for isa in _native.available_isas():
        with instruction_set(isa):
            got = broken.run()
            assert torch.equal(got[~touched], case.run()[~touched])
        if where == "values":
            assert not got[touched].isfinite().all(1).any()
        elif np.isnan(bad):
            assert torch.equal(got.isnan().any(1), touched & seen.any(1))
    if where != "queries" and not (where == "keys" and np.isinf(bad)):
        assert torch.equal(broken.reference().isfinite().all(1), ~touched)


def test_no_value_outside_a_range_is_read() -> None:
    """No query reads beyond its range, not even the keys between its own and its neighbours'."""
    values = torch.full((60, 4), torch.nan)
    values[10:12], values[40:42] = 1.0, 2.0
    starts = torch.tensor([10, 40] * 8)
    case = Case(torch.ones(16, 4), torch.ones(60, 4), values, starts, starts + 2, 2)
    assert torch.equal(case.run(), torch.tensor([[1.0], [2.0]] * 8).expand(16, 4))


@pytest.mark.parametrize("shape", [(0, 0, 6), (0, 5, 6), (5, 0, 6), (3, 4, 0)])
def test_empty_attention(shape: tuple[int, int, int]) -> None:
    num_queries, num_keys, dim = shape
    keys = torch.ones(num_keys, dim)
    starts = torch.zeros(num_queries, dtype=torch.int64)
    for run in (tercet.kept_attention, reference.kept_attention):
        got = run(torch.ones(num_queries, dim), keys, keys, starts, starts + num_keys, num_heads=2)
        assert torch.equal(got, torch.zeros(num_queries, dim))


@given(cases(), st.sampled_from(HALVES))
@settings(max_examples=20)
def test_halves_are_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    half = case.to(dtype)
    got = half.run()
    assert got.dtype == dtype
    assert torch.equal(got, half.to(torch.float32).run().to(dtype))


@given(cases())
@settings(max_examples=20)
def test_strided_frames(case: Case) -> None:
    want, dim = case.run(), case.queries.shape[1]
    whole = torch.cat([case.keys, case.values, case.keys], 1)
    keys, values, _ = whole.chunk(3, 1)
    queries = torch.cat([case.queries, case.queries], 1)[:, dim:]
    bounds = torch.stack([case.starts, case.ends], 1)
    strided = replace(case, queries=queries, keys=keys, values=values, starts=bounds[:, 0], ends=bounds[:, 1])
    assert torch.equal(strided.run(), want)
    assert torch.equal(replace(case, keys=case.keys.T.contiguous().T).run(), want)
    halves = [each.to(torch.bfloat16) for each in (strided, case)]
    assert torch.equal(halves[0].run(), halves[1].run())
    alike = case.queries[:1].expand(len(case.queries), dim)
    assert torch.equal(replace(case, queries=alike).run(), replace(case, queries=alike.contiguous()).run())


@dataclass
class Rows:
    """The arguments of one arbiter_logits."""

    rows: Tensor
    weight: Tensor
    bias: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def run(self, rows: Tensor | None = None, **options: float) -> Tensor:
        norm = {"norm_weight": self.norm_weight, "norm_bias": self.norm_bias}
        return tercet.arbiter_logits(self.rows if rows is None else rows, self.weight, self.bias, **norm, **options)

    def to(self, dtype: torch.dtype) -> Rows:
        return Rows(*(None if x is None else x.to(dtype) for x in vars(self).values()))


@st.composite
def logit_cases(draw: st.DrawFn) -> Rows:
    """Raw and normalised rows, with and without the norm's bias, some rows far from 0."""
    rng = np.random.default_rng(draw(seeds))
    num_rows = draw(st.sampled_from([0, 1, 2, 63, 64, 65, 130]))
    dim, dtype = draw(st.sampled_from([0, *HEAD_DIMS, 127, 200])), draw(dtypes)
    norm = draw(st.sampled_from(["raw", "weight", "both"]))
    rows = normal(rng, num_rows, dim, dtype=dtype) + draw(st.sampled_from([0.0, 5.0]))
    vectors = [normal(rng, size, dtype=dtype) for size in (dim, 1, dim, dim)]
    return Rows(rows, *vectors[:2], vectors[2] if norm != "raw" else None, vectors[3] if norm == "both" else None)


@given(logit_cases(), st.sampled_from([1e-5, 0.1]))
def test_logits_equal_reference(case: Rows, epsilon: float) -> None:
    wide = case.to(torch.float64)
    want = reference.arbiter_logits(*vars(wide).values(), epsilon)
    for isa in _native.available_isas():
        with instruction_set(isa):
            got = case.run(epsilon=epsilon)
        assert got.dtype == case.rows.dtype
        # Two values of a row may be near each other, so that their difference has lost digits to the mean's rounding.
        slack = 400 if case.norm_weight is not None and epsilon < 0.1 and case.rows.shape[1] < 4 else 20
        torch.testing.assert_close(got.double(), want, rtol=0, atol=slack * TOLERANCE[got.dtype])


@given(logit_cases(), seeds)
@settings(max_examples=20)
def test_logits_have_the_same_bits_for_any_thread_count_and_split(case: Rows, seed: int) -> None:
    want = case.run(num_threads=1)
    for threads in (2, 7):
        assert torch.equal(case.run(num_threads=threads), want)
    cut = int(np.random.default_rng(seed).integers(0, len(want) + 1))
    assert torch.equal(torch.cat([case.run(case.rows[:cut]), case.run(case.rows[cut:])]), want)
    strided = torch.stack([case.rows, -case.rows], 1)[:, 0]
    assert torch.equal(case.run(strided), want)


@given(logit_cases(), st.sampled_from(HALVES))
@settings(max_examples=20)
def test_logits_of_halves_are_computed_in_float32(case: Rows, dtype: torch.dtype) -> None:
    half = case.to(dtype)
    assert half.run().dtype == torch.float32
    assert torch.equal(half.run(), half.to(torch.float32).run())


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_logit_of_not_a_number_stays_in_its_row(bad: float, normalised: bool) -> None:
    rng = np.random.default_rng(1)
    rows, ones = normal(rng, 70, 21, dtype=torch.float32), torch.ones(21)
    case = Rows(rows.clone(), ones, torch.zeros(1), ones if normalised else None, None)
    case.rows[66, 20] = bad
    got, others = case.run(), torch.arange(70) != 66
    assert torch.equal(got[others], case.run(rows)[others])
    assert not got[66].isfinite()


def test_opcheck() -> None:
    rng = np.random.default_rng(4)
    queries, keys = (normal(rng, rows, 12, dtype=torch.float32) for rows in (5, 9))
    starts, ends = torch.tensor([0, 2, 9, 0, 5]), torch.tensor([9, 5, 9, 0, 6])
    torch.library.opcheck(gating.kept_attention_op, (queries, keys, keys, starts, ends, 3, 2))
    weight, bias = torch.ones(12), torch.zeros(1)
    for norm in ((None, None), (weight, None), (weight, weight)):
        torch.library.opcheck(gating._arbiter_logits, (keys, weight, bias, *norm, 1e-5, 2))
    halves = (x.bfloat16() for x in (keys, weight, bias))
    torch.library.opcheck(gating._arbiter_logits, (*halves, None, None, 1e-5, 2))


def test_compiles_in_one_graph() -> None:
    rng = np.random.default_rng(5)
    frames, weight = normal(rng, 9, 12, dtype=torch.float32), torch.ones(12)

    def block(frames: Tensor, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        mixed = tercet.kept_attention(frames * 2, frames, frames, starts, ends, num_heads=2)
        return mixed, tercet.arbiter_logits(mixed, weight, weight[:1], norm_weight=weight)

    bounds = torch.tensor([0, 2, 9, 0, 5, 1, 1, 1, 1]), torch.tensor([9, 5, 9, 0, 6, 2, 3, 4, 5])
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(frames, *bounds), block(frames, *bounds), strict=True):
        assert torch.equal(got, want)


def test_a_gradient_is_refused() -> None:
    rows = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(NotImplementedError, match=re.escape("tercet.arbiter_logits has no gradient")):
        tercet.arbiter_logits(rows, torch.ones(4), torch.ones(1)).sum().backward()
    bounds = torch.tensor([0, 0]), torch.tensor([2, 1])
    with pytest.raises(NotImplementedError, match=re.escape("tercet.kept_attention has no gradient")):
        tercet.kept_attention(rows, rows, rows, *bounds, num_heads=2).sum().backward()


FRAMES, BOUNDS = torch.ones(2, 6), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"queries": [[1.0]]}, TypeError, "queries must be a torch.Tensor, got list"),
        ({"queries": FRAMES.long()}, TypeError, "queries must be float32, float64, bfloat16 or float16, got torch.int64"),
        ({"queries": torch.ones(6)}, ValueError, "queries must be [num_queries, dim], got [6]"),
        ({"keys": 1.0}, TypeError, "keys must be a torch.Tensor, got float"),
        ({"keys": FRAMES.double()}, TypeError, "keys and queries must have one dtype, got torch.float64 and torch.float32"),
        ({"values": FRAMES.to("meta")}, ValueError, "values and queries must be on one device, got meta and cpu"),
        ({"keys": torch.ones(2, 5)}, ValueError, "keys and values must be [num_keys, 6], got [2, 5]"),
        ({"values": torch.ones(3, 6)}, ValueError, "keys and values must be [num_keys, 6], got [3, 6]"),
        ({"keys": torch.ones(6)}, ValueError, "keys and values must be [num_keys, 6], got [6]"),
        ({"num_heads": 4}, ValueError, "num_heads must divide dim = 6, got 4"),
        ({"num_heads": 0}, ValueError, "num_heads must divide dim = 6, got 0"),
        ({"key_starts": [0, 0]}, TypeError, "key_starts must be a torch.Tensor, got list"),
        ({"key_ends": BOUNDS.int()}, TypeError, "key_ends must be int64, got torch.int32"),
        ({"key_ends": BOUNDS.to("meta")}, ValueError, "key_ends and queries must be on one device, got meta and cpu"),
        ({"key_starts": BOUNDS[:1]}, ValueError, "key_starts must be [num_queries] = [2], got [1]"),
        ({"key_ends": BOUNDS + 1}, ValueError, "key_ends must be in 0..2, got 3"),
        ({"key_starts": BOUNDS - 1}, ValueError, "key_starts must be in 0..2, got -1"),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
    ],
)  # fmt: skip
def test_errors_of_attention(options: dict[str, object], error: type[Exception], message: str) -> None:
    frames = dict.fromkeys(("queries", "keys", "values"), FRAMES)
    arguments: dict[str, object] = {**frames, "key_starts": BOUNDS * 0, "key_ends": BOUNDS, "num_heads": 2, **options}
    with pytest.raises(error, match=re.escape(f"tercet.kept_attention: {message}")):
        tercet.kept_attention(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rows": [[1.0]]}, TypeError, "rows must be a torch.Tensor, got list"),
        ({"rows": FRAMES.int()}, TypeError, "rows must be float32, float64, bfloat16 or float16, got torch.int32"),
        ({"rows": torch.ones(6)}, ValueError, "rows must be [num_rows, dim], got [6]"),
        ({"weight": None}, TypeError, "weight must be a torch.Tensor, got NoneType"),
        ({"weight": 1.0}, TypeError, "weight must be a torch.Tensor, got float"),
        ({"weight": torch.ones(6).half()}, TypeError, "weight and rows must have one dtype, got torch.float16 and torch.float32"),
        ({"norm_weight": torch.ones(6, device="meta")}, ValueError, "norm_weight and rows must be on one device, got meta and cpu"),
        ({"weight": torch.ones(1, 6)}, ValueError, "weight must be [dim] = [6], got [1, 6]"),
        ({"bias": torch.ones(6)}, ValueError, "bias must be [1] = [1], got [6]"),
        ({"norm_weight": torch.ones(5)}, ValueError, "norm_weight must be [dim] = [6], got [5]"),
        ({"norm_bias": torch.ones(6)}, ValueError, "norm_bias needs norm_weight"),
        ({"num_threads": True}, ValueError, "num_threads must be a positive integer, got True"),
    ],
)  # fmt: skip
def test_errors_of_logits(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"rows": FRAMES, "weight": torch.ones(6), "bias": torch.ones(1), **options}
    with pytest.raises(error, match=re.escape(f"tercet.arbiter_logits: {message}")):
        tercet.arbiter_logits(**arguments)
