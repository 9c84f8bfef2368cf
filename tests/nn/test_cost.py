"""ComputeCost counts what a plain count over frames and keys counts; its penalty is the expected share."""

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
from tercet.nn import ArbitratedEncoder, ComputeCost


def count(case: Case, attention: list[bool], feed_forward: list[bool], valid: list[bool], t: int) -> int:
    """Multiply-adds of one frame in one block, as a loop over its keys would spend them; arbitrators apart."""
    layer, (left, right) = case.layer, case.window
    dim, spent = layer.dim, 0
    if attention[t]:
        spent += dim * dim  # query
        for key in range(len(valid)):
            offered = attention[key] if layer.keys == "kept" else valid[key]
            if offered and t - left <= key <= t + right:
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


@given(cases(masks=False), st.integers(1, 3), seeds)
def test_the_penalty_is_the_expected_share(case: Case, num_layers: int, seed: int) -> None:
    """Gates weigh what their sub-blocks cost with every gate on; of forced gates the probability is 0 or 1."""
    rng = np.random.default_rng(seed)
    encoder, gates = stacked(case, rng, num_layers)
    for i, layer in enumerate(encoder.blocks):
        layer.attention_arbiter.bias.data.fill_(0.3 * i - 0.2)
    with torch.no_grad():
        forced, decided = run(case, encoder, gates=gates).penalty, run(case, encoder).penalty
    valid, layer = case.valid, case.layer
    if not valid.any():
        assert float(forced) == float(decided) == 0.0
        return
    rows = valid.tolist()
    costs = torch.zeros(2)
    for row in rows:
        for t in range(len(row)):
            if row[t]:
                off = [False] * len(row)
                transform = 2 * layer.dim * layer.feed_forward_dim
                attend = count(case, row, off, row, t)
                costs += torch.tensor([attend - (2 * layer.dim**2 if layer.keys == "all" else 0), transform])
    rates = (gates & valid).sum((2, 3)) / valid.sum()
    torch.testing.assert_close(forced, (rates * costs).sum() / (num_layers * costs.sum()))
    chances = probabilities(case, encoder)
    torch.testing.assert_close(decided, (chances * costs).sum() / (num_layers * costs.sum()))


def probabilities(case: Case, encoder: ArbitratedEncoder) -> Tensor:
    """The mean probability of each gate of each layer [num_layers, 2] over valid frames, the layers run in turn."""
    x, found = case.x, []
    with torch.no_grad():
        for layer in encoder.blocks:
            inputs, row = x, []
            for part in ("attention", "feed_forward"):
                norm, arbiter = getattr(layer, f"{part}_norm"), getattr(layer, f"{part}_arbiter")
                logits = arbiter(norm(inputs) if layer.norm_first else inputs)[..., 0]
                row.append(logits.sigmoid()[case.valid].mean().float())
                both = _decisions(case, encoder, len(found))
                inputs = case.run(layer, x, gates=(both[0], torch.zeros_like(both[1])))
            found.append(torch.stack(row))
            x = case.run(layer, x, gates=tuple(both))
    return torch.stack(found)


def _decisions(case: Case, encoder: ArbitratedEncoder, index: int) -> Tensor:
    return run(case, encoder).gates[index]


@pytest.mark.parametrize("mode", ["dense", "compact", "eval"])
@pytest.mark.parametrize("keys", ["kept", "all"])
def test_the_penalty_pushes_every_probability(mode: str, keys: str) -> None:
    """Its gradient to a logit is the sub-block's cost times p (1 - p) over frames and total; padding gets none."""
    rng = np.random.default_rng(0)
    layer = make_layer(rng, keys=keys, arbiter_input="acoustic", mode="dense" if mode == "eval" else mode, window=2)
    encoder = ArbitratedEncoder(layer.train(mode != "eval"), 1)
    x = normal(rng, 2, 7, 6, dtype=torch.float64)
    sound = normal(rng, 2, 7, 6, dtype=torch.float64).requires_grad_()
    padding = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    penalty = encoder(x, src_key_padding_mask=padding, acoustic=sound)[1].penalty
    block = encoder.blocks[0]
    inputs = [sound, block.attention_arbiter.weight, block.feed_forward_arbiter.weight]
    got = torch.autograd.grad(penalty, inputs)
    frames = 11
    seen = sum(min(t + 2, size - 1) - max(t - 2, 0) + 1 for size in (7, 4) for t in range(size)) / frames
    attend = (4 if keys == "kept" else 2) * 36 + 2 * 6 * seen
    transform = 2 * 6 * layer.feed_forward_dim
    want = 0.0
    for arbiter, cost in ((block.attention_arbiter, attend), (block.feed_forward_arbiter, transform)):
        chance = arbiter(sound)[..., 0].sigmoid().masked_fill(padding, 0)
        want = want + cost * chance.sum() / frames / (attend + transform)
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
