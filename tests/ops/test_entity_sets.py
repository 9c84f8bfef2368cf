"""intersect, union, difference, count, top: against dense torch, their laws, their gradients, their checks."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import dtypes, random_sets, seeds
from tercet import EntitySets
from tercet.ops import entity_sets as ops
from tercet.ops.reference import entity_sets as reference

Pair = tuple[EntitySets, EntitySets]
OPS: dict[str, tuple[Callable[..., EntitySets], Callable[[Tensor, Tensor], Tensor]]] = {
    "intersect min": (lambda a, b, **o: tercet.intersect(a, b, how="min", **o), torch.minimum),
    "intersect product": (lambda a, b, **o: tercet.intersect(a, b, how="product", **o), torch.mul),
    "union max": (lambda a, b, **o: tercet.union(a, b, how="max", **o), torch.maximum),
    "union sum": (lambda a, b, **o: tercet.union(a, b, how="sum", **o), torch.add),
    "difference": (tercet.difference, lambda x, y: x * (y == 0)),
}


@st.composite
def pairs(draw: st.DrawFn, dtype: torch.dtype | None = None, positive: bool = False, max_batch: int = 150) -> Pair:
    """Two batches of sets; up to several tasks of rows; `positive`: no member weighs 0."""
    rng = np.random.default_rng(draw(seeds))
    batch, num_entities = draw(st.integers(0, max_batch)), draw(st.integers(1, 40))
    kind = draw(dtypes) if dtype is None else dtype
    a, b = (random_sets(rng, batch, num_entities, draw(st.sampled_from([0.0, 0.2, 0.8, 1.0])), kind) for _ in range(2))
    if positive:
        a, b = (s.with_weights(s.weights + 0.25) for s in (a, b))
    return a, b


@given(pairs(), st.sampled_from(["intersection", "union", "difference"]), st.sampled_from([1, 2, 7]))
def test_merge_equals_reference(pair: Pair, how: str, threads: int) -> None:
    a, b = pair
    arguments = (a.offsets, a.entities, b.offsets, b.entities, how, 40)
    for got, want in zip(ops._merge(*arguments, threads), reference.merge(*arguments), strict=True):
        assert torch.equal(got, want)


@given(pairs(positive=True, dtype=torch.float64), st.sampled_from(sorted(OPS)))
def test_values_and_gradients_equal_dense(pair: Pair, name: str) -> None:
    ours, dense = OPS[name]
    x, y = (s.to_dense(40).detach().requires_grad_() for s in pair)
    a, b = EntitySets.from_dense(x), EntitySets.from_dense(y)
    got, want = ours(a, b), dense(x, y)
    assert torch.allclose(got.to_dense(40), want)
    assert got.validate() is got
    probe = torch.rand(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((out * probe).sum(), [x, y], allow_unused=True, materialize_grads=True)
                 for out in (got.to_dense(40), want)]  # fmt: skip
    for ours_, dense_, value in zip(*gradients, (x, y), strict=True):
        assert torch.allclose(ours_, dense_ * (value != 0))  # no gradient to what is no member


@given(pairs(positive=True))
def test_laws(pair: Pair) -> None:
    a, b = pair
    empty = EntitySets.from_lists([[]] * len(a), dtype=a.weights.dtype)

    def same(p: EntitySets, q: EntitySets) -> bool:
        return p.to_lists() == q.to_lists()

    for name in ("intersect min", "intersect product", "union max", "union sum"):
        assert same(OPS[name][0](a, b), OPS[name][0](b, a))
    assert same(tercet.intersect(a, a), a)
    assert same(tercet.union(a, a), a)
    assert same(tercet.union(a, empty, how="sum"), a)
    assert same(tercet.intersect(a, empty), empty)
    assert same(tercet.difference(a, empty), a)
    assert same(tercet.difference(a, a), empty)
    assert torch.equal(tercet.intersect(a, b).sizes() + tercet.difference(a, b).sizes(), a.sizes())


@given(pairs(), st.integers(1, 45), st.sampled_from([1, 2, 7]), seeds)
def test_top_equals_reference_with_ties_and_nan(pair: Pair, k: int, threads: int, seed: int) -> None:
    sets = pair[0]
    rng = np.random.default_rng(seed)
    weights = torch.from_numpy(rng.choice([0.0, 0.25, 0.5, np.nan, np.inf], len(sets.weights))).to(sets.weights.dtype)
    index, offsets = ops._top(weights, sets.offsets, k, threads)
    want_index, want_offsets = reference.top(weights, sets.offsets, k)
    assert torch.equal(index, want_index)
    assert torch.equal(offsets, want_offsets)


@given(pairs(dtype=torch.float64), st.integers(1, 10))
def test_top_keeps_the_largest(pair: Pair, k: int) -> None:
    for row, kept in zip(pair[0].to_lists(), tercet.top(pair[0], k).to_lists(), strict=True):
        best = sorted(row.items(), key=lambda item: (-item[1], item[0]))[:k]
        assert kept == dict(best)


@given(pairs())
def test_count_is_the_sum_of_each_row(pair: Pair) -> None:
    sets = pair[0]
    want = sets.to_dense(40).double().sum(1)
    assert torch.allclose(tercet.count(sets).double(), want)


@given(pairs(dtype=torch.float64, max_batch=4))
@settings(max_examples=15)
def test_gradcheck(pair: Pair) -> None:
    weights = pair[0].weights.clone().requires_grad_()
    if len(weights):
        assert torch.autograd.gradcheck(lambda w: tercet.count(pair[0].with_weights(w)), weights)
        assert torch.autograd.gradcheck(lambda w: tercet.top(pair[0].with_weights(w), 3).weights, weights)
        assert torch.autograd.gradcheck(
            lambda w: tercet.union(pair[0].with_weights(w), pair[1], how="sum").weights, weights
        )


def test_minimum_shares_the_gradient_of_a_tie() -> None:
    w = torch.tensor([0.5], requires_grad=True)
    sets = EntitySets.one_hot([3])
    met = tercet.intersect(sets.with_weights(w), sets.with_weights(torch.tensor([0.5])))
    assert torch.autograd.grad(met.weights.sum(), w)[0].tolist() == [0.5]


def test_opcheck() -> None:
    a, b = (random_sets(np.random.default_rng(seed), 5, 20, 0.4, torch.float64) for seed in (0, 1))
    for how in ("intersection", "union", "difference"):
        torch.library.opcheck(ops._merge, (a.offsets, a.entities, b.offsets, b.entities, how, 20, 2))
    torch.library.opcheck(ops._top, (a.weights, a.offsets, 3, 2))


A, B = EntitySets.one_hot([0, 1]), EntitySets.one_hot([1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tercet.intersect(A, A, how="sum"), ValueError, "tercet.intersect: how must be one of min, product, got 'sum'"),
        (lambda: tercet.union(A, A, how="min"), ValueError, "tercet.union: how must be one of max, sum, got 'min'"),
        (lambda: tercet.union(A, B), ValueError, "tercet.union: a and b must have one batch size, got 2 and 1"),
        (lambda: tercet.difference(A, A.to(torch.float64)), TypeError, "tercet.difference: a and b must have one dtype"),
        (lambda: tercet.intersect(A, A.to("meta")), ValueError, "a and b must be on one device, got cpu and meta"),
        (lambda: tercet.intersect(A, torch.ones(2)), TypeError, "tercet.intersect: b must be EntitySets, got Tensor"),
        (lambda: tercet.top(A, 0), ValueError, "tercet.top: k must be a positive integer, got 0"),
        (lambda: tercet.top(A, 1.5), ValueError, "tercet.top: k must be a positive integer, got 1.5"),
        (lambda: tercet.union(A, A, num_threads=-1), ValueError, "num_threads must be a positive integer, got -1"),
        (lambda: tercet.count(3), TypeError, "tercet.count: sets must be EntitySets, got int"),
    ],
)  # fmt: skip
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
