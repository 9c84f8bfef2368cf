"""EntitySets: construction, round trips, and that each broken invariant gets its error."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from strategies import dtypes, random_sets, seeds
from tercet import EntitySets


@st.composite
def sets(draw: st.DrawFn) -> EntitySets:
    rng = np.random.default_rng(draw(seeds))
    return random_sets(rng, draw(st.integers(0, 12)), draw(st.integers(1, 30)), draw(st.floats(0, 1)), draw(dtypes))


@given(sets())
def test_round_trips(s: EntitySets) -> None:
    assert EntitySets.from_lists(s.to_lists(), dtype=s.weights.dtype).to_lists() == s.to_lists()
    dense = s.to_dense(31)
    assert torch.equal(EntitySets.from_dense(dense).to_dense(31), dense)
    assert torch.equal(EntitySets.cat([s[row] for row in range(len(s))] or [s]).weights, s.weights)
    leaves, spec = pytree.tree_flatten(s)
    assert pytree.tree_unflatten(leaves, spec).to_lists() == s.to_lists()
    assert s.to(torch.float64).weights.dtype == torch.float64
    assert s.validate() is s


@given(sets(), st.integers(-14, 14), st.integers(-14, 14))
def test_slices_like_a_list(s: EntitySets, start: int, stop: int) -> None:
    assert s[start:stop].to_lists() == s.to_lists()[start:stop]
    if -len(s) <= start < len(s):
        assert s[start].to_lists() == [s.to_lists()[start]]
    else:
        with pytest.raises(IndexError, match=f"row {start} of {len(s)}"):
            s[start]


@given(sets(), seeds)
def test_scale_multiplies_rows(s: EntitySets, seed: int) -> None:
    factors = torch.from_numpy(np.random.default_rng(seed).random(len(s))).to(s.weights.dtype)
    assert torch.equal(s.scale(factors).to_dense(30), s.to_dense(30) * factors[:, None])
    assert torch.equal(s.scale(2.0).weights, s.weights * 2)


def test_gradients_pass_through() -> None:
    dense = torch.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True)
    s = EntitySets.from_dense(dense)
    (s.scale(torch.tensor([10.0, 1.0])).to_dense() * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert dense.grad is not None
    assert dense.grad.tolist() == [[0.0, 20.0], [3.0, 0.0]]
    assert not s.detach().weights.requires_grad


def test_repr_and_len() -> None:
    s = EntitySets.from_lists([{1: 0.5}, {}, {2: 1.0, 0: 1.0}])
    assert repr(s) == "EntitySets(batch=3, members=3, dtype=float32, device='cpu')"
    assert len(s) == 3
    assert s.sizes().tolist() == [1, 0, 2]
    assert s.rows().tolist() == [0, 2, 2]
    assert s.top(1).to_lists() == [{1: 0.5}, {}, {0: 1.0}]


def broken(name: str, value: object) -> Callable[[], EntitySets]:
    """A call with one argument replaced."""
    arguments: dict[str, object] = {
        "weights": torch.tensor([1.0, 2.0, 3.0]),
        "offsets": torch.tensor([0, 2, 3]),
        "entities": torch.tensor([0, 4, 1], dtype=torch.int32),
        "num_entities": 5,
    }
    return lambda: EntitySets(**{**arguments, name: value})


INT32 = torch.int32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (broken("weights", [1.0]), TypeError, "weights must be a torch.Tensor, got list"),
        (broken("weights", torch.tensor([1, 2, 3])), TypeError, "weights must be float32 or float64, got torch.int64"),
        (broken("weights", torch.ones(2)), ValueError, "weights must be [num_members] = [3], got [2]"),
        (broken("weights", torch.ones(3, 1)), ValueError, "weights must have one dimension, got shape [3, 1]"),
        (broken("weights", torch.tensor([1.0, -1.0, 1.0])), ValueError, "weights must be finite and not negative, got -1.0 in row 0"),
        (broken("weights", torch.tensor([1.0, 1.0, torch.nan])), ValueError, "got nan in row 1"),
        (broken("weights", torch.tensor([torch.inf, 1.0, 1.0])), ValueError, "got inf in row 0"),
        (broken("offsets", torch.tensor([0, 3, 2])), ValueError, "offsets must rise from 0 to num_members = 3"),
        (broken("offsets", torch.tensor([0, 3, 2, 3])), ValueError, "offsets must rise from 0 to num_members = 3"),
        (broken("offsets", torch.tensor([1, 2, 3])), ValueError, "offsets must rise from 0"),
        (broken("offsets", torch.tensor([], dtype=torch.int64)), ValueError, "offsets must rise from 0"),
        (broken("offsets", torch.tensor([0, 2, 3], dtype=INT32)), TypeError, "offsets must be torch.int64, got torch.int32"),
        (broken("offsets", torch.tensor([0, 2, 3], device="meta")), ValueError, "must be on one device, got meta and cpu"),
        (broken("entities", torch.tensor([0, 4, 1])), TypeError, "entities must be torch.int32, got torch.int64"),
        (broken("entities", torch.tensor([4, 0, 1], dtype=INT32)), ValueError, "entities must ascend within a row, each once; row 0"),
        (broken("entities", torch.tensor([4, 4, 1], dtype=INT32)), ValueError, "entities must ascend within a row, each once; row 0"),
        (broken("entities", torch.tensor([0, 5, 1], dtype=INT32)), ValueError, "entities must be in 0..4, got 5"),
        (broken("entities", torch.tensor([-1, 4, 1], dtype=INT32)), ValueError, "entities must be in 0..4, got -1"),
        (lambda: EntitySets.one_hot([-1]), ValueError, "tercet.EntitySets.one_hot: ids must be in 0..2147483647, got -1"),
        (lambda: EntitySets.one_hot([2**31]), ValueError, "ids must be in 0..2147483647, got 2147483648"),
        (lambda: EntitySets.one_hot(torch.ones(2)), TypeError, "ids must hold integers, got torch.float32"),
        (lambda: EntitySets.one_hot([[1]]), ValueError, "ids must have one dimension, got shape [1, 1]"),
        (lambda: EntitySets.one_hot([1], weights=torch.ones(2)), ValueError, "weights must be [batch] = [1], got [2]"),
        (lambda: EntitySets.from_lists([{2**31: 1.0}]), ValueError, "ids must be in 0..2147483647"),
        (lambda: EntitySets.from_dense(torch.ones(3)), ValueError, "dense must be [batch, num_entities], got [3]"),
        (lambda: EntitySets.from_dense(-torch.ones(1, 1)), ValueError, "weights must be finite and not negative, got -1.0"),
        (lambda: EntitySets.one_hot([4]).to_dense(3), ValueError, "num_entities must be at least 5, got 3"),
        (lambda: EntitySets.one_hot([4]).scale(torch.ones(2)), ValueError, "factors must be [batch] = [1], got [2]"),
        (lambda: EntitySets.one_hot([4]).with_weights(torch.ones(2)), ValueError, "weights must be [num_members] = [1], got [2]"),
        (lambda: EntitySets.one_hot([4, 5])[::-1], ValueError, "rows must be a slice of step 1, got step -1"),
        (lambda: EntitySets.cat([]), ValueError, "batches must not be empty"),
    ],
)  # fmt: skip
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@given(sets(), seeds, st.sampled_from(["weights", "offsets", "entities"]))
def test_one_changed_number_is_found_or_harmless(s: EntitySets, seed: int, name: str) -> None:
    """Any single number replaced by a wild one either breaks an invariant and is reported, or leaves valid sets."""
    tensors = {"weights": s.weights.clone(), "offsets": s.offsets.clone(), "entities": s.entities.clone()}
    assume(len(tensors[name]))
    rng = np.random.default_rng(seed)
    tensors[name][rng.integers(len(tensors[name]))] = int(rng.choice([-(2**31), -1, 0, 1, 29, 30, 2**31 - 1]))
    try:
        EntitySets(**tensors, num_entities=30)
    except ValueError:
        return
    lists = [sorted(row) for row in EntitySets(**tensors, num_entities=30).to_lists()]
    flat = [entity for row in lists for entity in row]
    assert flat == tensors["entities"].tolist()
    assert all(0 <= entity < 30 for entity in flat)
    assert (tensors["weights"] >= 0).all()
