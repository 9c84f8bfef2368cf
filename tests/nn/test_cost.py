"""ComputeCost counts what a plain count over frames and keys counts; its penalty is the expected share of what gates can save."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, make_layer
from strategies import normal, seeds
from tercet.nn import ArbitratedEncoder, BlockShape, ComputeCost
from tercet.nn.cost import expected_share


def count(case: Case, attention: list[bool], feed_forward: list[bool], valid: list[bool], t: int) -> int:
    """Multiply-adds of one frame in one block, as a loop over its keys would spend them; arbitrators apart."""
    layer, (left, right) = case.layer, case.window
    dim, spent = layer.dim, 0
    if attention[t]:
        spent += dim * dim  # query
        for key in range(len(valid)):
            is_key = attention[key] if layer.keys == "kept" else valid[key]
            if is_key and t - left <= key <= t + right:
                spent += dim  # score, over all heads
                spent += dim  # its value
        spent += dim * dim  # output
    if attention[t] if layer.keys == "kept" else valid[t]:
        spent += 2 * dim * dim  # key, value
    if feed_forward[t]:
        spent += 2 * dim * layer.feed_forward_dim
    return spent


def stacked(case: Case, rng: np.random.Generator, num_layers: int) -> tuple[ArbitratedEncoder, Tensor]:
    """A stack of the case's layer and gates for it."""
    shape = (num_layers, 2, *case.attention.shape)
    return ArbitratedEncoder(case.layer, num_layers), torch.from_numpy(rng.random(shape) < 0.6)


def run(case: Case, encoder: ArbitratedEncoder, **options: object) -> ComputeCost:
    x = {"time first": case.x.transpose(0, 1), "unbatched": case.x[0] if len(case.x) else None}.get(case.layout, case.x)
    return encoder(x, src_key_padding_mask=case.padding, **options)[1]


@given(cases(masks=False), st.integers(1, 3), seeds)
def test_multiply_adds_are_those_of_a_plain_count(case: Case, num_layers: int, seed: int) -> None:
    encoder, gates = stacked(case, np.random.default_rng(seed), num_layers)
    with torch.no_grad():
        cost = run(case, encoder, gates=gates)
    on, valid = gates & case.valid, case.valid.tolist()
    assert torch.equal(cost.gates, on)
    assert cost.multiply_adds.shape == (num_layers, *case.x.shape[:2])
    arbiters = 2 * case.layer.dim
    for b, row in enumerate(valid):
        for t in range(len(row)):
            want = [
                count(case, *(on[i, part, b].tolist() for part in range(2)), row, t) + arbiters * row[t]
                for i in range(num_layers)
            ]
            assert cost.multiply_adds[:, b, t].tolist() == want
            assert int(cost.dense[b, t]) == num_layers * count(case, row, row, row, t)
    total = int(cost.dense.sum())
    assert cost.share == pytest.approx(int(cost.multiply_adds.sum()) / total if total else 0.0)


@given(seeds, st.sampled_from([1, 2, 4]), st.sampled_from(["kept", "all"]))
def test_the_penalty_is_the_expectation_over_all_gate_patterns(seed: int, num_frames: int, keys: str) -> None:
    """Of what gates can save: multiply-adds above those with every gate off, over the same with every gate on."""
    rng = np.random.default_rng(seed)
    windows = rng.choice(np.array([None, 0, 1, 2]), (2, 2))
    shapes = [BlockShape(int(rng.integers(1, 5)), int(rng.integers(1, 9)), 7, keys, *sides) for sides in windows]
    patterns = torch.cartesian_prod(*[torch.tensor([False, True])] * (2 * num_frames)).unflatten(1, (2, -1))
    valid = torch.from_numpy(rng.random(num_frames) < 0.8)
    valid[0] = True
    chances = torch.from_numpy(rng.choice([0.0, 1.0, *rng.random(5)], (2, 2, 1, num_frames)))
    gates = (patterns & valid).transpose(0, 1).expand(2, -1, -1, -1)
    cost = ComputeCost(gates, valid.expand(len(patterns), -1), tuple(shapes), torch.tensor(0.0))
    spent = cost.multiply_adds.sum(2).double()  # [layer, pattern], which runs from all off to all on
    weights = torch.where(patterns, chances[:, :, 0][:, None], 1 - chances[:, :, 0][:, None]).prod(3).prod(2)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, dtype=torch.float64))
    expected = ((weights * spent).sum(1) - spent[:, 0]).sum()
    want = expected / (spent[:, -1] - spent[:, 0]).sum()
    got = expected_share([(pair[0], pair[1]) for pair in chances], valid[None], shapes)
    torch.testing.assert_close(got, want)


@given(cases(masks=False), st.integers(1, 3), seeds)
def test_the_penalty_counts_what_each_gate_would_spend(case: Case, num_layers: int, seed: int) -> None:
    """By a plain loop over pairs of frames; of forced gates the probability is 0 or 1."""
    rng = np.random.default_rng(seed)
    encoder, gates = stacked(case, rng, num_layers)
    for i, layer in enumerate(encoder.blocks):
        layer.attention_arbiter.bias.data.fill_(0.3 * i - 0.2)
    with torch.no_grad():
        forced, decided = run(case, encoder, gates=gates).penalty, run(case, encoder).penalty
    valid = case.valid
    if not valid.any():
        assert float(forced) == float(decided) == 0.0
        return
    whole = num_layers * expected_spending(case, valid.double(), valid.double())
    for found, chances in ((forced, (gates & valid).double()), (decided, probabilities(case, encoder))):
        want = sum(expected_spending(case, *layer) for layer in chances) / whole
        torch.testing.assert_close(found, want.float())


def expected_spending(case: Case, attention: Tensor, feed_forward: Tensor) -> Tensor:
    """Expected multiply-adds that one block's gates cause, of their probabilities [B, T], 0 at padding."""
    layer, (left, right) = case.layer, case.window
    kept = layer.keys == "kept"
    frame = torch.arange(case.x.shape[1])
    ahead = frame - frame[:, None]
    key_mask = attention if kept else case.valid.double()
    pairs = attention[:, :, None] * key_mask[:, None] * ((ahead >= -left) & (ahead <= right))
    own = torch.diag_embed(attention)  # who asks is a key
    pairs = torch.where(torch.eye(len(frame), dtype=torch.bool), own, pairs)
    projections = (4 if kept else 2) * layer.dim**2 * attention.sum()
    return projections + 2 * layer.dim * pairs.sum() + 2 * layer.dim * layer.feed_forward_dim * feed_forward.sum()


def probabilities(case: Case, encoder: ArbitratedEncoder) -> Tensor:
    """Each gate's probability [num_layers, 2, B, T], 0 at padding, the layers run in turn."""
    x, found = case.x, []
    with torch.no_grad():
        decided = run(case, encoder).gates
        for layer, both in zip(encoder.blocks, decided, strict=True):
            inputs, row = x, []
            for part in ("attention", "feed_forward"):
                norm, arbiter = getattr(layer, f"{part}_norm"), getattr(layer, f"{part}_arbiter")
                logits = arbiter(norm(inputs) if layer.norm_first else inputs)[..., 0]
                row.append(logits.sigmoid() * case.valid)
                inputs = case.run(layer, x, gates=(both[0], torch.zeros_like(both[1])))
            found.append(torch.stack(row))
            x = case.run(layer, x, gates=tuple(both))
    return torch.stack(found)


@pytest.mark.parametrize("keys", ["kept", "all"])
@pytest.mark.parametrize("window", [(None, None), (2, 0), (1, 3)])
def test_gradcheck_of_the_penalty(keys: str, window: tuple[int | None, int | None]) -> None:
    rng = np.random.default_rng(4)
    valid = torch.arange(6) < torch.tensor([6, 4, 0])[:, None]
    shapes = [BlockShape(3, 5, 6, keys, *window), BlockShape(2, 4, 6, keys, None, 0)]
    chances = torch.from_numpy(rng.random((2, 2, 3, 6))).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: expected_share([(a, f) for a, f in p], valid, shapes), chances)


@pytest.mark.parametrize("mode", ["dense", "compact", "eval"])
@pytest.mark.parametrize("keys", ["kept", "all"])
def test_the_penalty_pushes_every_probability(mode: str, keys: str) -> None:
    """Its gradient to what an arbitrator reads is that of the plain expectation; padding gets none."""
    rng = np.random.default_rng(0)
    layer = make_layer(rng, keys=keys, arbiter_input="acoustic", mode="dense" if mode == "eval" else mode, window=2)
    encoder = ArbitratedEncoder(layer.train(mode != "eval"), 1)
    x = normal(rng, 2, 7, 6, dtype=torch.float64)
    acoustic = normal(rng, 2, 7, 6, dtype=torch.float64).requires_grad_()
    padding = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    penalty = encoder(x, src_key_padding_mask=padding, acoustic=acoustic)[1].penalty
    block = encoder.blocks[0]
    inputs = [acoustic, block.attention_arbiter.weight, block.feed_forward_arbiter.weight]
    got = torch.autograd.grad(penalty, inputs)
    case = Case(block, x, padding, padding, (2, 2), padding)
    chances = [
        arbiter(acoustic)[..., 0].sigmoid().masked_fill(padding, 0)
        for arbiter in (block.attention_arbiter, block.feed_forward_arbiter)
    ]
    on = case.valid.double()
    want = expected_spending(case, *chances) / expected_spending(case, on, on)
    torch.testing.assert_close(penalty.double(), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got, torch.autograd.grad(want, inputs), rtol=1e-4, atol=1e-6)
    assert not got[0][padding].any()


def test_arbitrators_cost_less_than_a_hundredth() -> None:
    """All on, a stack of the usual proportions spends what torch's does and the arbitrators' own."""
    layer = make_layer(np.random.default_rng(1), 256, 4, dim_feedforward=1024, dtype=torch.float32)
    on = torch.ones(2, 2, 1, 50, dtype=torch.bool)
    x = torch.zeros(1, 50, 256)
    with torch.no_grad():
        cost = ArbitratedEncoder(layer, 2)(x, gates=on)[1]
        nothing = ArbitratedEncoder(layer, 2)(x, gates=~on)[1]
    extra = int((cost.multiply_adds.sum(0) - cost.dense).sum())
    assert extra == 2 * 50 * 2 * 256 == int(nothing.multiply_adds.sum())
    assert 1 < cost.share < 1.01
    assert nothing.share < 0.01
    assert float(cost.penalty) == 1.0
    assert float(nothing.penalty) == 0.0


def test_frames_that_are_not_finite_cost_their_arbitrators_alone() -> None:
    layer = make_layer(np.random.default_rng(2))
    x = torch.zeros(1, 4, 6, dtype=torch.float64)
    x[0, 1, 2] = torch.nan
    on = torch.ones(1, 2, 1, 4, dtype=torch.bool)
    cost = ArbitratedEncoder(copy.deepcopy(layer), 1)(x, gates=on)[1]
    assert cost.gates[0, :, 0].tolist() == [[True, False, True, True]] * 2
    assert cost.multiply_adds[0, 0].tolist() == [count_of(layer, 3), 12, count_of(layer, 3), count_of(layer, 3)]
    assert torch.isfinite(ArbitratedEncoder(layer, 1)(x)[1].penalty)


def count_of(layer: torch.nn.Module, keys: int) -> int:
    return 4 * 36 + 2 * 6 * keys + 2 * 6 * layer.feed_forward_dim + 12
