"""Gated layers give what the masked dense definition gives, and torch's layers where everything is on."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, copied, draw_weights_, make_layer
from strategies import normal, seeds
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer, gating, linear

TOLERANCE = 1e-11


def assert_close(got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


@given(cases())
@settings(max_examples=150)
def test_every_way_to_compute_equals_the_definition(case: Case) -> None:
    want = case.define()
    with torch.no_grad():
        assert_close(case.run(), want)
        assert_close(case.run(copied(case, capacity=1.0)), want)
        assert_close(case.run(copied(case, capacity=20)), want)
        assert_close(case.run(copied(case, mode="compact").train()), want)
    assert_close(case.run(), want)
    assert_close(case.run(copied(case, mode="dense").train()), want)
    assert_close(case.run(copied(case, mode="compact").train()), want)
    assert_close(case.run(copied(case, mode="compact", capacity=1.0).train()), want)


@given(cases())
@settings(max_examples=30)
def test_float32_equals_the_definition(case: Case) -> None:
    want = case.define()
    mask = case.mask if case.mask is None or case.mask.dtype == torch.bool else case.mask.float()
    with torch.no_grad():
        got = case.run(copied(case).float(), case.x.float(), src_mask=mask)
    assert_close(got.double(), want, 2e-5)


@given(cases())
@settings(max_examples=30)
def test_all_off_is_the_identity(case: Case) -> None:
    off = torch.zeros_like(case.attention)
    with torch.no_grad():
        assert torch.equal(case.run(gates=(off, off)), case.x)
    for mode in ("dense", "compact"):
        assert torch.equal(case.run(copied(case, mode=mode).train(), gates=(off, off)), case.x)


def torch_layer(rng: np.random.Generator, **options: object) -> torch.nn.TransformerEncoderLayer:
    options = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64, **options}
    layer = torch.nn.TransformerEncoderLayer(24, 3, 50, **options).eval()
    draw_weights_(layer, rng)
    return layer


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keys", ["kept", "all"])
def test_from_torch_gives_what_torch_gives(norm_first: bool, activation: object, bias: bool, keys: str) -> None:
    rng = np.random.default_rng(0)
    dense = torch_layer(rng, norm_first=norm_first, activation=activation, bias=bias, layer_norm_eps=1e-3)
    layer = ArbitratedEncoderLayer.from_torch(dense, keys=keys)
    assert not layer.training
    assert ArbitratedEncoderLayer.from_torch(dense.train()).training
    dense.eval()
    x, on = normal(rng, 3, 11, 24, dtype=torch.float64), torch.ones(3, 11, dtype=torch.bool)
    padding = torch.arange(11) >= torch.tensor([11, 7, 1])[:, None]
    causal = torch.nn.Transformer.generate_square_subsequent_mask(11, dtype=torch.float64)
    for options in ({}, {"src_mask": causal}, {"src_mask": causal, "is_causal": True}):
        with torch.no_grad():
            assert_close(layer(x, gates=(on, on), **options), dense(x, **options))
            got = layer(x, gates=(on, on), src_key_padding_mask=padding, **options)
            padded = {k: v if k != "src_mask" else v == -torch.inf for k, v in options.items()}
            want = dense(x, src_key_padding_mask=padding, **padded)
        assert_close(got[~padding], want[~padding])
        assert torch.equal(got[padding], x[padding])


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torch_encoder_calls_our_layers(norm_first: bool, batch_first: bool) -> None:
    """With the arguments that torch.nn.TransformerEncoder passes on, as with torch's own layers."""
    rng = np.random.default_rng(1)
    dense = torch_layer(rng, norm_first=norm_first, batch_first=batch_first)
    layer = ArbitratedEncoderLayer.from_torch(dense)
    layer.attention_threshold.fill_(-torch.inf)
    layer.feed_forward_threshold.fill_(-torch.inf)
    norm = torch.nn.LayerNorm(24, dtype=torch.float64)
    stacks = [torch.nn.TransformerEncoder(part, 3, norm, enable_nested_tensor=False) for part in (layer, dense)]
    x = normal(rng, 2, 9, 24, dtype=torch.float64)
    x = x if batch_first else x.transpose(0, 1)
    padding = torch.arange(9) >= torch.tensor([9, 4])[:, None]
    hidden = torch.ones(9, 9, dtype=torch.bool).triu(1)
    scattered = torch.from_numpy(rng.random((9, 9)) < 0.3) & ~torch.eye(9, dtype=torch.bool)
    for options in (
        {}, {"mask": hidden}, {"mask": hidden, "is_causal": True}, {"mask": scattered}, {"src_key_padding_mask": padding},
        {"mask": hidden, "src_key_padding_mask": padding},
    ):  # fmt: skip
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                got, want = (stack.eval()(x, **options) for stack in stacks)
            keep = ~padding if "src_key_padding_mask" in options else torch.ones_like(padding)
            keep = keep if batch_first else keep.T
            assert_close(got[keep], want[keep])


def test_from_torch_encoder() -> None:
    rng = np.random.default_rng(2)
    dense = torch.nn.TransformerEncoder(
        torch_layer(rng), 2, torch.nn.LayerNorm(24, dtype=torch.float64), enable_nested_tensor=False
    )
    draw_weights_(dense, rng)
    ours = ArbitratedEncoder.from_torch(dense.eval(), keys="all")
    x, on = normal(rng, 2, 7, 24, dtype=torch.float64), torch.ones(2, 2, 2, 7, dtype=torch.bool)
    with torch.no_grad():
        assert_close(ours(x, gates=on)[0], dense(x))
    ours.blocks[0].linear1.weight.data.zero_()
    assert dense.layers[0].linear1.weight.any()


def test_parameters_are_named_as_torch_names_them() -> None:
    dense, ours = torch.nn.TransformerEncoderLayer(8, 2, 16), ArbitratedEncoderLayer(8, 2, 16)
    added = {f"{part}_{name}" for part in ("attention", "feed_forward")
             for name in ("arbiter.weight", "arbiter.bias", "threshold")}  # fmt: skip
    assert set(ours.state_dict()) == set(dense.state_dict()) | added
    assert {k: v.shape for k, v in dense.state_dict().items()}.items() <= {
        k: v.shape for k, v in ours.state_dict().items()
    }.items()
    x = torch.ones(2, 5, 8)
    _, cost = ArbitratedEncoder(ours, 2).eval()(x)
    assert cost.gates.all()  # a new arbitrator leaves everything on


@given(cases())
@settings(max_examples=40)
def test_arbitrators_decide_as_forced_gates_do(case: Case) -> None:
    """Each gate is its logit's sign; forcing the same gates gives the same bits."""
    encoder = ArbitratedEncoder(case.layer, 1)
    arguments = {"mask": case.mask, "src_key_padding_mask": case.padding, "is_causal": case.is_causal}
    x = {"time first": case.x.transpose(0, 1), "unbatched": case.x[0] if len(case.x) else None}.get(case.layout, case.x)
    with torch.no_grad():
        got, cost = encoder(x, **arguments)
        attention, feed_forward = cost.gates[0]
        again, forced = encoder(x, gates=cost.gates, **arguments)
        layer, inputs = encoder.blocks[0], case.x
        for name, on in (("attention", attention), ("feed_forward", feed_forward)):
            arbiter, norm = getattr(layer, f"{name}_arbiter"), getattr(layer, f"{name}_norm")
            logits = arbiter(norm(inputs) if layer.norm_first else inputs)[..., 0]
            clear = logits.abs() > 1e-9
            assert torch.equal(on[clear], ((logits > 0) & case.valid)[clear])
            inputs = case.run(layer, gates=(attention, torch.zeros_like(attention)))
        alone = case.run(layer, gates=None)
    assert torch.equal(got, again)
    assert torch.equal(cost.gates, forced.gates)
    laid_out = {"time first": alone.transpose(0, 1), "unbatched": alone[0] if len(alone) else None}
    assert torch.equal(got, laid_out.get(case.layout, alone))


@pytest.mark.parametrize("arbiter_input", ["acoustic", "both"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_arbitrators_hear_the_acoustic_input(arbiter_input: str, norm_first: bool) -> None:
    rng = np.random.default_rng(3)
    layer = make_layer(rng, arbiter_input=arbiter_input, acoustic_dim=4, norm_first=norm_first)
    x, acoustic = normal(rng, 2, 40, 6, dtype=torch.float64), normal(rng, 2, 40, 4, dtype=torch.float64)
    read = layer.norm1(x) if norm_first else x
    read = acoustic if arbiter_input == "acoustic" else torch.cat([read, acoustic], -1)
    want = layer.attention_arbiter(read)[..., 0] > 0
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            _, cost = ArbitratedEncoder(layer, 1)(x, acoustic=acoustic)
        assert torch.equal(cost.gates[0, 0], want)
    assert 0 < want.sum() < want.numel()
    for bad in (None, acoustic[:, 1:], x):
        with pytest.raises(ValueError, match=r"acoustic"):
            layer(x, acoustic=bad)
    acoustic[1, 3] = torch.nan
    gates = ArbitratedEncoder(layer, 1)(x, acoustic=acoustic)[1].gates[0, 0]
    want[1, 3] = False
    assert torch.equal(gates, want)


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.booleans(), seeds)
@settings(max_examples=30)
def test_calibration_keeps_exact_shares(
    frames: int, attend: float, transform: float, norm_first: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    layer = make_layer(rng, norm_first=norm_first)
    encoder = ArbitratedEncoder(layer, 2).train()
    x = normal(rng, 2, frames, 6, dtype=torch.float64)
    padding = torch.arange(frames) >= torch.tensor([frames, int(rng.integers(0, frames + 1))])[:, None]
    assert encoder.calibrate_(x, (attend, transform), src_key_padding_mask=padding) is encoder
    assert all(module.training for module in encoder.modules())
    wanted = [round(share * int((~padding).sum())) for share in (attend, transform)]
    for grad in (True, False):  # logits are then summed in another order
        with torch.set_grad_enabled(grad):
            _, cost = encoder.eval()(x, src_key_padding_mask=padding)
        assert cost.gates.sum((2, 3)).tolist() == [wanted, wanted]
    with torch.no_grad():
        layer.calibrate_(x, (attend, transform), src_key_padding_mask=padding)
    assert torch.equal(layer.attention_threshold, encoder.blocks[0].attention_threshold)
    assert torch.equal(layer.feed_forward_threshold, encoder.blocks[0].feed_forward_threshold)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"src_mask": torch.ones(20, 20).tril(3).bool()}])
def test_calibration_attends_as_it_is_told(options: dict[str, Any]) -> None:
    """What the second arbitrator sees depends on it."""
    rng = np.random.default_rng(8)
    layer = make_layer(rng)
    x = normal(rng, 2, 20, 6, dtype=torch.float64)
    options = {name: ~value if name == "src_mask" else value for name, value in options.items()}
    layer.calibrate_(x, (0.5, 0.5), **options)
    encoder = ArbitratedEncoder(layer, 1)
    told = {name.removeprefix("src_"): value for name, value in options.items()}
    with torch.no_grad():
        assert encoder(x, **told)[1].gates.sum((2, 3)).tolist() == [[20, 20]]
        other = layer.feed_forward_threshold.clone()
        layer.calibrate_(x, (0.5, 0.5))
    assert not torch.equal(layer.feed_forward_threshold, other)


@pytest.mark.parametrize("how", ["eval", "compact", "capacity"])
@pytest.mark.parametrize("keys", ["kept", "all"])
def test_frames_that_are_off_reach_no_product(how: str, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    layer = make_layer(rng, keys=keys, mode="compact", capacity=4 if how == "capacity" else None).train(
        how == "compact"
    )
    x, gates = normal(rng, 2, 9, 6, dtype=torch.float64), torch.zeros(2, 2, 9, dtype=torch.bool)
    gates[0, :, 2:5], gates[1, :, 1:3] = True, True
    rows: dict[tuple[int, ...], int] = {}
    plain = linear.linear

    def counted(part: Tensor, weight: Tensor, *more: Any) -> Tensor:
        rows[tuple(weight.shape)] = part.shape[:-1].numel()
        return plain(part, weight, *more)

    for module in (gating, linear):
        monkeypatch.setattr(module, "linear", counted)
    layer(x, gates=(gates[0], gates[1]))
    attended, transformed = (8, 8) if how == "capacity" else (6, 4)
    projections = {(18, 6): attended} if keys == "kept" else {(6, 6): attended, (12, 6): 18}
    hidden = layer.feed_forward_dim
    assert rows == {**projections, (6, 6): attended, (hidden, 6): transformed, (6, hidden): transformed}


def test_frozen_parameters_stay_frozen() -> None:
    layer = torch.nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    layer.linear1.weight.requires_grad_(False)
    frozen = [
        name for name, part in ArbitratedEncoderLayer.from_torch(layer).named_parameters() if not part.requires_grad
    ]
    assert frozen == ["linear1.weight"]


def test_errors_of_calibration() -> None:
    layer, x = make_layer(np.random.default_rng(0)), torch.ones(1, 3, 6, dtype=torch.float64)
    for keep in ((0.5, 1.1), (-0.1, 0.5), (0.5,), 0.4, (None, 0.4)):
        with pytest.raises(ValueError, match=r"calibrate_: keep must be two shares in 0\.\.1"):
            layer.calibrate_(x, keep)
    with pytest.raises(ValueError, match=r"x must hold at least one frame that is not padding, got \[1, 0, 6\]"):
        layer.calibrate_(x[:, :0], (0.5, 0.5))
    x[0, 0, 0] = torch.nan
    layer.calibrate_(x, (1.0, 1.0))
    assert ArbitratedEncoder(layer, 1)(x)[1].gates[0, :, 0].tolist() == [[False, True, True]] * 2


@given(cases(masks=False), st.sampled_from([torch.nan, torch.inf]), seeds)
@settings(max_examples=40)
def test_not_a_number_stays_in_its_frame(case: Case, bad: float, seed: int) -> None:
    """Forward and backward, forced on or padded: nobody else sees it, and weights get gradients."""
    if not case.x.numel():
        return
    rng = np.random.default_rng(seed)
    b, t = (int(rng.integers(size)) for size in case.x.shape[:2])
    x, others = case.x.clone(), torch.ones_like(case.attention)
    x[b, t, int(rng.integers(x.shape[2]))], others[b, t] = bad, False
    at = torch.zeros_like(others).index_put((torch.tensor(b), torch.tensor(t)), torch.tensor(True))
    alone = Case(**{**vars(case), "padding": ~case.valid | at})
    for layer in (case.layer, copied(case, capacity=1.0), copied(case).train(), copied(case, mode="compact").train()):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                got, want = case.run(layer, x), alone.run(layer, case.x)
            assert torch.equal(got[others], want[others])
            assert torch.equal(got[b, t].isnan(), x[b, t].isnan())
        out = case.run(layer, x, gates=None)
        gradients = torch.autograd.grad(out[others].sum(), list(layer.parameters()), allow_unused=True)
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


def test_large_half_values_are_finite() -> None:
    """Their sum over a frame is not, in float16."""
    layer = ArbitratedEncoderLayer(64, 2, 16, dtype=torch.float16).eval()
    layer.attention_threshold.fill_(-torch.inf)
    _, cost = ArbitratedEncoder(layer, 1)(torch.full((1, 2, 64), 3000.0, dtype=torch.float16))
    assert cost.gates[:, 0].all()


@given(cases())
@settings(max_examples=30)
def test_a_sequence_keeps_its_bits_in_a_batch(case: Case) -> None:
    """Gates and costs exactly; outputs too where products of matrices do not depend on their rows' number."""
    if case.layout == "unbatched" or case.mask is not None or len(case.x) < 2:
        return
    layer = copied(case, batch_first=True)
    encoder = ArbitratedEncoder(layer, 2)
    with torch.no_grad():
        whole, cost = encoder(case.x, src_key_padding_mask=case.padding)
        for b in range(len(case.x)):
            padding = None if case.padding is None else case.padding[b : b + 1]
            alone, own = encoder(case.x[b : b + 1], src_key_padding_mask=padding)
            assert torch.equal(own.gates[:, :, 0], cost.gates[:, :, b])
            assert torch.equal(own.multiply_adds[:, 0], cost.multiply_adds[:, b])
            assert_close(alone[0], whole[b])


def test_deepcopy_and_state_dict(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    encoder = ArbitratedEncoder(make_layer(rng, window=3), 2).eval()
    x = normal(rng, 2, 30, 6, dtype=torch.float64)
    encoder.calibrate_(x, (0.4, 0.7)).temperature = 0.3
    want, cost = encoder(x)
    twin = copy.deepcopy(encoder)
    assert twin.temperature == 0.3
    safetensors.torch.save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    fresh = ArbitratedEncoder(make_layer(rng, window=3), 2).eval()
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    for other in (twin, fresh):
        got, again = other(x)
        assert torch.equal(got, want)
        assert torch.equal(again.gates, cost.gates)


def test_torch_encoder_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = torch.nn.TransformerEncoder(ArbitratedEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False).eval()
        with torch.no_grad():
            assert stack(torch.ones(1, 3, 8), src_key_padding_mask=torch.zeros(1, 3, dtype=torch.bool)).shape == (
                1,
                3,
                8,
            )
