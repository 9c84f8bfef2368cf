"""Arbitrators in the encoders of Hugging Face's BERT and RoBERTa families.

    model = arbitrate(BertForSequenceClassification.from_pretrained(folder))
    calibrate_(model, batch, keep=(0.4, 0.4))
    with count_compute(model) as costs:
        logits = model(**batch).logits
    costs[0].share

To train them, add `cost_weight * costs[0].penalty` to the loss of the same forward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn.arbiter import Gate
from tercet.nn.block import ArbitratedBlock, cost_of
from tercet.nn.calibration import calibrate_block
from tercet.nn.cost import ComputeCost
from tercet.nn.inputs import Gates, checked_gates
from tercet.nn.linear import mapped

try:
    from transformers import PreTrainedModel
except ImportError as error:
    raise ImportError(
        "tercet.integrations.transformers needs transformers: pip install 'tercet[transformers]'"
    ) from error

__all__ = ["LAYERS", "ArbitratedLayer", "arbitrate", "calibrate_", "count_compute"]

# Layers of one layout: attention.self.{query, key, value}, attention.output, intermediate, output; post-norm.
LAYERS = ("BertLayer", "BertGenerationLayer", "CamembertLayer", "Data2VecTextLayer", "ElectraLayer", "ErnieLayer",
          "RobertaLayer", "XLMRobertaLayer")  # fmt: skip
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
        return self.attention.output.LayerNorm  # type: ignore[no-any-return]

    @property
    def feed_forward_norm(self) -> nn.LayerNorm:
        return self.output.LayerNorm  # type: ignore[no-any-return]

    @property
    def attention_dropout(self) -> float:
        return self.attention.self.dropout.p  # type: ignore[no-any-return]

    def queries(self, frames: Tensor) -> Tensor:
        return mapped(self.attention.self.query, frames)

    def keys_and_values(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return mapped(self.attention.self.key, frames), mapped(self.attention.self.value, frames)

    def attention_output(self, mixed: Tensor) -> Tensor:
        part = self.attention.output
        return part.dropout(mapped(part.dense, mixed))  # type: ignore[no-any-return]

    def transform(self, frames: Tensor) -> Tensor:
        activation = self.intermediate.intermediate_act_fn
        fused = "gelu" if getattr(activation, "act", None) is F.gelu else "none"
        hidden = mapped(self.intermediate.dense, frames, fused)
        hidden = hidden if fused == "gelu" else activation(hidden)
        return self.output.dropout(mapped(self.output.dense, hidden))  # type: ignore[no-any-return]

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
def _gated_class(layer_class: type[Any]) -> type[ArbitratedLayer]:
    names = tuple(inspect.signature(layer_class.forward).parameters)[2:]  # without self and hidden_states
    body = {"_layer_class": layer_class, "_names": names, "_gives_tuple": "output_attentions" in names,
            "__doc__": ArbitratedLayer.__doc__}  # fmt: skip
    return type(f"Arbitrated{layer_class.__name__}", (ArbitratedLayer, _Bare, layer_class), body)


def _empty(layer_class: Any) -> ArbitratedLayer:
    """A gated layer whose attributes are still to be set."""
    made = _gated_class(layer_class)
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


def arbitrate(
    model: PreTrainedModel,
    *,
    keys: str = "kept",
    mode: str = "dense",
    window: int | tuple[int, int] | None = None,
    capacity: int | float | None = None,
) -> PreTrainedModel:
    """Put arbitrators into a model's encoder, in place; they are new and leave everything on.

    Each layer's attention and feed-forward are switched off for the tokens that their arbitrators, linear maps of the
    sub-block's input, do not pick; off skips the sub-block and the norm after it. Weights keep their names, beside
    which stand each layer's `attention_arbiter`, `feed_forward_arbiter`, `attention_threshold` and
    `feed_forward_threshold`; a saved model loads into `arbitrate`'s and, without them, into the original's class. Whole
    models are copied (`copy.deepcopy`) and pickled (`torch.save(model, path)`) where the original's are. Heads on top,
    dropout, training and recorded hidden states work as before; attention weights are not recorded.

    Args:
        model: of the BERT and RoBERTa families, with one encoder whose layers are named in `LAYERS`, with any head.
        keys, mode, window, capacity: as `tercet.nn.ArbitratedEncoderLayer` takes them; window None sees what the
            original sees.

    Returns:
        The model.

    Raises:
        TypeError: the model has no such encoder.
        ValueError: an option is wrong, the model is gated already or has several encoders, or it is set up for what
            gates cannot honour: a decoder, cross-attention, relative positions, pruned heads, a chunked feed-forward,
            recorded attention weights.

    Source:
        Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022, for speech encoders.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        ...                     intermediate_size=16)
        >>> model, tokens = arbitrate(BertModel(config).eval()), torch.tensor([[1, 2, 3, 4]])
        >>> calibrate_(model, {"input_ids": tokens}, keep=(0.5, 0.25))  # doctest: +ELLIPSIS
        BertModel(...
        >>> with torch.no_grad(), count_compute(model) as costs:
        ...     output = model(tokens).last_hidden_state
        >>> costs[0].gates.sum(-1).flatten(1).tolist()  # of 4 tokens, attention and feed-forward of each layer
        [[2, 1], [2, 1]]
    """
    parents = _encoders(model)
    if len(parents) > 1:
        raise ValueError(f"tercet.arbitrate: model must have one encoder, got {len(parents)}; arbitrate each by itself")
    layers = parents[0]
    for layer in layers:
        _check(layer)
    if getattr(getattr(model, "config", None), "output_attentions", False):
        raise ValueError("tercet.arbitrate: config.output_attentions must be False: gated layers record no weights")
    options = {"keys": keys, "mode": mode, "window": window, "capacity": capacity}
    kinds: list[Any] = [type(layer) for layer in layers]
    gated = [_gated_class(kind)(layer, **options) for kind, layer in zip(kinds, layers, strict=True)]
    for i, layer in enumerate(gated):
        layers[i] = layer
    return model


def _encoders(model: Any) -> list[nn.ModuleList]:
    """The lists of layers that can be gated."""
    supported = f"a model of transformers with an encoder of {', '.join(LAYERS)}"
    if not isinstance(model, nn.Module):
        raise TypeError(f"tercet.arbitrate: model must be {supported}, got {type(model).__name__}")
    if any(isinstance(module, ArbitratedBlock) for module in model.modules()):
        raise ValueError(f"tercet.arbitrate: model must not be gated already, got a gated {type(model).__name__}")
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(map(_supported, module))
    ]
    if not found:
        raise TypeError(f"tercet.arbitrate: model must be {supported}, got {type(model).__name__}")
    return found


def _supported(layer: nn.Module) -> bool:
    kind = type(layer)  # not a subclass, which may compute something else
    return kind.__name__ in LAYERS and kind.__module__.startswith("transformers.models.")


def _check(layer: Any) -> None:
    """That nothing is asked of the layer which gates cannot honour."""
    attention = layer.attention.self
    positions = getattr(attention, "position_embedding_type", None) or "absolute"
    size = attention.query.out_features
    for rule, got, fine in (
        ("be no decoder", "is_decoder=True", not layer.is_decoder),
        ("have no cross-attention", "add_cross_attention=True", not layer.add_cross_attention),
        ("have absolute positions", f"position_embedding_type={positions!r}", positions == "absolute"),
        ("have all its heads", f"{size} of {layer.intermediate.dense.in_features} dimensions",
         size == layer.intermediate.dense.in_features),
        ("compute the feed-forward at once", f"chunk_size_feed_forward={layer.chunk_size_feed_forward}",
         layer.chunk_size_feed_forward == 0),
    ):  # fmt: skip
        if not fine:
            raise ValueError(f"tercet.arbitrate: model must {rule}, got {got}")


def _gated_layers(name: str, model: nn.Module) -> list[ArbitratedLayer]:
    layers = [module for module in model.modules() if isinstance(module, ArbitratedLayer)]
    if not layers:
        raise TypeError(f"tercet.{name}: model must come from arbitrate, got {type(model).__name__}")
    if any(layer.runner is not None for layer in layers):
        raise ValueError(f"tercet.{name}: model must not be within another count_compute or calibrate_")
    return layers


@contextmanager
def _run_by(layers: list[ArbitratedLayer], runner: Runner) -> Iterator[None]:
    for layer in layers:
        layer.runner = runner
    try:
        yield
    finally:
        for layer in layers:
            layer.runner = None


@contextmanager
def count_compute(model: nn.Module, gates: Tensor | Sequence[Gates] | None = None) -> Iterator[list[ComputeCost]]:
    """What the encoder computes within: a list that gets a `ComputeCost` after each forward pass.

    The encoder's blocks are counted; embeddings, pooler and heads are not.

    Args:
        model: of `arbitrate`.
        gates: bool [num_layers, 2, B, T], or a pair (attention, feed_forward) for each layer: what is on in every pass,
            instead of the arbitrators' decisions.

    Raises:
        TypeError, ValueError: the model is not gated, or counted already, or checkpoints gradients while training
            (blocks would be counted again in the backward pass); gates have another type, dtype or shape.

    Example:
        `arbitrate` shows one.
    """
    name = "count_compute"
    layers = _gated_layers(name, model)
    if gates is not None and len(gates) != len(layers):
        raise ValueError(f"tercet.{name}: gates must hold a pair for each of {len(layers)} layers, got {len(gates)}")
    if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ValueError(f"tercet.{name}: gradient checkpointing must be off, since it runs blocks twice")
    costs: list[ComputeCost] = []
    decided: list[tuple[Gate, Gate]] = []

    def run(layer: ArbitratedLayer, x: Tensor, valid: Tensor, mask: Tensor | None) -> Tensor:
        if layer is layers[0]:
            decided.clear()  # of a pass that an error ended
        forced = None if gates is None else checked_gates(f"tercet.{name}", gates[len(decided)], valid.shape)
        x, *pair = layer.run(x, valid, mask=mask, gates=forced)
        decided.append((pair[0], pair[1]))
        if layer is layers[-1]:
            costs.append(cost_of(layers, decided, valid))
        return x

    with _run_by(layers, run):
        yield costs


@torch.no_grad()
def calibrate_(model: PreTrainedModel, batch: Mapping[str, Any] | Tensor, keep: tuple[float, float]) -> PreTrainedModel:
    """Set every layer's thresholds, first to last, so that each keeps the shares `keep` of what reaches it of a batch.

    Args:
        model: of `arbitrate`.
        batch: what the model is called with: a mapping (`input_ids`, `attention_mask`, ...), or input_ids alone.
        keep: shares of the tokens (attention, feed-forward), in 0..1; 0 switches off everything, 1 nothing.

    Returns:
        The model, in training or evaluation as it was.

    Raises:
        TypeError, ValueError: the model is not gated, a share is outside 0..1, or the batch has no token.

    Example:
        `arbitrate` shows one.
    """
    name = "calibrate_"
    layers = _gated_layers(name, model)

    def run(layer: ArbitratedLayer, x: Tensor, valid: Tensor, mask: Tensor | None) -> Tensor:
        return calibrate_block(f"tercet.{name}", layer, x, valid, keep, None, mask)

    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with _run_by(layers, run):
            model(**batch) if isinstance(batch, Mapping) else model(batch)
    finally:
        for module in training:
            module.training = True
    return model
