"""Transformer encoders that arbitrators switch off frame by frame, and that cost less where they are off."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import streaming
from tercet.nn.arbiter import Gate
from tercet.nn.block import ArbitratedBlock, cost_of
from tercet.nn.calibration import calibrate_block
from tercet.nn.cost import ComputeCost
from tercet.nn.inputs import Gates, batched, checked_gates, prepare, restored
from tercet.nn.linear import ACTIVATIONS, linear, mapped


class ArbitratedEncoderLayer(ArbitratedBlock):
    """torch.nn.TransformerEncoderLayer whose attention and feed-forward are switched on and off for each frame.

    A sub-block that is off at a frame gives zero there, so the residual carries the frame on. Two arbitrators, one
    linear map each, decide: on where <w, frame> + b > threshold. In evaluation only the kept frames are computed.
    Training follows `mode`:

    - "dense" computes every frame and draws each gate; gradients of gates are straight-through, <g, f(x)> times the
      slope of the relaxed gate (Gumbel-softmax). A frame that is off is computed as if it alone were on, so its gate
      learns what turning it on would do: to its own output and, with keys="kept", to that of every frame whose query
      would see its key.
    - "compact" computes the drawn frames only, forward and backward, as fast as evaluation. Gates that are off get no
      gradient from the task, and none learns what its key does for other frames, which biases the estimate: gates open
      again only where their kept neighbours move the arbitrator's weights.

    Parameters are named as torch's, plus `attention_arbiter`, `feed_forward_arbiter` and the buffers
    `attention_threshold`, `feed_forward_threshold`; torch.nn.TransformerEncoder can call this layer. Arbitrators of
    half-precision layers decide in float32: their thresholds stay so under `half`, `bfloat16` and `to`.

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
        capacity: None, or the most frames of a sequence that are on in a sub-block (an int, or a share of T, rounded
            up); frames beyond are off, the last ones first. Sizes are then fixed and the host never waits for the
            device. In dense training, which computes every frame, it only cuts the drawn gates, and a gate learns as if
            it displaced none.

    The relaxed gates' `temperature` (1 at first) is an attribute to lower as training goes, if wanted.

    torch.export takes layers in evaluation, in torch.no_grad(); batch and frames may be dynamic.

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
        self.fused = _fused(self.activation)

    @classmethod
    def from_torch(cls, layer: nn.TransformerEncoderLayer, **options: Any) -> ArbitratedEncoderLayer:
        """An arbitrated copy of torch's layer; its arbitrators are new and leave everything on.

        Args:
            layer: torch's; its training flag, device, dtype and frozen parameters are kept.
            options: this class's own arguments, those after `dtype`.

        Raises:
            TypeError: `layer` is none of torch's. ValueError: see the class.
        """
        if not isinstance(layer, nn.TransformerEncoderLayer):
            got = type(layer).__name__
            raise TypeError(f"tercet.nn.{cls.__name__}.from_torch: layer must be a TransformerEncoderLayer, got {got}")
        weight = layer.linear1.weight
        made = cls(
            layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.linear1.out_features, layer.dropout.p,
            layer.activation, layer.norm1.eps, layer.self_attn.batch_first, layer.norm_first,
            layer.linear1.bias is not None, weight.device, weight.dtype, **options,
        )  # fmt: skip
        made.load_state_dict(layer.state_dict(), strict=False)
        learnt = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(learnt.get(name, True))
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
        out: Tensor = self.dropout1(mapped(self.self_attn.out_proj, mixed))
        return out

    def transform(self, frames: Tensor) -> Tensor:
        hidden = mapped(self.linear1, frames, self.fused)
        hidden = self.dropout(hidden if self.fused != "none" else self.activation(hidden))
        out: Tensor = self.dropout2(mapped(self.linear2, hidden))
        return out

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
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        acoustic: Tensor | None = None,
    ) -> ArbitratedEncoderLayer:
        """Set both thresholds so that the arbitrators keep the shares `keep` (attention, feed-forward) of x's frames.

        Args:
            x: frames like those to come, shaped as `forward` takes them.
            keep: in 0..1; 0 switches off everything, 1 nothing.
            src_mask, src_key_padding_mask, is_causal, acoustic: as in `forward`.

        Raises:
            ValueError: a share is outside 0..1, or x has no frame.
        """
        name = f"tercet.nn.{type(self).__name__}.calibrate_"
        frames, valid, mask = prepare(name, x, src_mask, src_key_padding_mask, is_causal, self)
        acoustic = None if acoustic is None else batched(acoustic, x, self.self_attn.batch_first)
        calibrate_block(name, self, frames, valid, keep, acoustic, mask, is_causal)
        return self


class ArbitratedEncoder(nn.Module):
    """A stack of gated layers, called as torch.nn.TransformerEncoder, that says what it computed.

    Args:
        encoder_layer: the layer to copy `num_layers` times; arbitrators of the copies start alike.
        num_layers: how many.
        norm: of the output, or None.

    Raises:
        TypeError: `encoder_layer` is no ArbitratedEncoderLayer. ValueError: `num_layers` is not positive.

    Source:
        Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022.

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
        acoustic_input = x if acoustic is None else batched(acoustic, src, batch_first)
        if gates is not None and not (isinstance(gates, (Sequence, Tensor)) and len(gates) == len(self.layers)):
            got = len(gates) if isinstance(gates, (Sequence, Tensor)) else type(gates).__name__
            raise ValueError(f"{name}: gates must hold a pair for each of {len(self.layers)} layers, got {got}")
        decided: list[tuple[Gate, Gate]] = []
        for i, block in enumerate(self.blocks):
            forced = None if gates is None else checked_gates(name, gates[i], valid.shape)
            x, *pair = block.run(x, valid, mask=mask, is_causal=causal, gates=forced, acoustic=acoustic_input)
            decided.append((pair[0], pair[1]))
        if self.norm is not None:
            x = self.norm(x)
        return restored(x, src, batch_first), cost_of(self.blocks, decided, valid, is_causal=causal)

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

        A block whose gate is off is skipped: its weights are not read. One native loop does that for at most 8 frames
        of all streams together, on a CPU, in float32 or float64, with relu or gelu and plain modules (no adapters,
        parametrizations or hooks); anything else takes torch's operations, block by block.

        Args:
            frames: [B, t, d_model], t >= 0, of the model's dtype.
            state: from `initial_state`, or the last step's; it is moved on in place, and `state.gates` says what ran.
            acoustic: as in `forward`; default the frames.
            num_threads: CPU threads, default torch's; the result does not depend on it.

        Returns:
            The output [B, t, d_model], and the state.

        Raises:
            RuntimeError: the encoder is in training.
            TypeError, ValueError: frames or state are of another batch, dtype or device, or of a model of other sizes;
                that a state is of another model of the same sizes is not seen.
        """
        return streaming.step(self, frames, state, acoustic, num_threads), state

    @torch.no_grad()
    def calibrate_(
        self,
        x: Tensor,
        keep: tuple[float, float],
        *,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        acoustic: Tensor | None = None,
    ) -> ArbitratedEncoder:
        """Set every layer's thresholds, first to last, so that each keeps the shares `keep` of what reaches it of x.

        Args:
            x, keep: as `ArbitratedEncoderLayer.calibrate_` takes them.
            mask, src_key_padding_mask, is_causal, acoustic: as in `forward`.

        Raises:
            ValueError: a share is outside 0..1, or x has no frame.
        """
        name, first = "tercet.nn.ArbitratedEncoder.calibrate_", self.blocks[0]
        frames, valid, seen = prepare(name, x, mask, src_key_padding_mask, is_causal, first)
        acoustic_input = frames if acoustic is None else batched(acoustic, x, first.self_attn.batch_first)
        for block in self.blocks:
            frames = calibrate_block(name, block, frames, valid, keep, acoustic_input, seen, is_causal)
        return self


def _fused(activation: Callable[[Tensor], Tensor]) -> str:
    """Its name, where products can end in it."""
    if activation is F.relu or type(activation) is nn.ReLU:
        return "relu"
    exact = activation is F.gelu or (type(activation) is nn.GELU and activation.approximate == "none")
    return "gelu" if exact else "none"
