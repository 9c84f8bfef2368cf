"""The gated layer that stands for those of Hugging Face's BERT and RoBERTa families (see
`tercet.integrations.transformers`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn.block import ArbitratedBlock
from tercet.nn.linear import mapped

# What a layer may be given but a gated one cannot honour, by any version of transformers.
_REFUSED = ("head_mask", "encoder_hidden_states", "past_key_value", "past_key_values", "output_attentions",
            "is_causal", "cu_seq_lens_q")  # fmt: skip


Runner = Callable[["ArbitratedLayer", Tensor, Tensor, Tensor | None], Tensor]  # (layer, frames, valid, mask) -> output


class ArbitratedLayer(ArbitratedBlock):
    """A post-norm layer of transformers, switched on and off for each token; made by `arbitrate`.

    It holds the modules of the layer that it replaces under their names and is an instance of that layer's class, so
    that hidden states are recorded and checkpoints apply as before.
    """

    attention: Any  # modules of the layer
    intermediate: Any
    output: Any
    _layer_class: type[nn.Module]  # of transformers
    _names: tuple[str, ...]  # of the arguments of the layer's own forward
    _gives_tuple: bool  # whether it returns a tuple, as it did before transformers 5

    def __init__(self, layer: nn.Module, **options: Any) -> None:
        # The layer's hooks, flags and modules are this one's; what is registered here is not the layer's.
        own = ("_modules", "_parameters", "_buffers")
        self.__dict__.update(layer.__dict__, **{name: layer.__dict__[name].copy() for name in own})
        attention, weight = self.attention.self, self.intermediate.dense.weight
        super().__init__(
            weight.shape[1], attention.num_attention_heads, weight.shape[0], norm_first=False, arbiter_input="block",
            acoustic_dim=None, causal=False, device=weight.device, dtype=weight.dtype, **options,
        )  # fmt: skip
        for arbiter in (self.attention_arbiter, self.feed_forward_arbiter):
            arbiter.train(layer.training)
            with torch.no_grad():
                arbiter.weight.mul_(0.1)  # the input is not normalised here; a new one is to leave everything on
        self.runner: Runner | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """The class is made at run time, so that copies and pickles name the layer's own class instead."""
        return _empty, (self._layer_class,), {**self.__dict__, "runner": None}

    @property
    def attention_norm(self) -> nn.LayerNorm:
        norm: nn.LayerNorm = self.attention.output.LayerNorm
        return norm

    @property
    def feed_forward_norm(self) -> nn.LayerNorm:
        norm: nn.LayerNorm = self.output.LayerNorm
        return norm

    @property
    def attention_dropout(self) -> float:
        dropout: float = self.attention.self.dropout.p
        return dropout

    def queries(self, frames: Tensor) -> Tensor:
        return mapped(self.attention.self.query, frames)

    def keys_and_values(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return mapped(self.attention.self.key, frames), mapped(self.attention.self.value, frames)

    def attention_output(self, mixed: Tensor) -> Tensor:
        part = self.attention.output
        out: Tensor = part.dropout(mapped(part.dense, mixed))
        return out

    def transform(self, frames: Tensor) -> Tensor:
        activation = self.intermediate.intermediate_act_fn
        fused = "gelu" if getattr(activation, "act", None) is F.gelu else "none"
        hidden = mapped(self.intermediate.dense, frames, fused)
        hidden = hidden if fused == "gelu" else activation(hidden)
        out: Tensor = self.output.dropout(mapped(self.output.dense, hidden))
        return out

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The layer's output, as the layer of transformers gives it.

        Args:
            hidden_states: [B, T, hidden_size].
            attention_mask: None; [B, T], not 0 at tokens; or [B, 1 or heads, 1 or T, T], bool (True: seen) or added to
                the scores. Tokens that no query may see are padding: off, neither query nor key.
            args, kwargs: what else the model passes; of it, nothing may be set that gates cannot honour.

        Raises:
            TypeError, ValueError: the mask has another shape or dtype, or something cannot be honoured.
        """
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        for name in _REFUSED:
            if given.get(name) is not None and given[name] is not False:
                raise ValueError(f"tercet.arbitrate: {name} must not be given to a gated layer, which cannot honour it")
        valid, mask = _split_mask(hidden_states, given.get("attention_mask"), check=self.capacity is None)
        if self.runner is None:
            out = self.run(hidden_states, valid, mask=mask)[0]
        else:
            out = self.runner(self, hidden_states, valid, mask)
        return (out,) if self._gives_tuple else out


class _Bare(nn.Module):
    """Ends the chain of constructors: what they would build has been taken over from a layer."""

    def __init__(self) -> None:
        pass


@cache
def gated_class(layer_class: type[Any]) -> type[ArbitratedLayer]:
    """The gated layer that is an instance of a layer's class."""
    names = tuple(inspect.signature(layer_class.forward).parameters)[2:]  # without self and hidden_states
    body = {"_layer_class": layer_class, "_names": names, "_gives_tuple": "output_attentions" in names,
            "__doc__": ArbitratedLayer.__doc__}  # fmt: skip
    return type(f"Arbitrated{layer_class.__name__}", (ArbitratedLayer, _Bare, layer_class), body)


def _empty(layer_class: Any) -> ArbitratedLayer:
    """A gated layer whose attributes are still to be set."""
    made = gated_class(layer_class)
    return made.__new__(made)


def _split_mask(x: Tensor, mask: Any, check: bool) -> tuple[Tensor, Tensor | None]:
    """Which frames are no padding, bool [B, T], and what else of the mask is left, [B, 1 or heads, T, T] or None.

    `check`: look at the values, to find that nothing is left where the mask says what is padding and no more.
    """
    batch, num_frames = x.shape[:2]
    if mask is None:
        return torch.ones(batch, num_frames, dtype=torch.bool, device=x.device), None
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"tercet.arbitrate: attention_mask must be a torch.Tensor (attention implementations eager, sdpa and"
            f" flash_attention_2), got {type(mask).__name__}"
        )
    if mask.shape == (batch, num_frames):
        return mask != 0, None
    fits = mask.ndim == 4 and all(
        have in (1, want) for have, want in zip(mask.shape, (batch, mask.shape[1], num_frames), strict=False)
    )
    if not fits or mask.shape[3] != num_frames:
        wanted = f"[{batch}, {num_frames}] or [{batch}, 1 or heads, {num_frames}, {num_frames}]"
        raise ValueError(f"tercet.arbitrate: attention_mask must be {wanted}, got {list(mask.shape)}")
    if mask.dtype == torch.bool:
        seen = mask
    elif mask.is_floating_point():
        seen = mask > torch.finfo(mask.dtype).min / 2  # transformers hides by the least number, others by -inf
    else:
        raise TypeError(f"tercet.arbitrate: attention_mask of 4 dimensions must be bool or floating, got {mask.dtype}")
    valid = seen.flatten(1, 2).any(1).expand(batch, -1)
    if check:
        rows = seen | ~valid[:, None, :, None] if mask.shape[2] == num_frames else seen  # what padding sees is nothing
        padding_only = (rows | ~valid[:, None, None, :]).all()
        if mask.dtype != torch.bool:
            padding_only = padding_only & (mask.masked_fill(~seen, 0) == 0).all()
        if bool(padding_only):
            return valid, None
    return valid, mask.expand(batch, -1, num_frames, -1)
