"""Arbitrators in the encoders of Hugging Face's BERT and RoBERTa families.

    model = arbitrate(BertForSequenceClassification.from_pretrained(folder))
    calibrate_(model, batch, keep=(0.4, 0.4))
    with count_compute(model) as costs:
        logits = model(**batch).logits
    costs[0].share

To train them, add `cost_weight * costs[0].penalty` to the loss of the same forward pass. `save_pretrained` writes gates
beside the weights; `from_pretrained` leaves them out:

    model = load_gates(arbitrate(BertForSequenceClassification.from_pretrained(saved)), saved)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tercet.files import read_tensors
from tercet.integrations.transformers_layers import ArbitratedLayer, Runner, gated_class
from tercet.nn.arbiter import Gate
from tercet.nn.block import ArbitratedBlock, cost_of
from tercet.nn.calibration import calibrate_block
from tercet.nn.cost import ComputeCost
from tercet.nn.inputs import Gates, checked_gates

try:
    from transformers import PreTrainedModel
except ImportError as error:
    raise ImportError(
        "tercet.integrations.transformers needs transformers: pip install 'tercet[transformers]'"
    ) from error

__all__ = ["LAYERS", "ArbitratedLayer", "arbitrate", "calibrate_", "count_compute", "load_gates"]

# Layers of one layout: attention.self.{query, key, value}, attention.output, intermediate, output; post-norm.
LAYERS = ("BertLayer", "BertGenerationLayer", "CamembertLayer", "Data2VecTextLayer", "ElectraLayer", "ErnieLayer",
          "RobertaLayer", "XLMRobertaLayer")  # fmt: skip
_GATE = re.compile(r"\.(attention|feed_forward)_(arbiter\.(weight|bias)|threshold)$")


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
    gated = [gated_class(kind)(layer, **options) for kind, layer in zip(kinds, layers, strict=True)]
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


def load_gates(model: PreTrainedModel, folder: str | PathLike[str]) -> PreTrainedModel:
    """Give a gated model the arbitrators and thresholds of one that `save_pretrained` wrote, in place.

    Args:
        model: of `arbitrate`; its other weights stay.
        folder: the saved model's, of safetensors files.

    Returns:
        The model.

    Raises:
        TypeError: the model is not gated.
        ValueError: the folder holds no safetensors file, a gate of the model's is not there, or it has another shape.
    """
    _gated_layers("load_gates", model)
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: expected the safetensors files of a saved model, got none")
    saved = {name: value for file in files for name, value in read_tensors(file).items()}
    gates = {name: own for name, own in model.state_dict().items() if _GATE.search(name)}
    for name, own in gates.items():
        if name not in saved or saved[name].shape != own.shape:
            got = f"one of {list(saved[name].shape)}" if name in saved else "none"
            raise ValueError(f"{folder}: expected the gate {name} {list(own.shape)}, got {got}")
    model.load_state_dict({name: saved[name] for name in gates}, strict=False)
    return model


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
