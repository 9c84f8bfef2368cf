"""Arbitrators of half-precision layers decide as float32 numbers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gated import make_layer
from strategies import normal
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer

HALVES = (torch.bfloat16, torch.float16)
KEEP = (0.37, 0.61)


def half_layer(dtype: torch.dtype, arbiter_input: str, norm_first: bool) -> tuple[ArbitratedEncoderLayer, Tensor]:
    """A layer whose logits lie close together, and frames that are far from 0."""
    rng = np.random.default_rng(3)
    layer = make_layer(rng, 24, 3, dtype=torch.float32, arbiter_input=arbiter_input, norm_first=norm_first, window=4)
    for arbiter in (layer.attention_arbiter, layer.feed_forward_arbiter):
        arbiter.weight.data *= 0.005
        arbiter.bias.data += 3
    return layer.to(dtype), (normal(rng, 2, 150, 24, dtype=torch.float32) + 2).to(dtype)


def float32_logits(layer: ArbitratedEncoderLayer, name: str, frames: Tensor, acoustic: Tensor) -> Tensor:
    """What the arbitrator's logits are defined to be: of the parameters and inputs as float32."""
    norm, arbiter = getattr(layer, f"{name}_norm"), getattr(layer, f"{name}_arbiter")
    frames = frames.float()
    if layer.norm_first:
        frames = F.layer_norm(frames, (layer.dim,), norm.weight.float(), norm.bias.float(), norm.eps)
    parts = {"block": [frames], "acoustic": [acoustic.float()], "both": [frames, acoustic.float()]}
    return (torch.cat(parts[layer.arbiter_input], -1) @ arbiter.weight[0].float()) + arbiter.bias.float()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("arbiter_input", ["block", "acoustic", "both"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_gates_of_halves_are_those_of_float32_logits(dtype: torch.dtype, arbiter_input: str, norm_first: bool) -> None:
    layer, x = half_layer(dtype, arbiter_input, norm_first)
    acoustic = (x - 1).flip(1)
    layer.calibrate_(x, KEEP, acoustic=acoustic)
    encoder = ArbitratedEncoder(layer, 1)
    with torch.no_grad():
        gates = encoder(x, acoustic=acoustic)[1].gates[0]
        attended = layer(x, gates=(gates[0], torch.zeros_like(gates[0])), acoustic=acoustic)
    for i, (name, frames) in enumerate((("attention", x), ("feed_forward", attended))):
        logits, threshold = float32_logits(layer, name, frames, acoustic), getattr(layer, f"{name}_threshold")
        assert threshold.dtype == torch.float32
        assert torch.equal(gates[i], logits > threshold)
        assert int(gates[i].sum()) == round(KEEP[i] * 300)
        # Compared as halves, frames would tie with the threshold.
        assert not torch.equal(gates[i], logits.to(dtype) > threshold.to(dtype))
    assert torch.equal(encoder(x, acoustic=acoustic)[1].gates[0], gates)  # with gradients


@pytest.mark.parametrize("dtype", HALVES)
def test_drawn_gates_of_halves_add_noise_to_float32_logits(dtype: torch.dtype) -> None:
    layer, x = half_layer(dtype, "both", True)
    encoder = ArbitratedEncoder(layer, 1).train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        gates = encoder(x)[1].gates[0, 0]
        torch.manual_seed(1)
        uniform = torch.rand(x.shape[:2]).clamp(1e-7, 1 - 1e-7)
    logits = float32_logits(layer, "attention", x, x)
    assert torch.equal(gates, logits + torch.log(uniform) - torch.log(1 - uniform) > 0)


@pytest.mark.parametrize("grad", [False, True])
def test_autocast_decides_in_float32(grad: bool) -> None:
    layer, x = half_layer(torch.float32, "both", True)
    layer.calibrate_(x, KEEP, acoustic=x)
    encoder = ArbitratedEncoder(layer, 1)
    with torch.set_grad_enabled(grad):
        want = encoder(x)[1].gates[0, 0]
        with torch.autocast("cpu", torch.bfloat16):
            got = encoder(x)[1].gates[0, 0]
    assert torch.equal(got, want)


def test_thresholds_stay_float32_at_least() -> None:
    layer = make_layer(np.random.default_rng(4))
    layer.attention_threshold.fill_(1 / 3)
    assert layer.attention_threshold.dtype == torch.float64
    stack = ArbitratedEncoder(layer, 2)
    for half in (stack.bfloat16(), stack.half(), stack.to(torch.bfloat16)):
        for block in half.blocks:
            assert block.linear1.weight.dtype != torch.float32
            assert block.attention_threshold.dtype == block.feed_forward_threshold.dtype == torch.float32
            assert float(block.attention_threshold) == float(torch.tensor(1 / 3))
    assert stack.to("meta").blocks[0].attention_threshold.device.type == "meta"
    stack = ArbitratedEncoder(layer.bfloat16(), 1)
    other = ArbitratedEncoder(make_layer(np.random.default_rng(5), dtype=torch.bfloat16), 1)
    assert other.blocks[0].attention_threshold.dtype == torch.float32
    other.load_state_dict(stack.state_dict())
    assert torch.equal(other.blocks[0].attention_threshold, torch.tensor(1 / 3))
    assert stack.double().blocks[0].attention_threshold.dtype == torch.float64
