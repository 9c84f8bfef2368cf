"""Gated layers for tests, and what they compute, written plainly: everything densely, then what the gates keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from strategies import normal, seeds
from tercet.nn import ArbitratedEncoderLayer

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}
DIMS = ((4, 1), (6, 2), (24, 3))


def draw_weights_(module: torch.nn.Module, rng: np.random.Generator) -> None:
    """Normal weights, of a size that keeps values near 1; thresholds stay."""
    with torch.no_grad():
        for name, value in sorted(module.named_parameters()):
            scale = value.shape[1] ** -0.5 if value.ndim == 2 else 0.5
            value.copy_(scale * normal(rng, *value.shape, dtype=value.dtype))
            if "norm" in name and name.endswith("weight"):
                value.add_(1.0)


def make_layer(rng: np.random.Generator, dim: int = 6, heads: int = 2, **options: Any) -> ArbitratedEncoderLayer:
    """A float64 layer in evaluation, without dropout; about half of the gates are on."""
    options = {"dim_feedforward": 2 * dim + 3, "dropout": 0.0, "dtype": torch.float64, **options}
    layer = ArbitratedEncoderLayer(dim, heads, **options).eval()
    draw_weights_(layer, rng)
    return layer


def window_of(window: int | tuple[int, int] | None, causal: bool) -> tuple[float, float]:
    """Frames to the left and right, as the options say."""
    left, right = (torch.inf, torch.inf) if window is None else (window, window) if isinstance(window, int) else window
    return left, 0 if causal else right


@dataclass
class Case:
    """A layer, frames [B, T, dim] and how they are attended to."""

    layer: ArbitratedEncoderLayer
    x: Tensor
    attention: Tensor  # bool [B, T]: the forced gates
    feed_forward: Tensor
    window: tuple[float, float]
    padding: Tensor | None = None
    mask: Tensor | None = None
    is_causal: bool = False
    layout: str = "batch first"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def valid(self) -> Tensor:
        if self.padding is None:
            return torch.ones_like(self.attention)
        return ~self.padding if self.padding.dtype == torch.bool else self.padding == 0

    @property
    def gates(self) -> tuple[Tensor, Tensor]:
        return self.attention, self.feed_forward

    def run(self, layer: ArbitratedEncoderLayer | None = None, x: Tensor | None = None, **options: Any) -> Tensor:
        """The layer's output [B, T, dim]; `gates` are the case's own unless given."""
        x = self.x if x is None else x
        arguments = {"src_mask": self.mask, "src_key_padding_mask": self.padding, "is_causal": self.is_causal}
        options = {"gates": self.gates, **arguments, **options}
        layer = self.layer if layer is None else layer
        if self.layout == "unbatched":
            return layer(x[0], **options)[None]
        if self.layout == "time first":
            return layer(x.transpose(0, 1), **options).transpose(0, 1)
        return layer(x, **options)

    def define(self, x: Tensor | None = None, scales: tuple[Tensor | None, Tensor | None] = (None, None)) -> Tensor:
        return masked_dense(self, self.x if x is None else x, scales)


def masked_dense(case: Case, x: Tensor, scales: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """What a layer is defined to give. `scales`, if given, are 1 and carry the gates' gradients."""
    layer, (left, right) = case.layer, case.window
    attention, feed_forward = case.attention & case.valid, case.feed_forward & case.valid
    num_frames, heads = x.shape[1], layer.self_attn.num_heads

    frame = torch.arange(num_frames)
    ahead = frame - frame[:, None]
    inside = (ahead >= -left) & (ahead <= (0 if case.is_causal else right))
    key_mask = attention if layer.keys == "kept" else case.valid
    # A frame that is off is computed as if it alone were on: it sees itself.
    seen = (inside & (key_mask[:, None, :] | torch.eye(num_frames, dtype=torch.bool)))[:, None]
    bias = torch.zeros(num_frames, num_frames, dtype=x.dtype)
    if case.mask is not None and not case.is_causal:
        mask = case.mask if case.mask.ndim == 2 else case.mask.unflatten(0, (-1, heads))
        bias = (
            torch.zeros(mask.shape, dtype=x.dtype).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
        )

    y = layer.norm1(x) if layer.norm_first else x
    projected = F.linear(y, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(3, -1)
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected)
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias

    def attended(seen: Tensor) -> Tensor:
        visible = scores.masked_fill(~seen, -torch.inf)
        alone = (visible == -torch.inf).all(-1, keepdim=True)
        return visible.masked_fill(alone, 0).softmax(-1).masked_fill(alone, 0) @ value

    mixed = attended(seen)
    if scales[0] is not None and layer.keys == "kept" and layer.mode == "dense":
        for offered in range(num_frames):  # the same, but with this key where it was not, or without it
            this = (frame == offered) & (frame[:, None] != offered) & inside & case.valid[:, None, None, :]
            difference = (attended(seen | this) - attended(seen & ~this)).detach()
            mixed = mixed + (scales[0][:, None, offered, None, None] - 1) * difference
    update = layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))
    x = _gated(x, x + update if layer.norm_first else layer.norm1(x + update), attention, scales[0])

    y = layer.norm2(x) if layer.norm_first else x
    update = layer.linear2(layer.activation(layer.linear1(y)))
    return _gated(x, x + update if layer.norm_first else layer.norm2(x + update), feed_forward, scales[1])


def _gated(x: Tensor, new: Tensor, gate: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return torch.where(gate[..., None], new, x)
    return x + (gate.to(x.dtype) + scale - 1)[..., None] * (new - x)


def draw_mask(rng: np.random.Generator, kind: str, batch: int, num_frames: int, heads: int) -> Tensor | None:
    """A src_mask as torch's layers take it; some queries see nothing."""
    if kind == "none":
        return None
    shape = (num_frames, num_frames) if kind.endswith("2d") else (batch * heads, num_frames, num_frames)
    hidden = torch.from_numpy(rng.random(shape) < 0.4)
    return (
        hidden if kind.startswith("bool") else normal(rng, *shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
    )


@st.composite
def cases(draw: st.DrawFn, *, masks: bool = True, **fixed: Any) -> Case:
    """Layers of every kind over few frames, with forced gates at drawn rates, all on and all off among them."""
    rng = np.random.default_rng(draw(seeds))
    dim, heads = draw(st.sampled_from(DIMS))
    layout = draw(st.sampled_from(["batch first", "time first", "unbatched"]))
    batch = 1 if layout == "unbatched" else draw(st.sampled_from([0, 1, 2, 5]))
    num_frames = draw(st.sampled_from([0, 1, 2, 5, 9, 17]))
    causal = draw(st.booleans())
    windows = [None, 0, 1, 3, (2, 0)] + ([] if causal else [(0, 2), (3, 1), (40, 40)])
    options = {
        "keys": draw(st.sampled_from(["kept", "all"])),
        "norm_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["relu", "gelu", F.relu, F.gelu, F.silu])),
        "causal": causal,
        "window": draw(st.sampled_from(windows)),
        "batch_first": layout != "time first",
        **fixed,
    }
    layer = make_layer(rng, dim, heads, **options)
    attention, feed_forward = (
        torch.from_numpy(rng.random((batch, num_frames)) < draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])))
        for _ in range(2)
    )
    padding = None
    kind = draw(st.sampled_from(["none", "bool", "float"]))
    if kind != "none":
        padding = torch.arange(num_frames) >= torch.from_numpy(rng.integers(0, num_frames + 1, (batch, 1)))
        padding = padding if kind == "bool" else torch.zeros(padding.shape).masked_fill(padding, -torch.inf)
    kinds = ["none", "bool 2d", "float 2d", "bool 3d", "float 3d"]
    mask = draw_mask(rng, draw(st.sampled_from(kinds)) if masks else "none", batch, num_frames, heads)
    x = normal(rng, batch, num_frames, dim, dtype=torch.float64)
    return Case(
        layer, x, attention, feed_forward, window_of(options["window"], causal), padding, mask,
        masks and draw(st.booleans()), layout, options,
    )  # fmt: skip


def copied(case: Case, **options: Any) -> ArbitratedEncoderLayer:
    """The case's layer with other options."""
    layer = ArbitratedEncoderLayer(
        case.layer.dim, case.layer.num_heads, case.layer.feed_forward_dim, 0.0, dtype=torch.float64,
        **{**case.options, **options},
    )  # fmt: skip
    layer.load_state_dict(case.layer.state_dict())
    return layer.eval()
