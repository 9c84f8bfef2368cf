"""What else computes a gated block, in plain torch on the weights of an ArbitratedEncoderLayer.

Each takes (layer, x [B, T, dim], gates, count) and gives [B, T, dim]. `gates`, a pair of bool [B, T], stands for the
decisions of the layer's arbitrators; `count` is how many frames of a sequence a fixed capacity takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.nn import ArbitratedEncoderLayer

Gates = tuple[Tensor, Tensor] | None
ARBITERS = ("attention", "feed_forward")


def _logits(layer: ArbitratedEncoderLayer, inputs: Tensor, part: int) -> Tensor:
    logits: Tensor = layer.get_submodule(f"{ARBITERS[part]}_arbiter")(inputs).squeeze(-1)
    return logits


def _decided(layer: ArbitratedEncoderLayer, inputs: Tensor, part: int, gates: Gates) -> tuple[Tensor, Tensor | None]:
    """What is on, [B, T], and in training 1 with the gradient of the relaxed gate."""
    if gates is not None:
        return gates[part], None
    logits = _logits(layer, inputs, part)
    if not layer.training:
        return logits > layer.get_buffer(f"{ARBITERS[part]}_threshold"), None
    uniform = torch.rand_like(logits)
    noisy = logits + uniform.log() - (-uniform).log1p()
    relaxed = (noisy / layer.temperature).sigmoid()
    return noisy > 0, 1 + relaxed - relaxed.detach()


def _heads(layer: ArbitratedEncoderLayer, part: Tensor) -> Tensor:
    """[..., T, dim] -> [..., heads, T, dim / heads]."""
    return part.unflatten(-1, (layer.num_heads, -1)).transpose(-3, -2)


def _projected(layer: ArbitratedEncoderLayer, kept: Tensor, every: Tensor) -> tuple[Tensor, ...]:
    """Queries of the kept frames; keys and values of them or, with keys="all", of every frame."""
    weight, bias, dim = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias, layer.dim
    if layer.keys == "kept":
        return F.linear(kept, weight, bias).chunk(3, -1)
    return F.linear(kept, weight[:dim], bias[:dim]), *F.linear(every, weight[dim:], bias[dim:]).chunk(2, -1)


def _transformed(layer: ArbitratedEncoderLayer, inputs: Tensor) -> Tensor:
    out: Tensor = layer.linear2(F.relu(layer.linear1(inputs)))
    return out


def masked_dense(layer: ArbitratedEncoderLayer, x: Tensor, gates: Gates, count: int) -> Tensor:
    """Everything is computed, then what is off is thrown away: what most papers' code does."""
    inputs = layer.norm1(x)
    on, _ = _decided(layer, inputs, 0, gates)
    parts = (_heads(layer, part) for part in _projected(layer, inputs, inputs))
    mixed = F.scaled_dot_product_attention(*parts, on[:, None, None, :] if layer.keys == "kept" else None)
    x = torch.where(on[..., None], x + layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2)), x)
    inputs = layer.norm2(x)
    on, _ = _decided(layer, inputs, 1, gates)
    return torch.where(on[..., None], x + _transformed(layer, inputs), x)


def compacted(layer: ArbitratedEncoderLayer, x: Tensor, gates: Gates, count: int) -> Tensor:
    """The kept rows are picked out, computed and added back; attention of one sequence after the other."""
    frames = x.flatten(0, 1)
    inputs = layer.norm1(x)
    on, scale = _decided(layer, inputs, 0, gates)
    rows, every = on.flatten().nonzero().squeeze(1), inputs.flatten(0, 1)
    queries, keys, values = _projected(layer, every[rows], every)
    query_counts = on.sum(1).tolist()
    key_counts = query_counts if layer.keys == "kept" else [x.shape[1]] * len(x)
    sequences = zip(queries.split(query_counts), keys.split(key_counts), values.split(key_counts), strict=True)
    mixed = [
        F.scaled_dot_product_attention(*(_heads(layer, part)[None] for part in sequence))[0].transpose(0, 1).flatten(1)
        for sequence in sequences
    ]
    frames = _added(frames, rows, layer.self_attn.out_proj(torch.cat(mixed)), scale)
    inputs = layer.norm2(frames)
    on, scale = _decided(layer, inputs.view(x.shape), 1, gates)
    rows = on.flatten().nonzero().squeeze(1)
    return _added(frames, rows, _transformed(layer, inputs[rows]), scale).view(x.shape)


def _added(frames: Tensor, rows: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
    update = update if scale is None else update * scale.flatten()[rows, None]
    return frames.index_add(0, rows, update)


def top_k(layer: ArbitratedEncoderLayer, x: Tensor, gates: Gates, count: int) -> Tensor:
    """The `count` frames of each sequence that score highest, gathered and scattered: sizes are fixed."""
    inputs = layer.norm1(x)
    index = _best(_logits(layer, inputs, 0) if gates is None else gates[0].to(x.dtype), count).expand(-1, -1, layer.dim)
    parts = (_heads(layer, part) for part in _projected(layer, inputs.gather(1, index), inputs))
    mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    x = x.scatter_add(1, index, layer.self_attn.out_proj(mixed))
    inputs = layer.norm2(x)
    index = _best(_logits(layer, inputs, 1) if gates is None else gates[1].to(x.dtype), count).expand(-1, -1, layer.dim)
    return x.scatter_add(1, index, _transformed(layer, inputs.gather(1, index)))


def _best(scores: Tensor, count: int) -> Tensor:
    """Numbers of the `count` highest of each row, in order: [B, count, 1]."""
    return scores.topk(count, dim=1, sorted=False).indices.sort(1).values[..., None]


def tercet(layer: ArbitratedEncoderLayer, x: Tensor, gates: Gates, count: int) -> Tensor:
    return layer(x, gates=gates)


def torch_dense(layer: ArbitratedEncoderLayer, x: Tensor, gates: Gates, count: int) -> Tensor:
    """torch's layer, which has no arbitrators; the benchmark puts it in the place of ours."""
    return layer(x)


@dataclass(frozen=True)
class Block:
    """One way to compute a gated block: run(layer, x, gates, count)."""

    run: Callable[[ArbitratedEncoderLayer, Tensor, Gates, int], Tensor]
    trains: bool = False
    forward: bool = True
    options: tuple[tuple[str, str], ...] = ()  # of the layer in training


BLOCKS = {
    "tercet": Block(tercet, trains=True, options=(("mode", "compact"),)),
    "tercet, dense mode": Block(tercet, trains=True, forward=False),
    "tercet, capacity": Block(tercet),
    "torch dense": Block(torch_dense, trains=True),
    "masked dense": Block(masked_dense),
    "eager compaction": Block(compacted, trains=True),
    "compiled top-k": Block(top_k),
}
