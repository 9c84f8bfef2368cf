"""What gated layers take: checked, and laid out batch first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tercet.nn.gating import ArbitratedEncoderLayer

Gates = tuple[Tensor, Tensor]


def prepare(
    name: str, src: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool, layer: ArbitratedEncoderLayer
) -> tuple[Tensor, Tensor, Tensor | None]:
    """src as [B, T, dim], which frames are no padding, and the mask as `AttentionWindow` holds it."""
    if not isinstance(src, Tensor):
        raise TypeError(f"{name}: src must be a torch.Tensor, got {type(src).__name__}")
    if src.ndim not in (2, 3) or src.shape[-1] != layer.dim:
        wanted = f"[B, T, {layer.dim}]" if layer.self_attn.batch_first else f"[T, B, {layer.dim}]"
        raise ValueError(f"{name}: src must be {wanted}, got {list(src.shape)}")
    weight = layer.self_attn.in_proj_weight
    if src.dtype != weight.dtype and not torch.is_autocast_enabled(src.device.type):
        raise TypeError(f"{name}: src must be {weight.dtype}, as the parameters are, got {src.dtype}")
    x = batched(src, src, layer.self_attn.batch_first)
    batch, num_frames = x.shape[:2]
    valid = torch.ones(batch, num_frames, dtype=torch.bool, device=x.device)
    if padding is not None and not isinstance(padding, Tensor):
        raise TypeError(f"{name}: src_key_padding_mask must be a torch.Tensor, got {type(padding).__name__}")
    if padding is not None:
        padding = padding[None] if src.ndim == 2 and padding.ndim == 1 else padding
        if padding.shape != (batch, num_frames):
            frames = [batch, num_frames]
            raise ValueError(f"{name}: src_key_padding_mask must be [B, T] = {frames}, got {list(padding.shape)}")
        if not (padding.dtype == torch.bool or padding.is_floating_point()):
            raise TypeError(f"{name}: src_key_padding_mask must be bool or floating, got {padding.dtype}")
        valid = ~padding if padding.dtype == torch.bool else padding == 0
        floats_on_cpu = padding.is_floating_point() and padding.device.type == "cpu"
        if floats_on_cpu and not torch.compiler.is_compiling() and not bool((valid | (padding == -torch.inf)).all()):
            raise ValueError(f"{name}: src_key_padding_mask of floats must hold 0 and -inf alone")
    if mask is None or is_causal:
        return x, valid, None
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: src_mask must be a torch.Tensor, got {type(mask).__name__}")
    if mask.shape not in ((num_frames, num_frames), (batch * layer.num_heads, num_frames, num_frames)):
        wanted = f"[{num_frames}, {num_frames}] or [{batch * layer.num_heads}, {num_frames}, {num_frames}]"
        raise ValueError(f"{name}: src_mask must be {wanted}, got {list(mask.shape)}")
    if not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise TypeError(f"{name}: src_mask must be bool or floating, got {mask.dtype}")
    mask = ~mask if mask.dtype == torch.bool else mask
    return x, valid, mask if mask.ndim == 2 else mask.unflatten(0, (batch, layer.num_heads))


def checked_gates(name: str, gates: Any, shape: torch.Size) -> Gates:
    """Forced gates (attention, feed_forward), bool [B, T] each; of one sequence [T] too."""
    if not isinstance(gates, (tuple, list, Tensor)) or len(gates) != 2:
        got = f"{len(gates)} of them" if hasattr(gates, "__len__") else type(gates).__name__
        raise ValueError(f"{name}: gates must be (attention, feed_forward), got {got}")
    for part, gate in zip(("attention", "feed-forward"), gates, strict=True):
        if not isinstance(gate, Tensor) or gate.dtype != torch.bool:
            kind = gate.dtype if isinstance(gate, Tensor) else type(gate).__name__
            raise TypeError(f"{name}: {part} gates must be bool, got {kind}")
        if gate.shape != shape and not (shape[0] == 1 and gate.shape == shape[1:]):
            raise ValueError(f"{name}: {part} gates must be [B, T] = {list(shape)}, got {list(gate.shape)}")
    return gates[0].view(shape), gates[1].view(shape)


def batched(value: Tensor, src: Tensor, batch_first: bool) -> Tensor:
    """`value`, laid out as src is, as [B, T, ...].

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"tercet.nn: acoustic must be a torch.Tensor, got {type(value).__name__}")
    if src.ndim == 2:
        return value[None]
    return value if batch_first else value.transpose(0, 1)


def restored(x: Tensor, src: Tensor, batch_first: bool) -> Tensor:
    """[B, T, dim] as src is laid out."""
    if src.ndim == 2:
        return x[0]
    return x if batch_first else x.transpose(0, 1)
