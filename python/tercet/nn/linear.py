"""Linear maps of rows, by the fastest product that torch has for them; adapters and quantised maps by their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

_PLAIN = (nn.Linear, NonDynamicallyQuantizableLinear, nn.LayerNorm, nn.MultiheadAttention)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """activation(rows weight^T + bias): [..., in] -> [..., out]; activation "none", "relu" or "gelu".

    Where no gradient is wanted on a CPU, oneDNN computes it, bias and activation in the product's last step. torch's
    own linear map takes MKL for float32: slower (1.1 to 1.3 times on an AMD CPU with AVX-512), and the result is read
    and written once more for the bias and again for the activation.
    """
    if (
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype
        and type(weight) in (Tensor, nn.Parameter)  # no subclass with products of its own
        and rows.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and (rows.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and rows.numel() > 0
    ):
        algorithm = "none" if activation == "gelu" else ""  # the exact gelu, not the approximation by tanh
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, activation, [], algorithm)  # type: ignore[no-any-return]
    return ACTIVATIONS[activation](F.linear(rows, weight, bias))


def is_plain(module: nn.Module) -> bool:
    """Whether its parameters say all that it does: no adapter, parametrization or hook."""
    return type(module) in _PLAIN and not module._forward_hooks and not module._forward_pre_hooks


def mapped(module: nn.Module, rows: Tensor, activation: str = "none") -> Tensor:
    """activation(module(rows)), as `linear` where the module is plain."""
    if is_plain(module):
        plain: Any = module  # of which torch's types say too little
        return linear(rows, plain.weight, plain.bias, activation)
    return ACTIVATIONS[activation](module(rows))
