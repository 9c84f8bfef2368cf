"""Streams of frames through an `ArbitratedEncoder`, a frame or a chunk at a time.

Up to `NATIVE_ROWS` frames go through one native loop over the whole stack, whose matrix-vector products a closed gate
leaves out; larger chunks compute their kept frames packed, as the offline encoder does. Streams stepped together share
one read of the weights: a stream that is off saves its own products, but the read is saved only where all of them are
off, at keep rate p with B independent streams for (1 - p)^B of the sub-blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tercet.files import read_tensors, write_tensors
from tercet.nn.arbiter import wide_dtype
from tercet.nn.attention import key_ranges
from tercet.nn.block import finite_frames
from tercet.nn.linear import is_plain
from tercet.ops import _checks, _native
from tercet.ops.gating import kept_attention_op

if TYPE_CHECKING:
    from tercet.nn.gating import ArbitratedEncoder, ArbitratedEncoderLayer

NATIVE_ROWS = 8  # frames of all streams together; more are products that torch computes faster
_ACTIVATIONS = ("relu", "gelu")
_RING = ("keys", "values", "frames", "positions")
_SAVED = (*_RING, "gates")
# Of a module, beside its parameters, what native code is told.
_READ = frozenset(
    ("dim", "num_heads", "feed_forward_dim", "norm_first", "keys", "left", "arbiter_input", "acoustic_dim",
     "activation", "eps")
)  # fmt: skip
_NAME, _STATE = "tercet.nn.ArbitratedEncoder.step", "tercet.nn.StreamState"


class _NativeStack:
    """A stack's parameters as native code takes them. Looking them up takes as long as half the frame's products do, so
    they are kept as long as they are the encoder's."""

    def __init__(self, encoder: ArbitratedEncoder) -> None:
        first = encoder.blocks[0]
        self.model = _Model.of(encoder)
        self.heads = first.num_heads, first.feed_forward_dim, first.acoustic_dim
        self.options = self.model.window, first.norm_first, first.keys == "all", _ACTIVATIONS.index(first.fused)
        arguments = [_arguments(block) for block in encoder.blocks]
        self.blocks = _native.cpu.StreamBlocks(_native.DTYPE_CODES[self.model.dtype], arguments)
        held = []
        for module in encoder.modules():
            for table in (module._modules, module._parameters, module._buffers):
                held += _entries(table, table)
            held += _entries(module.__dict__, _READ.intersection(module.__dict__))
        self.held = _native.cpu.Entries(held, Tensor)
        self.hooks = RemovableHandle.next_id  # rises with every hook that any module gets

    def holds(self, encoder: ArbitratedEncoder) -> bool:
        """Whether these are still the encoder's modules and parameters, where they were, and no hook has come."""
        known = len(encoder.layers._modules) == self.model.num_blocks and self.hooks == RemovableHandle.next_id
        return known and bool(self.held.unchanged())

    def step(self, frames: Tensor, state: StreamState, acoustic: Tensor | None, num_threads: int) -> Tensor:
        """The output of at most `NATIVE_ROWS` frames [B, t, dim], before the stack's norm."""
        batch, count, dim = frames.shape
        ring = _rings.get(state)
        if ring is None or ring.stack is not self or ring.batch != batch or not ring.held.unchanged():
            self.model.check_state(state, batch)
            ring = _rings[state] = _NativeRing(self, state)
        # Frames one after the other [t, B, dim]; one frame, or one stream, lies so already.
        turned = batch > 1 and count > 1
        out = (frames.transpose(0, 1) if turned else frames).clone(memory_format=torch.contiguous_format)
        acoustic_input = None if acoustic is None else acoustic.transpose(0, 1).contiguous()
        gates = torch.empty(count, self.model.num_blocks, 2, batch, dtype=torch.bool)
        at_out, at_acoustic, at_gates = out.data_ptr(), _native.pointer(acoustic_input), gates.data_ptr()
        for _ in range(count):
            _native.cpu.stream_step(self.blocks, ring.sizes, ring.pointers, at_out, at_acoustic, at_gates,
                                    ring.scratch.data_ptr(), num_threads)  # fmt: skip
            at_out += batch * dim * out.element_size()
            at_acoustic += 0 if acoustic_input is None else batch * self.heads[2] * out.element_size()
            at_gates += self.model.num_blocks * 2 * batch
        state.gates = gates.permute(1, 2, 3, 0)
        return out.transpose(0, 1) if turned else out


class _NativeRing:
    """A state that was found to be of a stack and batch, as native code takes it."""

    def __init__(self, stack: _NativeStack, state: StreamState) -> None:
        self.stack, self.batch = stack, len(state.positions)
        self.sizes = (self.batch, stack.model.dim, *stack.heads, *stack.options)
        self.scratch = state.keys.new_empty(_native.cpu.stream_scratch(stack.model.num_blocks, self.sizes))
        self.pointers = tuple(getattr(state, part).data_ptr() for part in _RING)
        self.held = _native.cpu.Entries(_entries(state.__dict__, _RING), Tensor)


@dataclass(frozen=True)
class _Model:
    """What frames and states must fit: native code trusts these sizes. `acoustic_dim` is None where arbitrators read no
    acoustic input."""

    num_blocks: int
    window: int
    dim: int
    acoustic_dim: int | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, encoder: ArbitratedEncoder) -> _Model:
        first = encoder.blocks[0]
        weight = first.self_attn.in_proj_weight
        acoustic_dim = None if first.arbiter_input == "block" else first.acoustic_dim
        window = 0 if first.left is None else first.left + 1
        return cls(len(encoder.layers), window, first.dim, acoustic_dim, weight.dtype, weight.device)

    def check_frames(self, frames: Tensor, acoustic: Tensor | None) -> None:
        """Raises TypeError or ValueError where they are not of this model."""
        if frames.ndim != 3 or frames.shape[2] != self.dim:
            raise ValueError(f"{_NAME}: frames must be [B, t, d_model] = [B, t, {self.dim}], got {list(frames.shape)}")
        self._check_kind("frames", frames)
        if acoustic is None:
            return
        sizes = [*frames.shape[:2], self.acoustic_dim]
        if list(acoustic.shape) != sizes:
            raise ValueError(f"{_NAME}: acoustic must be {sizes}, got {list(acoustic.shape)}")
        self._check_kind("acoustic", acoustic)

    def _check_kind(self, name: str, values: Tensor) -> None:
        if values.dtype != self.dtype or values.device != self.device:
            got = f"{values.dtype} on {values.device}"
            raise TypeError(f"{_NAME}: {name} must be {self.dtype} on {self.device}, got {got}")

    def check_state(self, state: StreamState, batch: int) -> None:
        """Raises ValueError where it is not of this model and so many streams."""
        slots = self.num_blocks, batch, self.window
        for part, shape, dtype in (
            ("keys", (*slots, self.dim), self.dtype),
            ("values", (*slots, self.dim), self.dtype),
            ("frames", slots, torch.int64),
            ("positions", slots[1:2], torch.int64),
        ):
            held = getattr(state, part)
            if held.shape != shape or held.dtype != dtype or held.device != self.device or not held.is_contiguous():
                raise ValueError(
                    f"{_NAME}: state must be of this model and batch, {part} {list(shape)} of {dtype} on {self.device},"
                    f" got {list(held.shape)} of {held.dtype} on {held.device}"
                )


def _entries(table: dict[str, Any], names: Iterable[str]) -> list[tuple[dict[str, Any], str, Any]]:
    return [(table, name, table[name]) for name in names]


@dataclass(eq=False)
class StreamState:
    """What a stack remembers of B streams: the kept frames of each block's window, in a ring.

    Frame f of a stream lies in slot f % window; `frames` holds f there, so that frames that were off are absent.

    Attributes:
        keys, values: [num_layers, B, window, d_model].
        frames: int64 [num_layers, B, window], -1 for none.
        positions: int64 [B], frames seen.
        gates: bool [num_layers, 2, B, t], what the last step ran (attention, feed-forward); empty before it.
    """

    keys: Tensor
    values: Tensor
    frames: Tensor
    positions: Tensor
    gates: Tensor

    def reset_(self, streams: Tensor | list[int] | None = None) -> StreamState:
        """Forget some streams, given by their numbers, or all.

        Raises:
            ValueError: there is no stream of a number in a list.
        """
        if isinstance(streams, list):
            whole = range(-len(self.positions), len(self.positions))
            if bad := [stream for stream in streams if type(stream) is not int or stream not in whole]:
                raise ValueError(f"{_STATE}.reset_: streams must be numbers of {len(self.positions)}, got {bad[0]!r}")
        chosen = slice(None) if streams is None else streams
        self.frames[:, chosen] = -1
        self.positions[chosen] = 0
        return self

    def save(self, path: Path | str) -> None:
        """Write the state to one safetensors file, whole or not at all."""
        write_tensors(Path(path), {name: getattr(self, name) for name in _SAVED})

    def to(self, device: torch.device | str) -> StreamState:
        """A copy on a device."""
        return StreamState(*(getattr(self, name).to(device, copy=True) for name in _SAVED))

    @classmethod
    def load(cls, path: Path | str) -> StreamState:
        """Read what `save` wrote, onto the CPU.

        `step` refuses it for a model of other sizes; whether it belongs to a model of the same sizes is not seen.

        Raises:
            ValueError: the file is absent, broken, or holds something else.
        """
        tensors = read_tensors(Path(path))
        if set(tensors) != set(_SAVED):
            got = ", ".join(sorted(tensors))
            raise ValueError(f"{path}: expected the state of a stream ({', '.join(_SAVED)}), got {got}")
        state = cls(tensors["keys"], tensors["values"], tensors["frames"], tensors["positions"], tensors["gates"])
        if (
            state.frames.dtype != torch.int64
            or state.positions.dtype != torch.int64
            or bool((state.positions < 0).any())
        ):
            raise ValueError(f"{path}: expected frames and positions as int64, no position negative")
        return state


def initial_state(encoder: ArbitratedEncoder, batch_size: int) -> StreamState:
    """The state of streams of which no frame has been seen."""
    name = "tercet.nn.ArbitratedEncoder.initial_state"
    first, weight = encoder.blocks[0], encoder.blocks[0].self_attn.in_proj_weight
    for block in encoder.blocks:
        if block.left is None or block.right != 0:
            raise ValueError(
                f"{name}: a stream needs layers with a window to the left and none to the right (causal=True,"
                f" window=frames), got left {block.left}, right {block.right}"
            )
        if (block.left, block.dim) != (first.left, first.dim):
            got = f"{first.left}, {first.dim} and {block.left}, {block.dim}"
            raise ValueError(f"{name}: all layers must have one window and d_model, got {got}")
        if block.capacity is not None:
            raise ValueError(f"{name}: a stream knows no capacity, which counts whole sequences; got {block.capacity}")
    if type(batch_size) is not int or batch_size < 0:
        raise ValueError(f"{name}: batch_size must be an integer of at least 0, got {batch_size!r}")
    assert first.left is not None
    shape = len(encoder.blocks), batch_size, first.left + 1
    return StreamState(
        keys=weight.new_zeros(*shape, first.dim),
        values=weight.new_zeros(*shape, first.dim),
        frames=torch.full(shape, -1, device=weight.device),
        positions=torch.zeros(batch_size, dtype=torch.int64, device=weight.device),
        gates=torch.zeros(shape[0], 2, batch_size, 0, dtype=torch.bool, device=weight.device),
    )


@torch.no_grad()
def step(
    encoder: ArbitratedEncoder, frames: Tensor, state: StreamState, acoustic: Tensor | None, num_threads: int | None
) -> Tensor:
    """The encoder's output for the next frames of each stream [B, t, d_model]; the state is moved on."""
    if encoder.training:
        raise RuntimeError(f"{_NAME}: a stream is for evaluation; call .eval() first")
    if not (isinstance(frames, Tensor) and isinstance(state, StreamState)):
        got = f"{type(frames).__name__} and {type(state).__name__}"
        raise TypeError(f"{_NAME}: frames must be a torch.Tensor and state a StreamState, got {got}")
    if acoustic is not None and not isinstance(acoustic, Tensor):
        raise TypeError(f"{_NAME}: acoustic must be a torch.Tensor, got {type(acoustic).__name__}")
    threads = _native.threads(_checks.threads("nn.ArbitratedEncoder.step", num_threads))
    stack = _native_stack(encoder)
    model = _Model.of(encoder) if stack is None else stack.model
    acoustic_input = frames if acoustic is None else acoustic
    model.check_frames(frames, None if model.acoustic_dim is None else acoustic_input)
    batch, count = frames.shape[:2]
    if stack is not None and batch * count <= NATIVE_ROWS:
        out = stack.step(frames, state, None if model.acoustic_dim is None else acoustic_input, threads)
    else:
        model.check_state(state, batch)
        out, gates = frames, []
        for i, block in enumerate(encoder.blocks):
            out, *pair = _chunk(block, out, state, i, acoustic_input)
            gates.append(torch.stack(pair))
        state.gates = torch.stack(gates)
        state.positions += count
    return out if encoder.norm is None else encoder.norm(out)


_stacks: WeakKeyDictionary[ArbitratedEncoder, _NativeStack] = WeakKeyDictionary()
_rings: WeakKeyDictionary[StreamState, _NativeRing] = WeakKeyDictionary()


def _native_stack(encoder: ArbitratedEncoder) -> _NativeStack | None:
    """The stack for native code, where that can run it."""
    stack = _stacks.get(encoder)
    if stack is not None and stack.holds(encoder):
        return stack
    dtype, kinds = encoder.blocks[0].self_attn.in_proj_weight.dtype, {_kind(block) for block in encoder.blocks}
    known = dtype in _native.DTYPE_CODES and all(_is_plain(block, dtype) for block in encoder.blocks)
    if not known or len(kinds) > 1 or encoder.blocks[0].fused not in _ACTIVATIONS:
        _stacks.pop(encoder, None)
        return None
    stack = _stacks[encoder] = _NativeStack(encoder)
    return stack


def _kind(block: Any) -> tuple[Any, ...]:
    """What blocks must share to run in one native loop."""
    return (block.dim, block.num_heads, block.feed_forward_dim, block.norm_first, block.keys, block.left,
            block.arbiter_input, block.acoustic_dim, block.activation)  # fmt: skip


def _is_plain(block: ArbitratedEncoderLayer, dtype: torch.dtype) -> bool:
    """Whether native code may read the block's parameters where they lie."""
    maps = (
        block.self_attn, block.self_attn.out_proj, block.linear1, block.linear2, block.attention_arbiter,
        block.feed_forward_arbiter, block.norm1, block.norm2,
    )  # fmt: skip
    if not all(is_plain(module) for module in maps):
        return False
    held: list[tuple[Tensor, torch.dtype]]
    held = [(part, dtype) for module in maps for part in module._parameters.values() if part is not None]
    held += [(part, wide_dtype(dtype)) for part in (block.attention_threshold, block.feed_forward_threshold)]
    return all(part.dtype == wanted and part.is_cpu and part.is_contiguous() for part, wanted in held)


def _arguments(block: ArbitratedEncoderLayer) -> tuple[Any, ...]:
    """A block's parameters as native code takes them."""

    def arbiter(sub_block: str) -> tuple[int, int, int, int]:
        made = getattr(block, f"{sub_block}_arbiter")
        weight, threshold = made.weight, getattr(block, f"{sub_block}_threshold")
        own = weight.data_ptr() if block.arbiter_input != "acoustic" else 0
        offset = {"block": None, "acoustic": 0, "both": block.dim}[block.arbiter_input]
        acoustic = 0 if offset is None else weight.data_ptr() + offset * weight.element_size()
        return own, acoustic, made.bias.data_ptr(), threshold.data_ptr()

    def norm(made: torch.nn.LayerNorm) -> tuple[int, int, float]:
        return made.weight.data_ptr(), _native.pointer(made.bias), made.eps

    def linear(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
        return weight.data_ptr(), _native.pointer(bias)

    attention = block.self_attn
    return (
        norm(block.norm1), arbiter("attention"), linear(attention.in_proj_weight, attention.in_proj_bias),
        linear(attention.out_proj.weight, attention.out_proj.bias), norm(block.norm2), arbiter("feed_forward"),
        linear(block.linear1.weight, block.linear1.bias), linear(block.linear2.weight, block.linear2.bias),
    )  # fmt: skip


def _chunk(
    block: ArbitratedEncoderLayer, x: Tensor, state: StreamState, layer: int, acoustic: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One block's output for a chunk [B, t, d_model], and both gates [B, t]; its keys and values join the state."""
    finite = finite_frames(x)
    gate = block.decide(x, "attention", finite, None, acoustic)
    frames, rows = x.flatten(0, 1), gate.on.flatten().nonzero().squeeze(1)
    kept = frames.index_select(0, rows)
    inputs = block.norm1(kept) if block.norm_first else kept
    if block.keys == "kept":
        key_mask, key_rows = gate.on, rows
        queries, keys, values = block.queries_keys_values(inputs)
    else:
        key_mask, key_rows = finite, finite.flatten().nonzero().squeeze(1)
        others = frames.index_select(0, key_rows)
        queries = block.queries(inputs)
        keys, values = block.keys_and_values(block.norm1(others) if block.norm_first else others)
    seen = _append_keys(state, layer, keys, values, key_mask, key_rows)
    window, whole = state.keys.shape[2], torch.cat([seen.present, key_mask], 1)
    packed = whole.flatten().nonzero().squeeze(1)
    num_frames = x.shape[1]
    at_grid = rows // num_frames * (window + num_frames) + window + rows % num_frames
    starts, ends = key_ranges(whole, at_grid, block.left, 0)
    all_keys, all_values = (part.flatten(0, 1).index_select(0, packed) for part in (seen.keys, seen.values))
    queries = queries.to(all_keys.dtype)  # under autocast they are not the state's
    mixed = kept_attention_op(queries, all_keys, all_values, starts, ends, block.num_heads, 0)
    x = block.put(frames, rows, kept, block.attention_output(mixed), block.norm1, gate, x.shape, owned=False)
    feed_forward = block.decide(x, "feed_forward", finite, None, acoustic)
    x = block.transform_kept(x, feed_forward)
    return x, gate.on, feed_forward.on


@dataclass
class _VisibleKeys:
    """What a chunk's queries may see: the window before it, then the chunk; [B, window + t, ...]."""

    keys: Tensor
    values: Tensor
    present: Tensor  # bool [B, window]


def _append_keys(
    state: StreamState, layer: int, keys: Tensor, values: Tensor, key_mask: Tensor, rows: Tensor
) -> _VisibleKeys:
    """Lay out the window before the chunk by frame, then overwrite the ring with the chunk's last frames."""
    batch, window = state.frames.shape[1:]
    count = key_mask.shape[1]
    before = state.positions[:, None] - window + torch.arange(window, device=rows.device)
    slots = before % window
    present = (state.frames[layer].gather(1, slots) == before) & (before >= 0)
    laid_out = []
    for ring, new in ((state.keys[layer], keys), (state.values[layer], values)):
        old = ring.gather(1, slots[..., None].expand(-1, -1, ring.shape[2]))
        fresh = ring.new_zeros(batch * count, ring.shape[2]).index_copy_(0, rows, new.to(ring.dtype))
        fresh = fresh.unflatten(0, (batch, count))
        laid_out.append(torch.cat([old, fresh], 1))
        last = torch.arange(max(0, count - window), count, device=rows.device)
        after = state.positions[:, None] + last
        ring.scatter_(1, (after % window)[..., None].expand(-1, -1, ring.shape[2]), fresh[:, last])
    state.frames[layer].scatter_(1, after % window, torch.where(key_mask[:, last], after, -1))
    return _VisibleKeys(laid_out[0], laid_out[1], present)
