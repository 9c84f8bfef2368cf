"""Transformer encoders that arbitrators switch off frame by frame, and that cost less where they are off."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import streaming
from tercet.nn.block import ArbitratedBlock, Gate
from tercet.nn.cost import ComputeCost, expected_share
from tercet.nn.linear import ACTIVATIONS, linear

Gates = tuple[Tensor, Tensor]


class ArbitratedEncoderLayer(ArbitratedBlock):
    """torch.nn.TransformerEncoderLayer whose attention and feed-forward are switched on and off for each frame.

    A sub-block that is off at a frame gives zero there, so the residual carries the frame on. Two arbitrators, one
    linear map each, decide: on where <w, frame> + b > threshold. In evaluation only the kept frames are computed.
    Training follows `mode`:

    - "dense" computes every frame and draws each gate; gradients of gates are straight-through, <g, f(x)> times the
      slope of the relaxed gate (Gumbel-softmax). A frame that is off is computed as if it alone were on, so its gate
      learns what turning it on would do. That frames offer keys to others gives their gates no gradient.
    - "compact" computes the drawn frames only, forward and backward, as fast as evaluation. Gates that are off get no
      gradient from the task, which biases the estimate: they open again only where their kept neighbours move the
      arbitrator's weights.

    Parameters are named as torch's, plus `attention_arbiter`, `feed_forward_arbiter` and the buffers
    `attention_threshold`, `feed_forward_threshold`; torch.nn.TransformerEncoder can call this layer.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device,
            dtype: as torch's, but batch_first and norm_first are True by default.
        keys: "kept": a frame whose attention is off is neither query nor key. "all": every frame offers its key and
            value, which costs 2 d_model^2 multiply-adds a frame whether it is on or off.
        arbiter_input: what arbitrators read: "block", the sub-block's input (normalised with norm_first), "acoustic",
            the encoder's input, or "both".
        acoustic_dim: of that input; default d_model.
        causal: frames see none to their right.
        window: frames that a query sees to each side, or (left, right); counted in original frames, kept or not.
        mode: of training, "dense" or "compact".
        capacity: None, or the most frames of a sequence that a sub-block computes (an int, or a share of T): sizes are
            then fixed and the host never waits for the device. Frames beyond it are off, the last ones first.

    Raises:
        ValueError: an option is none of those named, or the window looks ahead with causal=True.

    Source:
        Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022. The size of arbitrators and
        the estimator's temperature schedule are not given there; these are ours.

    Example:
        >>> layer = ArbitratedEncoderLayer(8, 2, 16).eval()
        >>> x, on = torch.ones(1, 3, 8), torch.tensor([[True, False, True]])
        >>> torch.equal(layer(x, gates=(on, on))[0, 1], x[0, 1])
        True
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = True,
        norm_first: bool = True,
        bias: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        keys: str = "kept",
        arbiter_input: str = "block",
        acoustic_dim: int | None = None,
        causal: bool = False,
        window: int | tuple[int, int] | None = None,
        mode: str = "dense",
        capacity: int | float | None = None,
    ) -> None:
        super().__init__(
            d_model, nhead, dim_feedforward, norm_first=norm_first, keys=keys, arbiter_input=arbiter_input,
            acoustic_dim=acoustic_dim, causal=causal, window=window, mode=mode, capacity=capacity, device=device,
            dtype=dtype,
        )  # fmt: skip
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.self_attn = nn.MultiheadAttention(d_model, nhead, dropout, bias=bias, batch_first=batch_first, **where)
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=bias, **where)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=bias, **where)
        self.norm1 = nn.LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.norm2 = nn.LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)
        if not callable(activation) and activation not in ("relu", "gelu"):
            raise ValueError(
                f"tercet.nn.{type(self).__name__}: activation must be relu, gelu or a function, got {activation!r}"
            )
        self.activation = activation if callable(activation) else ACTIVATIONS[activation]
        self.fused = {F.relu: "relu", F.gelu: "gelu"}.get(self.activation, "none")

    @classmethod
    def from_torch(cls, layer: nn.TransformerEncoderLayer, **options: Any) -> ArbitratedEncoderLayer:
        """An arbitrated copy of torch's layer; its arbitrators are new and leave everything on.

        Args:
            layer: torch's; its training flag, device and dtype are kept.
            options: this class's own arguments, those after `dtype`.
        """
        weight = layer.linear1.weight
        made = cls(
            layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p,
            layer.activation, layer.norm1.eps, layer.self_attn.batch_first, layer.norm_first,
            layer.linear1.bias is not None, weight.device, weight.dtype, **options,
        )  # fmt: skip
        made.load_state_dict(layer.state_dict(), strict=False)
        return made.train(layer.training)

    @property
    def attention_norm(self) -> nn.LayerNorm:
        return self.norm1

    @property
    def feed_forward_norm(self) -> nn.LayerNorm:
        return self.norm2

    @property
    def attention_dropout(self) -> float:
        dropout: float = self.self_attn.dropout
        return dropout

    def queries(self, frames: Tensor) -> Tensor:
        weight, bias = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        return linear(frames, weight[: self.dim], None if bias is None else bias[: self.dim])

    def keys_and_values(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        weight, bias = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        both = linear(frames, weight[self.dim :], None if bias is None else bias[self.dim :])
        keys, values = both.chunk(2, -1)
        return keys, values

    def queries_keys_values(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whole = linear(frames, self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        queries, keys, values = whole.chunk(3, -1)
        return queries, keys, values

    def attention_output(self, mixed: Tensor) -> Tensor:
        projection = self.self_attn.out_proj
        return self.dropout1(linear(mixed, projection.weight, projection.bias))  # type: ignore[no-any-return]

    def transform(self, frames: Tensor) -> Tensor:
        hidden = linear(frames, self.linear1.weight, self.linear1.bias, self.fused)
        hidden = self.dropout(hidden if self.fused != "none" else self.activation(hidden))
        return self.dropout2(linear(hidden, self.linear2.weight, self.linear2.bias))  # type: ignore[no-any-return]

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        gates: Gates | None = None,
        acoustic: Tensor | None = None,
    ) -> Tensor:
        """The layer's output, as torch's layer gives it.

        Args:
            src: [B, T, d_model] ([T, B, d_model] without batch_first; one sequence [T, d_model] too).
            src_mask: as torch's: bool [T, T] or [B nhead, T, T] (True: not seen), or floats that are added to scores.
            src_key_padding_mask: bool [B, T] (True: padding), or floats 0 and -inf. Padding is off: its output is its
                input, and it costs nothing.
            is_causal: frames see none to their right; src_mask, which torch wants beside it, is then not read.
            gates: (attention, feed_forward), bool [B, T] each: what is on, instead of the arbitrators' decisions.
            acoustic: [B, T, acoustic_dim], where arbitrators read it.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype or shape.
        """
        name = f"tercet.nn.{type(self).__name__}"
        x, valid, mask = prepare(name, src, src_mask, src_key_padding_mask, is_causal, self)
        acoustic = None if acoustic is None else batched(acoustic, src, self.self_attn.batch_first)
        forced = None if gates is None else checked_gates(name, gates, valid.shape)
        out, _, _ = self.run(x, valid, mask=mask, is_causal=is_causal, gates=forced, acoustic=acoustic)
        return restored(out, src, self.self_attn.batch_first)

    @torch.no_grad()
    def calibrate_(
        self,
        x: Tensor,
        keep: tuple[float, float],
        *,
        src_key_padding_mask: Tensor | None = None,
        acoustic: Tensor | None = None,
    ) -> ArbitratedEncoderLayer:
        """Set both thresholds so that the arbitrators keep the shares `keep` (attention, feed-forward) of x's frames.

        Args:
            x: frames like those to come, shaped as `forward` takes them.
            keep: in 0..1; 0 switches off everything, 1 nothing.
            src_key_padding_mask, acoustic: as in `forward`.

        Raises:
            ValueError: a share is outside 0..1, or x has no frame.
        """
        name = f"tercet.nn.{type(self).__name__}.calibrate_"
        frames, valid, _ = prepare(name, x, None, src_key_padding_mask, False, self)
        acoustic = None if acoustic is None else batched(acoustic, x, self.self_attn.batch_first)
        calibrate_block(name, self, frames, valid, keep, acoustic)
        return self


class ArbitratedEncoder(nn.Module):
    """A stack of gated layers, called as torch.nn.TransformerEncoder, that says what it computed.

    Args:
        encoder_layer: the layer to copy `num_layers` times; arbitrators of the copies start alike.
        num_layers: how many.
        norm: of the output, or None.

    Example:
        >>> encoder = ArbitratedEncoder(ArbitratedEncoderLayer(8, 2, 16), num_layers=3).eval()
        >>> out, cost = encoder(torch.ones(2, 5, 8))
        >>> cost.gates.shape, cost.multiply_adds.shape
        (torch.Size([3, 2, 2, 5]), torch.Size([3, 2, 5]))
    """

    def __init__(self, encoder_layer: ArbitratedEncoderLayer, num_layers: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        if not isinstance(encoder_layer, ArbitratedEncoderLayer):
            got = type(encoder_layer).__name__
            raise TypeError(f"tercet.nn.ArbitratedEncoder: encoder_layer must be an ArbitratedEncoderLayer, got {got}")
        if num_layers < 1:
            raise ValueError(f"tercet.nn.ArbitratedEncoder: num_layers must be positive, got {num_layers}")
        self.layers = nn.ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.norm = norm

    @classmethod
    def from_torch(cls, encoder: nn.TransformerEncoder, **options: Any) -> ArbitratedEncoder:
        """An arbitrated copy of torch's encoder; `options` as in `ArbitratedEncoderLayer.from_torch`."""
        layers = [ArbitratedEncoderLayer.from_torch(layer, **options) for layer in encoder.layers]
        made = cls(layers[0], len(layers), copy.deepcopy(encoder.norm))
        made.layers = nn.ModuleList(layers)
        return made.train(encoder.training)

    @property
    def blocks(self) -> list[ArbitratedEncoderLayer]:
        """The layers, for readers and type checkers."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def temperature(self) -> float:
        """Of the relaxed gates in training; setting it sets every layer's."""
        return self.blocks[0].temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        for block in self.blocks:
            block.temperature = value

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
        *,
        gates: Tensor | Sequence[Gates] | None = None,
        acoustic: Tensor | None = None,
    ) -> tuple[Tensor, ComputeCost]:
        """Output, shaped as src, and what was computed.

        Args:
            src, mask, src_key_padding_mask, is_causal: as `ArbitratedEncoderLayer.forward` takes them.
            gates: bool [num_layers, 2, B, T], or a pair (attention, feed_forward) for each layer: what is on.
            acoustic: what arbitrators with arbiter_input "acoustic" or "both" read; default src.

        Raises:
            TypeError, ValueError: an argument has the wrong type, dtype or shape.
        """
        name, first, causal = "tercet.nn.ArbitratedEncoder", self.blocks[0], bool(is_causal)
        batch_first = first.self_attn.batch_first
        x, valid, mask = prepare(name, src, mask, src_key_padding_mask, causal, first)
        sound = x if acoustic is None else batched(acoustic, src, batch_first)
        if gates is not None and len(gates) != len(self.layers):
            raise ValueError(f"{name}: gates must hold a pair for each of {len(self.layers)} layers, got {len(gates)}")
        decided: list[tuple[Gate, Gate]] = []
        for i, block in enumerate(self.blocks):
            forced = None if gates is None else checked_gates(name, gates[i], valid.shape)
            x, *pair = block.run(x, valid, mask=mask, is_causal=causal, gates=forced, acoustic=sound)
            decided.append((pair[0], pair[1]))
        if self.norm is not None:
            x = self.norm(x)
        return restored(x, src, batch_first), self._cost(decided, valid)

    def _cost(self, decided: list[tuple[Gate, Gate]], valid: Tensor) -> ComputeCost:
        on = torch.stack([torch.stack([gate.on for gate in pair]) for pair in decided])
        shapes = tuple(block.shape for block in self.blocks)
        chances = [(attention.probability, feed_forward.probability) for attention, feed_forward in decided]
        return ComputeCost(on, valid, shapes, expected_share(chances, valid, shapes))

    def initial_state(self, batch_size: int) -> streaming.StreamState:
        """The state of `batch_size` streams of which no frame has been seen; for `step`.

        Raises:
            ValueError: a layer looks to the right or has no window, or windows differ.
        """
        return streaming.initial_state(self, batch_size)

    def step(
        self,
        frames: Tensor,
        state: streaming.StreamState,
        acoustic: Tensor | None = None,
        *,
        num_threads: int | None = None,
    ) -> tuple[Tensor, streaming.StreamState]:
        """The next frames of each stream through the stack, as `forward` would give them with all before; no gradient.

        A block whose gate is off is skipped: its weights are not read.

        Args:
            frames: [B, t, d_model], t >= 0, of the model's dtype.
            state: from `initial_state`, or the last step's; it is moved on in place, and `state.gates` says what ran.
            acoustic: as in `forward`; default the frames.
            num_threads: CPU threads, default torch's; the result does not depend on it.

        Returns:
            The output [B, t, d_model], and the state.

        Raises:
            RuntimeError: the encoder is in training.
            TypeError, ValueError: frames or state are of another model, batch, dtype or device.
        """
        return streaming.step(self, frames, state, acoustic, num_threads), state

    @torch.no_grad()
    def calibrate_(
        self,
        x: Tensor,
        keep: tuple[float, float],
        *,
        src_key_padding_mask: Tensor | None = None,
        acoustic: Tensor | None = None,
    ) -> ArbitratedEncoder:
        """Set every layer's thresholds, first to last, so that each keeps the shares `keep` of what reaches it of x."""
        name, first = "tercet.nn.ArbitratedEncoder.calibrate_", self.blocks[0]
        frames, valid, _ = prepare(name, x, None, src_key_padding_mask, False, first)
        sound = frames if acoustic is None else batched(acoustic, x, first.self_attn.batch_first)
        for block in self.blocks:
            frames = calibrate_block(name, block, frames, valid, keep, sound)
        return self


def calibrate_block(
    name: str,
    block: ArbitratedBlock,
    x: Tensor,
    valid: Tensor,
    keep: tuple[float, float],
    acoustic: Tensor | None,
) -> Tensor:
    """Set a block's thresholds as its `calibrate_` says; returns its output on x."""
    if len(keep) != 2 or not all(0 <= share <= 1 for share in keep):
        raise ValueError(f"{name}: keep must be two shares in 0..1 (attention, feed-forward), got {keep}")
    if not bool(valid.any()):
        raise ValueError(f"{name}: x must hold at least one frame that is not padding, got {list(x.shape)}")
    training = block.training
    block.eval()
    try:
        block.attention_threshold.copy_(_threshold(block.logits(x, "attention", acoustic)[valid], keep[0]))
        nothing = torch.zeros_like(valid)
        on = block.run(x, valid, acoustic=acoustic)[1].on
        attended = block.run(x, valid, gates=(on, nothing), acoustic=acoustic)[0]
        block.feed_forward_threshold.copy_(_threshold(block.logits(attended, "feed_forward", acoustic)[valid], keep[1]))
        return block.run(x, valid, acoustic=acoustic)[0]
    finally:
        block.train(training)


def _threshold(logits: Tensor, share: float) -> Tensor:
    """Such that round(share n) of the logits lie above it, ties apart."""
    count = round(share * len(logits))
    if count == len(logits):
        return torch.full_like(logits[0], -torch.inf)
    return logits.sort(descending=True).values[count]


def prepare(
    name: str, src: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool, layer: ArbitratedEncoderLayer
) -> tuple[Tensor, Tensor, Tensor | None]:
    """src as [B, T, dim], which frames are no padding, and the mask as `Sight` holds it."""
    if not isinstance(src, Tensor):
        raise TypeError(f"{name}: src must be a torch.Tensor, got {type(src).__name__}")
    if src.ndim not in (2, 3) or src.shape[-1] != layer.dim:
        wanted = f"[B, T, {layer.dim}]" if layer.self_attn.batch_first else f"[T, B, {layer.dim}]"
        raise ValueError(f"{name}: src must be {wanted}, got {list(src.shape)}")
    x = batched(src, src, layer.self_attn.batch_first)
    batch, num_frames = x.shape[:2]
    valid = torch.ones(batch, num_frames, dtype=torch.bool, device=x.device)
    if padding is not None:
        padding = padding[None] if src.ndim == 2 and padding.ndim == 1 else padding
        if padding.shape != (batch, num_frames):
            frames = [batch, num_frames]
            raise ValueError(f"{name}: src_key_padding_mask must be [B, T] = {frames}, got {list(padding.shape)}")
        if not (padding.dtype == torch.bool or padding.is_floating_point()):
            raise TypeError(f"{name}: src_key_padding_mask must be bool or floating, got {padding.dtype}")
        valid = ~padding if padding.dtype == torch.bool else padding == 0
    if mask is None or is_causal:
        return x, valid, None
    if mask.shape not in ((num_frames, num_frames), (batch * layer.num_heads, num_frames, num_frames)):
        wanted = f"[{num_frames}, {num_frames}] or [{batch * layer.num_heads}, {num_frames}, {num_frames}]"
        raise ValueError(f"{name}: src_mask must be {wanted}, got {list(mask.shape)}")
    if not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise TypeError(f"{name}: src_mask must be bool or floating, got {mask.dtype}")
    mask = ~mask if mask.dtype == torch.bool else mask
    return x, valid, mask if mask.ndim == 2 else mask.unflatten(0, (batch, layer.num_heads))


def checked_gates(name: str, gates: Any, shape: torch.Size) -> Gates:
    """Forced gates (attention, feed_forward), bool [B, T] each."""
    if len(gates) != 2:
        raise ValueError(f"{name}: gates must be (attention, feed_forward), got {len(gates)} of them")
    for part, gate in zip(("attention", "feed-forward"), gates, strict=True):
        if not isinstance(gate, Tensor) or gate.dtype != torch.bool:
            got = gate.dtype if isinstance(gate, Tensor) else type(gate).__name__
            raise TypeError(f"{name}: {part} gates must be bool, got {got}")
        if gate.shape != shape:
            raise ValueError(f"{name}: {part} gates must be [B, T] = {list(shape)}, got {list(gate.shape)}")
    return gates[0], gates[1]


def batched(value: Tensor, src: Tensor, batch_first: bool) -> Tensor:
    """`value`, laid out as src is, as [B, T, ...]."""
    if src.ndim == 2:
        return value[None]
    return value if batch_first else value.transpose(0, 1)


def restored(x: Tensor, src: Tensor, batch_first: bool) -> Tensor:
    """[B, T, dim] as src is laid out."""
    if src.ndim == 2:
        return x[0]
    return x if batch_first else x.transpose(0, 1)
