"""A stack stepped frame by frame or chunk by chunk gives what it gives with all frames at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tercet.files import write_tensors
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer, StreamState

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}


def make(dim: int = 24, heads: int = 3, blocks: int = 2, window: int = 5, **options: Any) -> ArbitratedEncoder:
    """A stack whose arbitrators are undecided: about half of the gates are on."""
    options = {"dim_feedforward": 2 * dim + 5, "causal": True, "window": window, "dtype": torch.float64, **options}
    layer = ArbitratedEncoderLayer(dim, heads, **options)
    encoder = ArbitratedEncoder(layer, blocks, torch.nn.LayerNorm(dim, dtype=options["dtype"])).eval()
    for block in encoder.blocks:
        for name, value in block.named_parameters():
            if name.endswith("weight"):
                torch.nn.init.normal_(value, std=value.shape[-1] ** -0.5)
            else:
                torch.nn.init.normal_(value, std=0.3)
        for arbiter in (block.attention_arbiter, block.feed_forward_arbiter):
            torch.nn.init.zeros_(arbiter.bias)
    return encoder


def stepped(encoder: ArbitratedEncoder, frames: Tensor, chunks: list[int], **options: Any) -> tuple[Tensor, Tensor]:
    """The outputs of all steps, and the gates, side by side."""
    state = encoder.initial_state(len(frames))
    out, gates = [], []
    for part in frames.split(chunks, 1):
        frame, state = encoder.step(part, state, **options)
        out.append(frame)
        gates.append(state.gates)
    assert state.positions.tolist() == [frames.shape[1]] * len(frames)
    return torch.cat(out, 1), torch.cat(gates, -1)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[list[int], dict[str, Any], int, int]:
    """Chunks (of a frame, of none, of more than fit native code), options of the stack, streams and a seed."""
    chunks = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 9, 14]), min_size=1, max_size=12))
    options = {
        "keys": draw(st.sampled_from(["kept", "all"])),
        "norm_first": draw(st.booleans()),
        "arbiter_input": draw(st.sampled_from(["block", "acoustic", "both"])),
        "activation": draw(st.sampled_from(["relu", "gelu", F.silu])),
        "bias": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "window": draw(st.sampled_from([0, 1, 4, 50])),
    }
    options["dim"], options["heads"] = draw(st.sampled_from([(6, 2), (24, 3), (64, 1)]))
    return chunks, options, draw(st.integers(1, 10)), draw(st.integers(0, 2**31))


@given(chunked())
def test_steps_equal_the_offline_result(case: tuple[list[int], dict[str, Any], int, int]) -> None:
    chunks, options, streams, seed = case
    torch.manual_seed(seed)
    encoder = make(**options)
    frames = torch.randn(streams, sum(chunks), options["dim"], dtype=options["dtype"])
    with torch.no_grad():
        want, cost = encoder(frames)
    got, gates = stepped(encoder, frames, chunks)
    assert torch.equal(gates, cost.gates)
    torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE[options["dtype"]])


def test_results_depend_on_neither_threads_nor_other_streams() -> None:
    torch.manual_seed(0)
    encoder = make(dim=320, heads=4, dtype=torch.float32)
    frames = torch.randn(7, 9, 320)
    whole, gates = stepped(encoder, frames, [1] * 9, num_threads=1)
    threaded, _ = stepped(encoder, frames, [1] * 9, num_threads=3)
    assert torch.equal(whole, threaded)
    for i in range(7):
        alone, own = stepped(encoder, frames[i : i + 1], [1] * 9)
        assert torch.equal(alone[0], whole[i])
        assert torch.equal(own[:, :, 0], gates[:, :, i])


def test_a_nan_stays_in_its_frame() -> None:
    torch.manual_seed(0)
    encoder = make()
    frames = torch.randn(2, 12, 24, dtype=torch.float64)
    frames[1, 4, 3], frames[0, 6, 1] = torch.nan, torch.inf
    for chunks in ([1] * 12, [12], [5, 7]):
        out, gates = stepped(encoder, frames, chunks)
        finite = torch.ones(2, 12, dtype=torch.bool)
        finite[1, 4] = finite[0, 6] = False
        assert torch.equal(out.isfinite().all(-1), finite)
        assert not gates[:, :, 1, 4].any()


def test_closed_gates_leave_frames_as_they_are() -> None:
    encoder = make()
    encoder.norm = None
    frames = torch.randn(1, 6, 24, dtype=torch.float64)
    encoder.calibrate_(frames, keep=(0.0, 0.0))
    out, gates = stepped(encoder, frames, [1] * 6)
    assert torch.equal(out, frames)
    assert not gates.any()


def test_streams_are_reset_one_by_one() -> None:
    torch.manual_seed(0)
    encoder = make()
    frames = torch.randn(3, 8, 24, dtype=torch.float64)
    state = encoder.initial_state(3)
    encoder.step(frames, state)
    state.reset_([1])
    assert state.positions.tolist() == [8, 0, 8]
    again, _ = encoder.step(frames, state)
    fresh, _ = encoder.step(frames, encoder.initial_state(3))
    torch.testing.assert_close(again[1], fresh[1], rtol=0, atol=1e-11)
    assert not torch.allclose(again[0], fresh[0])
    state.reset_()
    assert torch.equal(encoder.step(frames, state)[0], fresh)


@pytest.mark.parametrize("chunk", [1, 12])
def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path, chunk: int) -> None:
    torch.manual_seed(0)
    encoder = make()
    frames = torch.randn(2, 24, 24, dtype=torch.float64)
    state = encoder.initial_state(2)
    for part in frames[:, :12].split(chunk, 1):
        encoder.step(part, state)
    state.save(tmp_path / "state.safetensors")
    loaded = StreamState.load(tmp_path / "state.safetensors")
    for part in frames[:, 12:].split(chunk, 1):
        assert torch.equal(encoder.step(part, state)[0], encoder.step(part, loaded)[0])


def test_weights_that_changed_are_used() -> None:
    """A state remembers where the weights lie; moved, replaced or changed in place, the new ones count."""
    torch.manual_seed(0)
    encoder, other = make(), make()
    frame = torch.randn(1, 1, 24, dtype=torch.float64)
    state = encoder.initial_state(1)
    encoder.step(frame, state)
    want = other.step(frame, other.initial_state(1))[0]

    encoder.load_state_dict(other.state_dict())
    assert torch.equal(encoder.step(frame, state.reset_())[0], want)
    encoder.load_state_dict(make().state_dict())
    assert not torch.equal(encoder.step(frame, state.reset_())[0], want)
    encoder.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
    assert torch.equal(encoder.step(frame, state.reset_())[0], want)
    block = encoder.blocks[0]
    block.linear1.weight.data = torch.zeros_like(block.linear1.weight)
    assert not torch.equal(encoder.step(frame, state.reset_())[0], want)


def test_the_state_of_another_model_or_batch_is_refused() -> None:
    encoder = make()
    frame = torch.zeros(2, 1, 24, dtype=torch.float64)
    for state in (encoder.initial_state(1), make(blocks=3).initial_state(2), make(window=6).initial_state(2)):
        with pytest.raises(ValueError, match=r"state must be of this model and batch, keys \[2, 2, 6, 24\]"):
            encoder.step(frame, state)
    with pytest.raises(ValueError, match="state must be of this model"):
        encoder.step(frame, make(dtype=torch.float32).initial_state(2))
    for part, broken in (
        ("values", torch.zeros(2, 2, 5, 24, dtype=torch.float64)),
        ("frames", torch.zeros(2, 2, 6, dtype=torch.int32)),
        ("positions", torch.zeros(1, dtype=torch.int64)),
        ("keys", torch.zeros(2, 2, 24, 6, dtype=torch.float64).transpose(2, 3)),
    ):
        for steps in (0, 1):  # a state that was good before is no exception
            state = encoder.initial_state(2)
            for _ in range(steps):
                encoder.step(frame, state)
            setattr(state, part, broken)
            with pytest.raises(ValueError, match=f"state must be of this model and batch, {part} "):
                encoder.step(frame, state)
    state = encoder.initial_state(2)
    encoder.step(frame, state)
    for other in (make(window=6), make(blocks=3)):
        with pytest.raises(ValueError, match="state must be of this model"):
            other.step(frame, state)
    with pytest.raises(ValueError, match=r"state must be of this model and batch, keys \[2, 1, 6, 24\]"):
        encoder.step(frame[:1], state)


def test_layers_of_several_kinds_are_not_run_as_one() -> None:
    torch.manual_seed(0)
    encoder, frames = make(), torch.randn(1, 12, 24, dtype=torch.float64)
    for change in ({"keys": "all"}, {"heads": 4}, {"norm_first": False}, {"activation": "gelu"}):
        other = make(**change)
        encoder.layers[1] = other.layers[1]
        with torch.no_grad():
            want, cost = encoder(frames)
        got, gates = stepped(encoder, frames, [1] * 12)
        assert torch.equal(gates, cost.gates)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_another_layer_is_used_at_once() -> None:
    torch.manual_seed(0)
    encoder, other, frame = make(), make(), torch.randn(1, 1, 24, dtype=torch.float64)
    state = encoder.initial_state(1)
    encoder.step(frame, state)
    encoder.layers[0], encoder.layers[1], encoder.norm = *other.layers, other.norm
    assert torch.equal(encoder.step(frame, state.reset_())[0], other.step(frame, other.initial_state(1))[0])
    for block in encoder.blocks:
        block.keys = "all"
    want = copy.deepcopy(encoder).step(frame, state.reset_())[0]
    assert torch.equal(encoder.step(frame, state.reset_())[0], want)


def test_whatever_changes_in_a_layer_counts() -> None:
    torch.manual_seed(0)
    encoder, frame = make(bias=False), torch.randn(1, 1, 24, dtype=torch.float64)
    state = encoder.initial_state(1)
    block, third = encoder.blocks[0], make(bias=False).blocks[1]
    for each in (*encoder.blocks, third):
        each.attention_threshold.fill_(-torch.inf)
        each.feed_forward_threshold.fill_(-torch.inf)

    def new_bias() -> None:
        block.linear2.bias = torch.nn.Parameter(torch.ones(24, dtype=torch.float64))

    def other_epsilon() -> None:
        block.norm1.eps = block.norm2.eps = 0.5

    def one_more() -> None:
        encoder.layers.append(third)

    def other_threshold() -> None:
        block.feed_forward_threshold = torch.full((), torch.inf, dtype=torch.float64)

    for change in (new_bias, other_epsilon, one_more, other_threshold):
        before = encoder.step(frame, state.reset_())[0]
        change()
        state = encoder.initial_state(1)
        want = copy.deepcopy(encoder).step(frame, encoder.initial_state(1))[0]
        assert not torch.equal(want, before), change.__name__
        assert torch.equal(encoder.step(frame, state)[0], want), change.__name__


def test_a_state_may_be_copied_and_given_other_tensors() -> None:
    torch.manual_seed(0)
    encoder = make()
    frames = torch.randn(1, 8, 24, dtype=torch.float64)
    state = encoder.initial_state(1)
    for t in range(4):
        encoder.step(frames[:, t : t + 1], state)
    copied, filled = copy.deepcopy(state), encoder.initial_state(1)
    encoder.step(frames[:, 7:], filled)
    for part in ("keys", "values", "frames", "positions"):
        setattr(filled, part, getattr(state, part).clone())
    moved = copy.deepcopy(state)
    encoder.step(frames[:, 4:5], moved)
    for part in ("keys", "values", "frames", "positions"):
        getattr(moved, part).data = getattr(state, part).clone()
    for t in range(4, 8):
        want = encoder.step(frames[:, t : t + 1], state)[0]
        for other in (copied, filled, moved):
            assert torch.equal(encoder.step(frames[:, t : t + 1], other)[0], want)


def test_a_state_is_small_and_its_own() -> None:
    encoder = make()
    state = encoder.initial_state(1)
    encoder.step(torch.zeros(1, 1, 24, dtype=torch.float64), state)
    assert all(isinstance(value, torch.Tensor) for value in vars(copy.deepcopy(state)).values())


def test_what_overflows_within_the_stack_stays_in_its_frame() -> None:
    torch.manual_seed(0)
    encoder = make(keys="all", dtype=torch.float32)
    encoder.calibrate_(torch.randn(1, 50, 24), keep=(1.0, 1.0))
    frames = torch.randn(1, 8, 24)
    with torch.no_grad():
        encoder.blocks[0].linear2.bias[3] = torch.inf  # frames that the first feed-forward map runs for
        encoder.blocks[0].feed_forward_threshold.fill_(encoder.blocks[0].logits(frames, "feed_forward", None).median())
        want = encoder(frames)[1].gates
    assert 0 < want[1].sum() < want[1].numel()
    for chunks in ([1] * 8, [8]):
        assert torch.equal(stepped(encoder, frames, chunks)[1], want)


def test_sound_that_is_not_finite_closes_gates() -> None:
    torch.manual_seed(0)
    encoder, frames = make(arbiter_input="both"), torch.randn(1, 6, 24, dtype=torch.float64)
    acoustic = torch.randn(1, 6, 24, dtype=torch.float64)
    acoustic[0, 2, 5], acoustic[0, 4, 0] = torch.inf, torch.nan
    with torch.no_grad():
        want = encoder(frames, acoustic=acoustic)[1].gates
    state, gates = encoder.initial_state(1), []
    for t in range(6):
        encoder.step(frames[:, t : t + 1], state, acoustic[:, t : t + 1])
        gates.append(state.gates)
    assert torch.equal(torch.cat(gates, -1), want)
    assert not want[..., 2].any()
    assert not want[..., 4].any()


def test_chunks_run_under_autocast() -> None:
    torch.manual_seed(0)
    encoder, frames = make(dtype=torch.float32), torch.randn(2, 20, 24)
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = encoder.step(frames, encoder.initial_state(2))
    assert got.shape == frames.shape
    assert bool(got.isfinite().all())


def test_errors_name_the_argument() -> None:
    encoder = make()
    state = encoder.initial_state(1)
    with pytest.raises(ValueError, match=r"frames must be \[B, t, d_model\] = \[B, t, 24\], got \[1, 24\]"):
        encoder.step(torch.zeros(1, 24, dtype=torch.float64), state)
    with pytest.raises(TypeError, match=r"frames must be torch.float64 on cpu, got torch.float32"):
        encoder.step(torch.zeros(1, 1, 24), state)
    listening = make(arbiter_input="acoustic", acoustic_dim=3)
    with pytest.raises(ValueError, match=r"acoustic must be \[1, 1, 3\], got \[1, 1, 24\]"):
        listening.step(torch.zeros(1, 1, 24, dtype=torch.float64), listening.initial_state(1))
    with pytest.raises(TypeError, match=r"acoustic must be torch.float64 on cpu, got torch.float32"):
        listening.step(torch.zeros(1, 1, 24, dtype=torch.float64), listening.initial_state(1), torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="num_threads must be a positive integer, got -3"):
        encoder.step(torch.zeros(1, 1, 24, dtype=torch.float64), state, num_threads=-3)
    with pytest.raises(ValueError, match="a stream knows no capacity"):
        make(capacity=4).initial_state(1)
    for wrong in (-1, 1.5):
        with pytest.raises(ValueError, match=f"batch_size must be an integer of at least 0, got {wrong}"):
            encoder.initial_state(wrong)
    for wrong, got in ((3, "3"), (-2, "-2"), ("all", "'all'")):
        with pytest.raises(ValueError, match=rf"StreamState\.reset_: streams must be numbers of 1, got {got}"):
            state.reset_([0, wrong])
    one = torch.zeros(1, 1, 24, dtype=torch.float64)
    with pytest.raises(TypeError, match="state a StreamState, got Tensor and NoneType"):
        encoder.step(one, None)
    with pytest.raises(TypeError, match="state a StreamState, got list and StreamState"):
        encoder.step([1.0], state)
    with pytest.raises(TypeError, match=r"acoustic must be a torch.Tensor, got list"):
        encoder.step(one, state, [1.0])
    with pytest.raises(RuntimeError, match=r"call \.eval"):
        encoder.train().step(torch.zeros(1, 1, 24, dtype=torch.float64), state)


@pytest.mark.parametrize("options", [{"window": None}, {"causal": False, "window": (4, 1)}])
def test_a_stream_needs_a_window_to_the_left_alone(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a stream needs layers with a window to the left and none to the right"):
        make(**options).initial_state(1)


def test_a_broken_state_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    make().initial_state(1).save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"state\.safetensors: expected a safetensors file"):
        StreamState.load(path)


def test_a_file_of_something_else_is_no_state(tmp_path: Path) -> None:
    path, state = tmp_path / "state.safetensors", make().initial_state(1)
    write_tensors(path, {"keys": state.keys})
    with pytest.raises(ValueError, match=r"state\.safetensors: expected the state of a stream \(.*\), got keys"):
        StreamState.load(path)
    state.positions -= 1
    state.save(path)
    with pytest.raises(ValueError, match="expected frames and positions as int64, no position negative"):
        StreamState.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"state\.safetensors: expected a safetensors file"):
        StreamState.load(path)


def test_a_copy_on_the_same_device_is_a_copy() -> None:
    torch.manual_seed(0)
    encoder, frames = make(), torch.randn(1, 2, 24, dtype=torch.float64)
    state = encoder.initial_state(1)
    encoder.step(frames[:, :1], state)
    other = state.to("cpu")
    want, _ = encoder.step(frames[:, 1:], other)
    assert state.positions.tolist() == [1]
    assert torch.equal(encoder.step(frames[:, 1:], state)[0], want)


class Twice(torch.nn.Linear):
    """Stands for an adapter."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _adapted(linear: torch.nn.Linear) -> torch.nn.Linear:
    made = Twice(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
    made.load_state_dict(linear.state_dict())
    return made


def _strided(block: ArbitratedEncoderLayer) -> None:
    weight = block.linear1.weight
    weight.data = weight.data.T.contiguous().T


def _narrow(block: ArbitratedEncoderLayer) -> None:
    block.attention_threshold = torch.tensor(0.1)  # float32 where float64 is usual


ALTERED: dict[str, Callable[[ArbitratedEncoderLayer], object]] = {
    "a strided weight": _strided,
    "a computed weight": lambda block: torch.nn.utils.parametrizations.weight_norm(block.linear1),
    "a narrow threshold": _narrow,
    "an adapter of feed-forward": lambda block: setattr(block, "linear2", _adapted(block.linear2)),
    "an adapter of attention": lambda block: setattr(block.self_attn, "out_proj", _adapted(block.self_attn.out_proj)),
    "a hook": lambda block: block.linear1.register_forward_hook(lambda module, inputs, output: output + 1),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_native_code_cannot_read_streams_as_offline(what: str) -> None:
    torch.manual_seed(0)
    encoder, frames = make(), torch.randn(2, 9, 24, dtype=torch.float64)
    plain = stepped(encoder, frames, [1] * 9)[0]
    ALTERED[what](encoder.blocks[1])
    got, _ = stepped(encoder, frames, [1] * 9)
    with torch.no_grad():
        torch.testing.assert_close(got, encoder(frames)[0], rtol=0, atol=1e-11)
    if what not in ("a strided weight", "a computed weight"):  # these compute the same
        assert not torch.allclose(got, plain)


def test_blocks_of_two_dtypes_are_no_stack() -> None:
    encoder = make(dtype=torch.float32)
    encoder.blocks[1].double()
    with pytest.raises((TypeError, RuntimeError)):
        encoder.step(torch.zeros(1, 1, 24), encoder.initial_state(1))
