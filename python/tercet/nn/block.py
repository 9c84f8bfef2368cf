"""What every gated block shares: deciding, computing kept frames alone, and the dense computation that trains gates.

Off means output = input for a sub-block, its norm after the residual included. Frames are switched off beside what the
arbitrators say where they are padding or hold a value that is not finite, so a NaN stays in its frame; values whose
float32 sum overflows count as such.

Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022. Which keys a frame that is off
offers follows Raposo et al.: Mixture-of-Depths, 2024 ("kept"), or Luo et al.: FlexiDepth, 2025 ("all").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn.arbiter import INITIAL_BIAS, Gate, decide, logits_of, wide_dtype
from tercet.nn.attention import (
    AttentionWindow,
    attend_by_sequence,
    attend_padded,
    in_window,
    key_ranges,
    mask_of,
    with_key_effects,
    with_mask,
)
from tercet.nn.capacity import checked_capacity, padded_rows, within_capacity
from tercet.nn.cost import BlockShape, ComputeCost, expected_share
from tercet.ops.gating import kept_attention_op

KEYS = ("kept", "all")
MODES = ("dense", "compact")
ARBITER_INPUTS = ("block", "acoustic", "both")


class ArbitratedBlock(nn.Module):
    """Base of gated blocks; a subclass provides the sub-blocks' parts (the properties and methods without a body).

    Attributes:
        mode: "dense" or "compact" training; evaluation is always compact.
        capacity: None, or the most frames of a sequence that are on in a sub-block (an int, or a share of T); frames
            beyond are off, the last ones first. But for dense training, tensors then have fixed sizes that are
            computed without waiting for the device.
    """

    attention_threshold: Tensor
    feed_forward_threshold: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        feed_forward_dim: int,
        *,
        norm_first: bool,
        keys: str,
        arbiter_input: str,
        acoustic_dim: int | None,
        causal: bool,
        window: int | tuple[int, int] | None,
        mode: str,
        capacity: int | float | None,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"tercet.nn.{name}: the heads must divide the width {dim}, got {num_heads} of them")
        for option, value, allowed in (
            ("keys", keys, KEYS), ("arbiter_input", arbiter_input, ARBITER_INPUTS), ("mode", mode, MODES)
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"tercet.nn.{name}: {option} must be one of {', '.join(allowed)}, got {value!r}")
        self.dim, self.num_heads, self.feed_forward_dim = dim, num_heads, feed_forward_dim
        self.norm_first, self.keys, self.arbiter_input, self.mode = norm_first, keys, arbiter_input, mode
        self.left, self.right = _window(name, window, causal)
        self.capacity = checked_capacity(name, capacity)
        self._temperature = 1.0
        self.acoustic_dim = dim if acoustic_dim is None else acoustic_dim
        inputs = {"block": dim, "acoustic": self.acoustic_dim, "both": dim + self.acoustic_dim}[arbiter_input]
        self.attention_arbiter = nn.Linear(inputs, 1, device=device, dtype=dtype)
        self.feed_forward_arbiter = nn.Linear(inputs, 1, device=device, dtype=dtype)
        for sub_block, arbiter in (("attention", self.attention_arbiter), ("feed_forward", self.feed_forward_arbiter)):
            nn.init.constant_(arbiter.bias, INITIAL_BIAS)
            threshold = torch.zeros((), device=device, dtype=wide_dtype(arbiter.weight.dtype))
            self.register_buffer(f"{sub_block}_threshold", threshold)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> ArbitratedBlock:
        """As torch's, which `half`, `to` and their like call; thresholds stay float32 at least."""
        before = {name: value for name, value in self._buffers.items() if name.endswith("_threshold")}
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != wide_dtype(moved.dtype):
                self._buffers[name] = value.to(moved.device, wide_dtype(moved.dtype))
        return self

    @property
    def temperature(self) -> float:
        """Of the relaxed gates in training."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0 < value < float("inf"):
            raise ValueError(f"tercet.nn.{type(self).__name__}: temperature must be finite and above 0, got {value}")
        self._temperature = value

    @property
    def shape(self) -> BlockShape:
        """What the block's cost depends on."""
        inputs = self.attention_arbiter.in_features + self.feed_forward_arbiter.in_features
        return BlockShape(self.dim, self.feed_forward_dim, inputs, self.keys, self.left, self.right)

    # What a subclass provides.

    @property
    def attention_norm(self) -> nn.LayerNorm:
        raise NotImplementedError

    @property
    def feed_forward_norm(self) -> nn.LayerNorm:
        raise NotImplementedError

    @property
    def attention_dropout(self) -> float:
        raise NotImplementedError

    def queries(self, frames: Tensor) -> Tensor:
        raise NotImplementedError

    def keys_and_values(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def queries_keys_values(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries(frames), *self.keys_and_values(frames)

    def attention_output(self, mixed: Tensor) -> Tensor:
        raise NotImplementedError

    def transform(self, frames: Tensor) -> Tensor:
        """The feed-forward map, its dropout included."""
        raise NotImplementedError

    # The block.

    def run(
        self,
        x: Tensor,
        valid: Tensor,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
        gates: tuple[Tensor, Tensor] | None = None,
        acoustic: Tensor | None = None,
    ) -> tuple[Tensor, Gate, Gate]:
        """The block's output [B, T, dim] and both decisions; `valid` bool [B, T] is false where x is padding."""
        forced = (None, None) if gates is None else gates
        window = AttentionWindow(self.left, 0 if is_causal else self.right, mask)
        finite = finite_frames(x)
        # Where every frame is computed, or has a gradient, a weight of 0 would not keep a NaN out.
        exact = self.capacity is None and not (self.training or torch.is_grad_enabled())
        if self.training and self.mode == "compact" and self.capacity is None and x.device.type == "cpu":
            exact = bool(finite.all())  # spares two copies and their gradients, where looking costs no waiting
        finite = valid & finite
        out = x if exact else x.masked_fill(~finite[..., None], 0)
        attention = self.decide(out, "attention", finite, forced[0], acoustic)
        out = self.attend(out, attention, finite, window)
        feed_forward = self.decide(out, "feed_forward", finite, forced[1], acoustic)
        out = self.transform_kept(out, feed_forward)
        return out if exact else torch.where(finite[..., None], out, x), attention, feed_forward

    def logits(self, x: Tensor, sub_block: str, acoustic: Tensor | None) -> Tensor:
        """Logits [B, T] of a sub-block's arbitrator, before any threshold; float32 at least."""
        if self.arbiter_input == "block":
            acoustic = None
        elif acoustic is None:
            raise ValueError(f"tercet.nn.{type(self).__name__}: arbiter_input {self.arbiter_input!r} needs `acoustic`")
        elif acoustic.shape != (*x.shape[:2], self.acoustic_dim):
            wanted = [*x.shape[:2], self.acoustic_dim]
            raise ValueError(f"tercet.nn.{type(self).__name__}: acoustic must be {wanted}, got {list(acoustic.shape)}")
        norm = getattr(self, f"{sub_block}_norm") if self.norm_first else None
        frames = None if self.arbiter_input == "acoustic" else x
        return logits_of(getattr(self, f"{sub_block}_arbiter"), norm, frames, acoustic)

    def decide(self, x: Tensor, sub_block: str, valid: Tensor, forced: Tensor | None, acoustic: Tensor | None) -> Gate:
        """Forced gates, else the arbitrator's; off where not `valid`, and beyond capacity."""
        if forced is not None:
            on = forced & valid
            gate = Gate(on, None, on.float())
        else:
            threshold: Tensor = getattr(self, f"{sub_block}_threshold")
            logits = self.logits(x, sub_block, acoustic)
            gate = decide(logits, threshold, valid, training=self.training, temperature=self.temperature)
        return gate if self.capacity is None else gate._replace(on=within_capacity(gate.on, self.capacity))

    def attend(self, x: Tensor, gate: Gate, valid: Tensor, window: AttentionWindow) -> Tensor:
        if self.training and self.mode == "dense":
            return _blend(x, self._attend_dense(x, gate, valid, window), gate)
        if self.capacity is not None:
            return self._attend_padded(x, gate, valid, window, self.capacity)
        # Sequence by sequence would ask for the values of gates, which a traced graph does not have.
        if window.mask is not None and torch.compiler.is_compiling():
            return self._attend_padded(x, gate, valid, window, x.shape[1])
        frames = x.flatten(0, 1)
        key_mask = gate.on if self.keys == "kept" else valid
        rows, key_rows = _true_indices(gate.on, key_mask)
        kept = _select_rows(frames, rows)
        inputs = self.attention_norm(kept) if self.norm_first else kept
        if self.keys == "kept":
            queries, keys, values = self.queries_keys_values(inputs)
        else:
            others = _select_rows(frames, key_rows)
            queries = self.queries(inputs)
            keys, values = self.keys_and_values(self.attention_norm(others) if self.norm_first else others)
        learns = torch.is_grad_enabled() and any(part.requires_grad for part in (queries, keys, values))
        if learns or window.mask is not None or (self.training and self.attention_dropout > 0):
            dropout = self.attention_dropout if self.training else 0.0
            attend = attend_by_sequence if x.device.type == "cpu" else attend_padded
            mixed = attend(queries, keys, values, gate.on, key_mask, window, self.num_heads, dropout)
        else:
            starts, ends = key_ranges(key_mask, rows, window.left, window.right)
            mixed = kept_attention_op(queries, keys, values, starts, ends, self.num_heads, 0)
        update = self.attention_output(mixed)
        return self.put(frames, rows, kept, update, self.attention_norm, gate, x.shape, owned=False)

    def transform_kept(self, x: Tensor, gate: Gate) -> Tensor:
        norm = self.feed_forward_norm
        if self.training and self.mode == "dense":
            new = x + self.transform(norm(x)) if self.norm_first else norm(x + self.transform(x))
            return _blend(x, new, gate)
        if self.capacity is not None:
            index, got = padded_rows(gate.on, self.capacity)
            kept = x.gather(1, index[..., None].expand(-1, -1, self.dim))
            update = self.transform(norm(kept) if self.norm_first else kept)
            return self._put_padded(x, index, got, kept, update, norm, gate)
        frames = x.flatten(0, 1)
        rows = gate.on.flatten().nonzero().squeeze(1)
        kept = _select_rows(frames, rows)
        update = self.transform(norm(kept) if self.norm_first else kept)
        owned = not torch.is_grad_enabled() and not torch.compiler.is_compiling()  # what attend made
        return self.put(frames, rows, kept, update, norm, gate, x.shape, owned=owned)

    def put(
        self,
        frames: Tensor,
        rows: Tensor,
        kept: Tensor,
        update: Tensor,
        norm: nn.LayerNorm,
        gate: Gate,
        shape: torch.Size,
        owned: bool,  # frames may be overwritten
    ) -> Tensor:
        scale = None if gate.scale is None else gate.scale.flatten().index_select(0, rows)[:, None]
        if self.norm_first and torch.is_grad_enabled():  # adding has a cheaper gradient than replacing
            update = update if scale is None else update * scale
            return frames.index_add(0, rows, update.to(frames.dtype)).view(shape)
        new = kept + update if self.norm_first else norm(kept + update)
        if scale is not None:
            new = new + (scale - 1) * (new - kept)
        new = new.to(frames.dtype)
        if kept is frames:
            return new.view(shape)
        out: Tensor = frames.index_copy_(0, rows, new) if owned else frames.index_copy(0, rows, new)
        return out.view(shape)

    # Training the gates: every frame is computed, as if its own gate were on.

    def _attend_dense(self, x: Tensor, gate: Gate, valid: Tensor, window: AttentionWindow) -> Tensor:
        inputs = self.attention_norm(x) if self.norm_first else x
        queries, keys, values = (self._heads(part) for part in self.queries_keys_values(inputs))
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        frame = torch.arange(x.shape[1], device=x.device)
        inside = in_window(frame, frame, window)

        def visible(offered: Tensor) -> Tensor:
            return with_mask(((offered[:, None, :] | itself) & inside)[:, None], window.mask, queries.dtype)

        dropout = self.attention_dropout if self.training else 0.0
        seen = visible(gate.on if self.keys == "kept" else valid)
        mixed = F.scaled_dot_product_attention(queries, keys, values, seen, dropout)
        if self.keys == "kept" and gate.scale is not None and gate.scale.requires_grad:
            mixed = with_key_effects(mixed, gate.scale, queries, keys, values, visible(valid), gate.on)
        update = self.attention_output(mixed.transpose(1, 2).flatten(2))
        return x + update if self.norm_first else self.attention_norm(x + update)

    def _heads(self, part: Tensor) -> Tensor:
        heads: Tensor = part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return heads

    # At most `capacity` frames of each sequence.

    def _attend_padded(
        self, x: Tensor, gate: Gate, valid: Tensor, window: AttentionWindow, capacity: int | float
    ) -> Tensor:
        index, got = padded_rows(gate.on, capacity)
        kept = x.gather(1, index[..., None].expand(-1, -1, self.dim))
        inputs = self.attention_norm(kept) if self.norm_first else kept
        frame = torch.arange(x.shape[1], device=x.device)
        if self.keys == "kept":
            parts = self.queries_keys_values(inputs)
            key_mask, positions = got, index
        else:
            others = self.attention_norm(x) if self.norm_first else x
            parts = (self.queries(inputs), *self.keys_and_values(others))
            key_mask, positions = valid, frame.expand(x.shape[:2])
        queries, keys, values = (self._heads(part) for part in parts)
        itself = index[:, :, None] == positions[:, None, :]  # so that a frame beyond those kept sees something
        seen = (key_mask[:, None, :] & in_window(index, positions, window)) | itself
        mask = None if window.mask is None else mask_of(window.mask, index, positions)
        seen = with_mask(seen[:, None], mask, queries.dtype)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, seen, dropout)
        update = self.attention_output(mixed.transpose(1, 2).flatten(2))
        return self._put_padded(x, index, got, kept, update, self.attention_norm, gate)

    def _put_padded(
        self, x: Tensor, index: Tensor, got: Tensor, kept: Tensor, update: Tensor, norm: nn.LayerNorm, gate: Gate
    ) -> Tensor:
        new = kept + update if self.norm_first else norm(kept + update)
        if gate.scale is not None:
            new = new + (gate.scale.gather(1, index) - 1)[..., None] * (new - kept)
        new = torch.where(got[..., None], new, kept).to(x.dtype)
        return x.scatter(1, index[..., None].expand(-1, -1, self.dim), new)


def finite_frames(x: Tensor) -> Tensor:
    """Which frames of x [B, T, dim] hold finite values alone: bool [B, T]."""
    return x.detach().sum(-1, dtype=torch.promote_types(x.dtype, torch.float32)).isfinite()


def cost_of(
    blocks: Sequence[ArbitratedBlock],
    decided: Sequence[tuple[Gate, Gate]],
    valid: Tensor,
    *,
    is_causal: bool = False,
) -> ComputeCost:
    """What blocks that decided so (attention, feed-forward) spent on the `valid` [B, T] of their frames."""
    on = torch.stack([torch.stack([gate.on for gate in pair]) for pair in decided])
    shapes = tuple(replace(block.shape, right=0) if is_causal else block.shape for block in blocks)
    chances = [(attention.probability, feed_forward.probability) for attention, feed_forward in decided]
    return ComputeCost(on, valid, shapes, expected_share(chances, valid, shapes))


def _select_rows(frames: Tensor, rows: Tensor) -> Tensor:
    """Some rows in order; `frames` itself where they are all of them."""
    if not torch.compiler.is_compiling() and rows.numel() == frames.shape[0]:
        return frames
    return frames.index_select(0, rows)


def _true_indices(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Where two masks are true, counted over all their frames; waits for the device once at most."""
    if second is first or first.device.type == "cpu" or torch.compiler.is_compiling():
        places = first.flatten().nonzero().squeeze(1)
        return places, places if second is first else second.flatten().nonzero().squeeze(1)
    sizes = torch.stack([first.sum(), second.sum()]).tolist()
    found = (mask.flatten().nonzero_static(size=size) for mask, size in zip((first, second), sizes, strict=True))
    one, two = (places.squeeze(1) for places in found)
    return one, two


def _blend(x: Tensor, new: Tensor, gate: Gate) -> Tensor:
    """`new` where the gate is on, else x; the gate's gradient is <gradient, new - x> times that of the relaxed gate."""
    out = torch.where(gate.on[..., None], new, x)
    if gate.scale is not None:
        out = out + (gate.scale - 1)[..., None] * (new - x)
    return out.to(x.dtype)


def _window(name: str, window: int | tuple[int, int] | None, causal: bool) -> tuple[int | None, int | None]:
    """Frames to the left and to the right that a query sees."""
    if window is None:
        return None, 0 if causal else None
    sides = (window, 0 if causal else window) if isinstance(window, int) else window
    pair = isinstance(sides, (tuple, list)) and len(sides) == 2
    if not pair or not all(type(side) is int and side >= 0 for side in sides):
        raise ValueError(
            f"tercet.nn.{name}: window must be frames to the left and right, none negative, got {window!r}"
        )
    left, right = sides
    if causal and right > 0:
        raise ValueError(f"tercet.nn.{name}: causal=True sees no frame to the right, got window {window}")
    return left, right
