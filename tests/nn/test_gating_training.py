"""Training gated layers: gradients of forced gates, the straight-through estimator by its formula, autocast, learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, copied, make_layer
from strategies import normal, seeds
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer

MODES = ("dense", "compact")


def learnt(layer: ArbitratedEncoderLayer) -> list[Tensor]:
    """The parameters but the arbitrators', which forced gates do not reach."""
    return [value for name, value in layer.named_parameters() if "arbiter" not in name]


def gradients_of(out: Tensor, probe: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad((out * probe).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


@given(cases(), seeds)
@settings(max_examples=80)
def test_gradients_of_forced_gates_equal_the_definition(case: Case, seed: int) -> None:
    probe = normal(np.random.default_rng(seed), *case.x.shape, dtype=torch.float64)
    x = case.x.clone().requires_grad_()
    want = gradients_of(case.define(x), probe, [x, *learnt(case.layer)])
    layers = [copied(case, mode=mode).train() for mode in MODES]
    layers += [copied(case), copied(case, capacity=1.0), copied(case, capacity=1.0, mode="compact").train()]
    for layer in layers:
        x = case.x.clone().requires_grad_()
        got = gradients_of(case.run(layer, x), probe, [x, *learnt(layer)])
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keys", ["kept", "all"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_gradcheck_with_forced_gates(mode: str, keys: str, norm_first: bool) -> None:
    rng = np.random.default_rng(5)
    layer = make_layer(
        rng, keys=keys, norm_first=norm_first, mode=mode, activation="gelu", window=(2, 1), dim_feedforward=5
    ).train()
    names, values = zip(*((k, v) for k, v in layer.named_parameters() if "arbiter" not in k), strict=True)
    gates = tuple(torch.from_numpy(rng.random((2, 5)) < 0.6) for _ in range(2))

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,), {"gates": gates})

    x = normal(rng, 2, 5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *(value.detach().requires_grad_() for value in values)), fast_mode=True)


def estimator(case: Case, x: Tensor, temperature: float) -> Tensor:
    """The training output by its formula: hard gates of logit + log u - log(1 - u), sigmoid(that / temperature) behind.

    The uniform numbers come from torch's generator, attention's first. In compact mode gates that are off are numbers.
    """
    layer, decided = case.layer, []
    for name in ("attention", "feed_forward"):
        norm, arbiter = getattr(layer, f"{name}_norm"), getattr(layer, f"{name}_arbiter")
        inputs = x if name == "attention" else _attended(case, x, decided[0])
        logits = arbiter(norm(inputs) if layer.norm_first else inputs)[..., 0]
        uniform = torch.rand(logits.shape).clamp(1e-7, 1 - 1e-7)
        noisy = logits.float() + torch.log(uniform) - torch.log(1 - uniform)
        on, soft = (noisy > 0) & case.valid, torch.sigmoid(noisy / temperature)
        learns = on if layer.mode == "compact" else case.valid
        decided.append((on, 1 + torch.where(learns, soft - soft.detach(), 0).double()))
    (attention, first), (feed_forward, second) = decided
    return replace(case, attention=attention, feed_forward=feed_forward).define(x, (first, second))


def _attended(case: Case, x: Tensor, decision: tuple[Tensor, Tensor]) -> Tensor:
    off = torch.zeros_like(decision[0])
    return replace(case, attention=decision[0], feed_forward=off).define(x, (decision[1], None))


@given(cases(), st.sampled_from(MODES), st.sampled_from([0.3, 1.0, 2.5]), seeds)
@settings(max_examples=80)
def test_the_estimator_is_its_formula(case: Case, mode: str, temperature: float, seed: int) -> None:
    case = replace(case, layer=copied(case, mode=mode).train())
    case.layer.temperature = temperature
    probe = normal(np.random.default_rng(seed), *case.x.shape, dtype=torch.float64)
    inputs = [case.x.clone().requires_grad_(), *case.layer.parameters()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        want = estimator(case, inputs[0], temperature)
        torch.manual_seed(seed)
        got = case.run(x=inputs[0], gates=None)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    pairs = zip(gradients_of(got, probe, inputs), gradients_of(want, probe, inputs), strict=True)
    for gradient, wanted in pairs:  # relaxed gates are float32
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("keys", ["kept", "all"])
def test_a_gate_learns_what_turning_it_changes_in_all_frames(keys: str) -> None:
    rng = np.random.default_rng(9)
    layer = make_layer(rng, keys=keys, arbiter_input="acoustic", window=(4, 2)).train()
    layer.linear2.weight.data.zero_()  # so that attention alone changes the output
    layer.linear2.bias.data.zero_()
    layer.attention_arbiter.bias.data.zero_()
    x, probe = (normal(rng, 2, 12, 6, dtype=torch.float64) for _ in range(2))
    acoustic = normal(rng, 2, 12, 6, dtype=torch.float64).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        uniform = torch.rand(2, 12)
        torch.manual_seed(3)
        out, cost = ArbitratedEncoder(layer, 1)(x, acoustic=acoustic)
    (gradient,) = torch.autograd.grad((out * probe).sum(), acoustic)

    arbiter = layer.attention_arbiter
    soft = (arbiter(acoustic)[..., 0] + uniform.logit()).sigmoid().detach()
    on, none = cost.gates[0, 0], torch.zeros(2, 12, dtype=torch.bool)
    for batch, frame in np.ndindex(2, 12):
        losses = []
        for turned in (True, False):
            gate = on.clone()
            gate[batch, frame] = turned
            losses.append((layer(x, gates=(gate, none)) * probe).sum())
        slope = (soft * (1 - soft))[batch, frame]
        want = (losses[0] - losses[1]) * slope * arbiter.weight[0]
        torch.testing.assert_close(gradient[batch, frame], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("capacity", [None, 0.5])
def test_gates_that_are_off_learn_in_dense_mode_only(mode: str, capacity: float | None) -> None:
    rng = np.random.default_rng(6)
    layer = make_layer(rng, mode=mode, arbiter_input="acoustic", capacity=capacity).train()
    x = normal(rng, 3, 20, 6, dtype=torch.float64)
    acoustic = normal(rng, 3, 20, 6, dtype=torch.float64).requires_grad_()
    encoder = ArbitratedEncoder(layer, 1)
    out, cost = encoder(x, acoustic=acoustic)
    (gradient,) = torch.autograd.grad((out * normal(rng, *out.shape, dtype=torch.float64)).sum(), acoustic)
    ran = cost.gates[0].any(0)
    assert gradient[ran].any(1).all()
    assert gradient[~ran].any(1).all() == (mode == "dense")
    assert gradient[~ran].any() == (mode == "dense")


def test_gates_open_as_often_as_their_probability() -> None:
    layer = make_layer(np.random.default_rng(7)).train()
    layer.attention_arbiter.weight.data.zero_()
    layer.feed_forward_arbiter.weight.data.zero_()
    layer.attention_arbiter.bias.data.fill_(-1.0)
    layer.feed_forward_arbiter.bias.data.fill_(2.0)
    layer.temperature = 0.1  # of the gradient alone
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, cost = ArbitratedEncoder(layer, 1)(torch.zeros(20, 1000, 6, dtype=torch.float64))
    rates, want = cost.gates[0].double().mean((1, 2)), torch.tensor([-1.0, 2.0]).double().sigmoid()
    assert ((rates - want).abs() < 5 * (want * (1 - want) / 20000).sqrt()).all()


def test_dropout_drops_in_training_alone() -> None:
    rng = np.random.default_rng(8)
    for mode in MODES:
        layer = make_layer(rng, mode=mode, dropout=0.5)
        x, on = normal(rng, 2, 9, 6, dtype=torch.float64), torch.ones(2, 9, dtype=torch.bool)
        assert torch.equal(layer(x, gates=(on, on)), layer(x, gates=(on, on)))
        off, first = ~on, layer.train()(x, gates=(on, on))
        assert not torch.equal(first, layer(x, gates=(on, on)))
        with torch.no_grad():
            assert not torch.equal(layer(x, gates=(on, off)), layer(x, gates=(on, off)))
            assert not torch.equal(layer(x, gates=(off, on)), layer(x, gates=(off, on)))


@pytest.mark.parametrize("mode", [*MODES, "eval"])
@pytest.mark.parametrize("keys", ["kept", "all"])
@pytest.mark.parametrize("capacity", [None, 0.8])
def test_autocast_and_bfloat16(mode: str, keys: str, capacity: float | None) -> None:
    """Near float32, of the dtype that torch's layers give, with gradients of the parameters' dtype."""
    rng = np.random.default_rng(9)
    options = {"keys": keys, "capacity": capacity, "mode": mode if mode in MODES else "dense"}
    layer = make_layer(rng, 24, 3, dtype=torch.float32, **options).train(mode in MODES)
    x = normal(rng, 2, 12, 24, dtype=torch.float32)
    gates = tuple(torch.from_numpy(rng.random((2, 12)) < 0.6) for _ in range(2))
    want = layer(x, gates=gates)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            with torch.autocast("cpu", torch.bfloat16):
                got, decided = layer(x, gates=gates), layer(x)
            half = make_layer(rng, 24, 3, dtype=torch.bfloat16, **options).train(mode in MODES)
            half.load_state_dict(layer.state_dict())
            halved, own = half(x.bfloat16(), gates=gates), half(x.bfloat16())
        assert got.dtype == decided.dtype == torch.float32
        assert halved.dtype == own.dtype == torch.bfloat16
        for low in (got, halved.float()):
            assert 0 < (low - want).abs().max() < 0.15
    for run, model, frames in ((got, layer, x), (own, half, x.bfloat16())):
        with torch.autocast("cpu", torch.bfloat16, enabled=run is got):
            out = model(frames)
        out.float().square().sum().backward()
        assert all(value.grad is None or value.grad.dtype == value.dtype for value in model.parameters())
        assert model.linear1.weight.grad is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_cost_weight_closes_the_gates_that_are_not_needed(mode: str) -> None:
    """Frames that are marked must be changed; the others may pass: the cost closes these alone."""
    rng = np.random.default_rng(10)
    with torch.random.fork_rng():
        torch.manual_seed(10)
        encoder = ArbitratedEncoder(ArbitratedEncoderLayer(8, 2, 16, 0.0, mode=mode), 1)
        marked = torch.from_numpy(rng.random((8, 24)) < 0.4)
        x = 0.3 * normal(rng, 8, 24, 8, dtype=torch.float32)
        x[..., 0] = torch.where(marked, 2.0, -2.0)
        target = x.clone()
        target[..., 1:5] += torch.where(marked, 1.0, 0.0)[..., None]
        optimiser = torch.optim.Adam(encoder.parameters(), 0.02)
        for step in range(150):
            encoder.temperature = max(0.3, 1.0 - step / 100)
            out, cost = encoder(x)
            loss = (out - target).square().mean()
            optimiser.zero_grad()
            (loss + 0.3 * cost.penalty).backward()
            optimiser.step()
        with torch.no_grad():
            out, cost = encoder.eval()(x)
    passing = (x - target).square().mean()
    assert (out - target).square().mean() < 0.2 * passing
    assert cost.gates[0][:, ~marked].double().mean() < 0.1
    assert cost.gates[0][:, marked].any(0).double().mean() > 0.9
    assert cost.share < 0.6
