"""Arbitrators: logits of frames, in float32 at least, and the gates that they open.

Halves have 8 or 11 significant bits: logits rounded to them would tie with the threshold. So frames of halves are
normalised, multiplied and compared in float32, under autocast too, and thresholds stay float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.ops.gating import arbiter_logits
from tercet.ops.reference import gating as reference

INITIAL_BIAS = 3.0  # sigmoid(3) = .95, so that a new arbitrator leaves its block on


class Gate(NamedTuple):
    """One sub-block's decision for each frame, all [B, T]."""

    on: Tensor  # bool
    scale: Tensor | None  # 1, with the gradient of the relaxed gate; None where nothing is learnt
    probability: Tensor  # that the arbitrator opens it; of forced gates 0 or 1


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """That of logits and thresholds of a model of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def logits_of(arbiter: nn.Linear, norm: nn.LayerNorm | None, frames: Tensor | None, acoustic: Tensor | None) -> Tensor:
    """<weight, (norm(frames), acoustic)> + bias: [B, T] of `wide_dtype`; -inf where the acoustic input is not finite.

    frames [B, T, dim], acoustic [B, T, acoustic_dim]: one may be None, and has no weight then.
    """
    weight, bias = _widened(arbiter.weight[0]), _widened(arbiter.bias)
    dim = 0 if frames is None else frames.shape[-1]
    logits = bias if frames is None else _block_logits(arbiter, norm, frames)
    if acoustic is None:
        return logits
    finite = acoustic.isfinite().all(-1)  # else off, and out of the gradient
    inputs = acoustic.masked_fill(~finite[..., None], 0).to(weight.dtype)
    with without_autocast(inputs.device):
        added = F.linear(inputs, weight[None, dim:]).squeeze(-1)
    return logits + added.masked_fill(~finite, -torch.inf)


def _block_logits(arbiter: nn.Linear, norm: nn.LayerNorm | None, frames: Tensor) -> Tensor:
    """Of frames alone: by torch where a gradient may be wanted, else from one read of them."""
    learns = torch.is_grad_enabled()
    widened = _widened if learns else _unchanged
    weight, bias = widened(arbiter.weight[0, : frames.shape[-1]]), widened(arbiter.bias)
    options: dict[str, Any] = {"norm_weight": None, "norm_bias": None, "epsilon": 0.0}
    if norm is not None:
        norm_bias: Tensor | None = norm.bias
        norm_bias = None if norm_bias is None else widened(norm_bias)
        options = {"norm_weight": widened(norm.weight), "norm_bias": norm_bias, "epsilon": norm.eps}
    if not learns:
        rows = frames.flatten(0, 1).to(weight.dtype)
        logits: Tensor = arbiter_logits(rows, weight, bias, **options).unflatten(0, frames.shape[:2])
        return logits
    with without_autocast(frames.device):
        return reference.arbiter_logits(frames.to(weight.dtype), weight, bias, **options)


def decide(logits: Tensor, threshold: Tensor, valid: Tensor, *, training: bool, temperature: float) -> Gate:
    """Gates of logits [B, T]: logit > threshold; in training logit + logistic noise > 0, with a relaxed gradient.

    Training draws each gate from its probability sigmoid(logit): the difference of the Gumbel noises of "on" and "off"
    is logistic. The gate's gradient is that of sigmoid((logit + noise) / temperature), the straight-through
    Gumbel-softmax of Jang et al. 2017 for two classes.
    """
    probability = logits.float().sigmoid().masked_fill(~valid, 0)
    if not training:
        return Gate((logits > threshold) & valid, None, probability)
    uniform = torch.rand_like(probability).clamp(1e-7, 1 - 1e-7)
    noisy = logits.float() + uniform.log() - (-uniform).log1p()
    relaxed = (noisy / temperature).sigmoid()
    return Gate((noisy > 0) & valid, 1 + (relaxed - relaxed.detach()), probability)


def _widened(value: Tensor) -> Tensor:
    return value.to(wide_dtype(value.dtype))


def _unchanged(value: Tensor) -> Tensor:
    return value


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
