"""Capacity, export, compilation and the checks of gated layers."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, copied, make_layer
from strategies import normal, seeds
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer, block
from tercet.ops import gating

MODES = ("dense", "compact", "eval")


def first_of(on: Tensor, capacity: int | float) -> Tensor:
    """`on` without the frames beyond capacity, in each sequence the last ones."""
    size = capacity if isinstance(capacity, int) else math.ceil(round(capacity * on.shape[1], 6))
    kept = torch.zeros_like(on)
    for b, row in enumerate(on.tolist()):
        kept[b, [t for t, each in enumerate(row) if each][:size]] = True
    return kept


@given(cases(), st.sampled_from([1, 2, 4, 0.1, 0.25, 0.3, 0.5, 1.0]), st.sampled_from(MODES))
@settings(max_examples=80)
def test_frames_beyond_capacity_are_off(case: Case, capacity: int | float, mode: str) -> None:
    options = {"mode": "dense" if mode == "eval" else mode, "capacity": capacity}
    layer = copied(case, **options).train(mode != "eval")
    attention, feed_forward = (first_of(on & case.valid, capacity) for on in case.gates)
    want = replace(case, attention=attention, feed_forward=feed_forward).define()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(case.run(layer), want, rtol=0, atol=1e-11)
    encoder = ArbitratedEncoder(layer, 1).train(layer.training)
    x = {"time first": case.x.transpose(0, 1), "unbatched": case.x[0] if len(case.x) else None}.get(case.layout, case.x)
    arguments = {"mask": case.mask, "src_key_padding_mask": case.padding, "is_causal": case.is_causal}
    _, cost = encoder(x, gates=[case.gates], **arguments)
    assert torch.equal(cost.gates[0], torch.stack([attention, feed_forward]))


@given(cases(masks=False), st.sampled_from([3, 0.5]))
@settings(max_examples=30)
def test_decisions_within_capacity(case: Case, capacity: int | float) -> None:
    """The first frames that the arbitrators of attention open are those of exact mode."""
    if case.layout != "batch first":
        return
    encoders = [ArbitratedEncoder(copied(case, capacity=size), 1) for size in (capacity, 1.0, None)]
    with torch.no_grad():
        few, whole, exact = (encoder(case.x, src_key_padding_mask=case.padding)[1].gates[0] for encoder in encoders)
    assert torch.equal(few[0], first_of(exact[0], capacity))
    assert torch.equal(whole, exact)
    for mode in ("dense", "compact"):  # drawn gates are cut as well
        layers = [copied(case, capacity=size, mode=mode).train() for size in (capacity, None)]
        with torch.random.fork_rng():
            torch.manual_seed(len(case.x))
            drawn = ArbitratedEncoder(layers[0], 1)(case.x, src_key_padding_mask=case.padding)[1].gates[0]
            torch.manual_seed(len(case.x))
            free = ArbitratedEncoder(layers[1], 1)(case.x, src_key_padding_mask=case.padding)[1].gates[0]
        assert torch.equal(drawn[0], first_of(free[0], capacity))
        assert drawn[1].sum(1).tolist() == first_of(drawn[1], capacity).sum(1).tolist()


def exported(layer: torch.nn.Module, x: Tensor, dynamic: bool) -> Any:
    sizes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},) if dynamic else None
    with torch.no_grad():
        return torch.export.export(layer, (x,), dynamic_shapes=sizes)


@pytest.mark.parametrize("capacity", [None, 3, 0.5])
@pytest.mark.parametrize("keys", ["kept", "all"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_export(capacity: int | float | None, keys: str, norm_first: bool) -> None:
    """Of an eval layer, for any batch and number of frames; with capacity no size depends on data."""
    rng = np.random.default_rng(0)
    layer = make_layer(rng, keys=keys, norm_first=norm_first, capacity=capacity, window=(2, 1), dtype=torch.float32)
    program = exported(layer, normal(rng, 2, 5, 6, dtype=torch.float32), dynamic=True)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    data_dependent = {"aten.nonzero.default", "aten._local_scalar_dense.default", "aten.item.default"}
    assert bool(called & data_dependent) == (capacity is None)
    module = program.module()
    for shape in ((2, 5), (3, 9), (1, 4)):
        x = normal(rng, *shape, 6, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(module(x), layer(x), rtol=0, atol=1e-5)


def test_export_of_a_stack() -> None:
    rng = np.random.default_rng(1)
    encoder = ArbitratedEncoder(make_layer(rng, causal=True, window=4, dtype=torch.float32), 2).eval()

    class Output(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            out, cost = self.encoder(x)
            return out, cost.gates

    module = exported(Output(), torch.zeros(2, 8, 6), dynamic=True).module()
    x = normal(rng, 3, 12, 6, dtype=torch.float32)
    with torch.no_grad():
        want, cost = encoder(x)
    out, gates = module(x)
    torch.testing.assert_close(out, want, rtol=0, atol=1e-5)
    assert torch.equal(gates, cost.gates)
    assert 0 < gates.sum() < gates.numel()


@pytest.mark.parametrize("keys", ["kept", "all"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_export_with_masks(keys: str, kind: str) -> None:
    """The caller's mask and padding, of any batch and number of frames."""
    rng = np.random.default_rng(4)
    layer = make_layer(rng, keys=keys, dtype=torch.float32)

    def inputs(batch: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden = torch.from_numpy(rng.random((frames, frames)) < 0.3) & ~torch.eye(frames, dtype=torch.bool)
        mask = (
            hidden
            if kind == "bool"
            else normal(rng, frames, frames, dtype=torch.float32).masked_fill(hidden, -torch.inf)
        )
        return (
            normal(rng, batch, frames, 6, dtype=torch.float32),
            mask,
            torch.from_numpy(rng.random((batch, frames)) < 0.2),
        )

    batch, frames = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    sizes = ({0: batch, 1: frames}, {0: frames, 1: frames}, {0: batch, 1: frames})
    with torch.no_grad():
        module = torch.export.export(layer, inputs(2, 5), dynamic_shapes=sizes).module()
        for shape in ((2, 5), (3, 9)):
            given_inputs = inputs(*shape)
            torch.testing.assert_close(module(*given_inputs), layer(*given_inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_capacity_compiles_in_one_graph(training: bool) -> None:
    rng = np.random.default_rng(2)
    layer = make_layer(rng, capacity=0.5, mode="compact").train(training)
    gates = tuple(torch.from_numpy(rng.random((2, 9)) < 0.6) for _ in range(2))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = normal(rng, 2, 9, 6, dtype=torch.float64)
    got, want = compiled(x, gates=gates), layer(x, gates=gates)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    weights = [value for name, value in layer.named_parameters() if "arbiter" not in name]
    torch.testing.assert_close(*(torch.autograd.grad(out.sum(), weights) for out in (got, want)))


def test_exact_mode_uses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients logits and attention are ours; with them, or with a caller's mask, attention is torch's."""
    rng, called = np.random.default_rng(3), []
    for module, name in ((gating, "_arbiter_logits"), (block, "kept_attention_op")):
        op = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, op=op, name=name: called.append(name) or op(*args))
    layer, x = make_layer(rng), normal(rng, 1, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        layer(x)
    assert sorted(called) == ["_arbiter_logits", "_arbiter_logits", "kept_attention_op"]
    called.clear()
    layer(x)
    assert not called
    with torch.no_grad():
        layer(x, torch.zeros(5, 5))
    assert sorted(called) == ["_arbiter_logits", "_arbiter_logits"]


@given(cases(masks=False), st.integers(1, 3), seeds)
@settings(max_examples=30)
def test_a_stack_is_its_layers_in_turn(case: Case, num_layers: int, seed: int) -> None:
    if case.layout != "batch first":
        return
    rng = np.random.default_rng(seed)
    encoder = ArbitratedEncoder(case.layer, num_layers, torch.nn.LayerNorm(case.layer.dim, dtype=torch.float64))
    assert len({id(value) for value in encoder.parameters()}) == num_layers * len(list(case.layer.parameters())) + 2
    gates = torch.from_numpy(rng.random((num_layers, 2, *case.attention.shape)) < 0.5)
    with torch.no_grad():
        want = case.x
        for i in range(num_layers):
            want = replace(case, attention=gates[i, 0], feed_forward=gates[i, 1]).define(want)
        want = encoder.norm(want)
        for given_gates in (gates, [tuple(pair) for pair in gates]):
            got, _ = encoder(case.x, src_key_padding_mask=case.padding, gates=given_gates)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-10)


ON = torch.ones(2, 5, dtype=torch.bool)
X = torch.zeros(2, 5, 6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"src": [1.0]}, TypeError, "src must be a torch.Tensor, got list"),
        ({"src": X[..., :5]}, ValueError, "src must be [B, T, 6], got [2, 5, 5]"),
        ({"src": X[0, 0]}, ValueError, "src must be [B, T, 6], got [6]"),
        ({"gates": (ON,)}, ValueError, "gates must be (attention, feed_forward), got 1 of them"),
        ({"gates": (ON, ON, ON)}, ValueError, "gates must be (attention, feed_forward), got 3 of them"),
        ({"gates": (ON, ON.float())}, TypeError, "feed-forward gates must be bool, got torch.float32"),
        ({"gates": (None, ON)}, TypeError, "attention gates must be bool, got NoneType"),
        ({"gates": (ON[:1], ON)}, ValueError, "attention gates must be [B, T] = [2, 5], got [1, 5]"),
        ({"gates": (ON, ON[:, :4])}, ValueError, "feed-forward gates must be [B, T] = [2, 5], got [2, 4]"),
        ({"gates": (ON, ON[..., None])}, ValueError, "feed-forward gates must be [B, T] = [2, 5], got [2, 5, 1]"),
        ({"src_key_padding_mask": ON[:, :3]}, ValueError, "src_key_padding_mask must be [B, T] = [2, 5], got [2, 3]"),
        ({"src_key_padding_mask": torch.ones(2, 7) > 0}, ValueError, "src_key_padding_mask must be [B, T] = [2, 5], got [2, 7]"),
        ({"src_key_padding_mask": ON.long()}, TypeError, "src_key_padding_mask must be bool or floating, got torch.int64"),
        ({"src_mask": ON}, ValueError, "src_mask must be [5, 5] or [4, 5, 5], got [2, 5]"),
        ({"src_mask": torch.zeros(2, 5, 5)}, ValueError, "src_mask must be [5, 5] or [4, 5, 5], got [2, 5, 5]"),
        ({"src_mask": torch.zeros(5, 5).int()}, TypeError, "src_mask must be bool or floating, got torch.int32"),
    ],
)  # fmt: skip
def test_errors_of_forward(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    layer = ArbitratedEncoderLayer(6, 2, 8).eval()
    with pytest.raises(error, match=re.escape(f"tercet.nn.ArbitratedEncoderLayer: {message}")):
        layer(**{"src": X, **arguments})


def test_errors_of_time_first_and_unbatched() -> None:
    layer = ArbitratedEncoderLayer(6, 2, 8, batch_first=False).eval()
    with pytest.raises(ValueError, match=re.escape("src must be [T, B, 6], got [5, 2, 4]")):
        layer(torch.zeros(5, 2, 4))
    with pytest.raises(ValueError, match=re.escape("attention gates must be [B, T] = [2, 5], got [5, 2]")):
        layer(X.transpose(0, 1), gates=(ON.T, ON.T))
    with pytest.raises(ValueError, match=re.escape("attention gates must be [B, T] = [1, 5], got [2, 5]")):
        layer(X[0], gates=(ON, ON))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "some"}, "keys must be one of kept, all, got 'some'"),
        ({"mode": "sparse"}, "mode must be one of dense, compact, got 'sparse'"),
        ({"arbiter_input": "src"}, "arbiter_input must be one of block, acoustic, both, got 'src'"),
        ({"activation": "tanh"}, "activation must be relu, gelu or a function, got 'tanh'"),
        ({"window": -1}, "window must be frames to the left and right, none negative, got -1"),
        ({"window": (3, -2)}, "window must be frames to the left and right, none negative, got (3, -2)"),
        ({"window": 2.5}, "window must be frames to the left and right, none negative, got 2.5"),
        ({"window": ()}, "window must be frames to the left and right, none negative, got ()"),
        ({"window": (2.5, 0)}, "window must be frames to the left and right, none negative, got (2.5, 0)"),
        ({"window": "5"}, "window must be frames to the left and right, none negative, got '5'"),
        ({"window": (3, 1), "causal": True}, "causal=True sees no frame to the right, got window (3, 1)"),
        ({"capacity": 0}, "capacity must be a number of frames or a share in (0, 1], got 0"),
        ({"capacity": 1.5}, "capacity must be a number of frames or a share in (0, 1], got 1.5"),
        ({"capacity": True}, "capacity must be a number of frames or a share in (0, 1], got True"),
        ({"capacity": "1"}, "capacity must be a number of frames or a share in (0, 1], got 1"),
    ],
)
def test_errors_of_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"tercet.nn.ArbitratedEncoderLayer: {message}")):
        ArbitratedEncoderLayer(6, 2, 8, **options)


def test_errors_of_the_encoder() -> None:
    name, layer = "tercet.nn.ArbitratedEncoder", ArbitratedEncoderLayer(6, 2, 8).eval()
    with pytest.raises(TypeError, match=f"{name}: encoder_layer must be an ArbitratedEncoderLayer, got Linear"):
        ArbitratedEncoder(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match=f"{name}: num_layers must be positive, got 0"):
        ArbitratedEncoder(layer, 0)
    encoder = ArbitratedEncoder(layer, 3)
    gates = torch.ones(3, 2, 2, 5, dtype=torch.bool)
    for wrong, error, message in (
        (gates[:2], ValueError, "gates must hold a pair for each of 3 layers, got 2"),
        (gates[:, :1], ValueError, "gates must be (attention, feed_forward), got 1 of them"),
        (gates[..., :4], ValueError, "attention gates must be [B, T] = [2, 5], got [2, 4]"),
        (gates.double(), TypeError, "attention gates must be bool, got torch.float64"),
        ([(ON, ON)] * 2 + [(ON, 1)], TypeError, "feed-forward gates must be bool, got int"),
        (3, ValueError, "gates must hold a pair for each of 3 layers, got int"),
        ([True] * 3, ValueError, "gates must be (attention, feed_forward), got bool"),
    ):
        with pytest.raises(error, match=re.escape(f"{name}: {message}")):
            encoder(X, gates=wrong)
    with pytest.raises(ValueError, match=re.escape(f"{name}: src must be [B, T, 6], got [2, 5, 5]")):
        encoder(X[..., :5])
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=f"ArbitratedEncoderLayer: temperature must be finite and above 0, got {wrong}"
        ):
            encoder.temperature = wrong
    with pytest.raises(TypeError, match=f"{name}: src_key_padding_mask must be a torch.Tensor, got list"):
        encoder(X, src_key_padding_mask=[[False] * 5] * 2)
    with pytest.raises(TypeError, match=r"tercet\.nn: acoustic must be a torch\.Tensor, got list"):
        encoder(X, acoustic=[1.0])
    encoder.temperature = 0.25
    assert [block.temperature for block in encoder.blocks] == [0.25] * 3
    assert encoder.temperature == 0.25
