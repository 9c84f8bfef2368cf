"""Checks shared by the public functions. Messages read `tercet.op: argument must <rule>, got <value>`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VALUE_DTYPES = (torch.float32, torch.float64)
HALF_DTYPES = (torch.bfloat16, torch.float16)
ID_DTYPES = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


def tensor(op: str, name: str, value: Any) -> Tensor:
    """`value` itself if it is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"tercet.{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    return value


def floating(op: str, name: str, value: Any) -> Tensor:
    """A tensor of float32 or float64."""
    if tensor(op, name, value).dtype not in VALUE_DTYPES:
        raise TypeError(f"tercet.{op}: {name} must be float32 or float64, got {value.dtype}")
    return value  # type: ignore[no-any-return]


def real(op: str, name: str, value: Any) -> Tensor:
    """A tensor of float32, float64 or a half."""
    if tensor(op, name, value).dtype not in VALUE_DTYPES + HALF_DTYPES:
        raise TypeError(f"tercet.{op}: {name} must be float32, float64, bfloat16 or float16, got {value.dtype}")
    return value  # type: ignore[no-any-return]


def integers(op: str, name: str, value: Any) -> Tensor:
    """A tensor of integers."""
    if tensor(op, name, value).dtype not in ID_DTYPES:
        raise TypeError(f"tercet.{op}: {name} must hold integers, got {value.dtype}")
    return value  # type: ignore[no-any-return]


def shape(op: str, name: str, value: Tensor, wanted: tuple[int, ...], meaning: str) -> None:
    """`value` has shape `wanted`; `meaning` names its dimensions, e.g. `[batch, num_relations]`."""
    if tuple(value.shape) != wanted:
        raise ValueError(f"tercet.{op}: {name} must be {meaning} = {list(wanted)}, got {list(value.shape)}")


def entity_sets(op: str, name: str, value: Any) -> None:
    """`value` is EntitySets, known here by its members."""
    if not hasattr(value, "entities"):
        raise TypeError(f"tercet.{op}: {name} must be EntitySets, got {type(value).__name__}")


def in_range(op: str, name: str, value: Tensor, size: int) -> None:
    """Every id is in 0..size-1; not checked while tracing, where values are unknown."""
    if value.numel() and not torch.compiler.is_compiling():
        lowest, highest = (int(bound) for bound in torch.aminmax(value))
        if lowest < 0 or highest >= size:
            raise ValueError(f"tercet.{op}: {name} must be in 0..{size - 1}, got {lowest if lowest < 0 else highest}")


def same(op: str, name: str, value: Tensor, other_name: str, other: Tensor, *, dtype: bool = True) -> None:
    """`value` lies on the device of `other` and, unless `dtype=False`, has its dtype."""
    if value.device != other.device:
        raise ValueError(
            f"tercet.{op}: {name} and {other_name} must be on one device, got {value.device} and {other.device}"
        )
    if dtype and value.dtype != other.dtype:
        raise TypeError(
            f"tercet.{op}: {name} and {other_name} must have one dtype, got {value.dtype} and {other.dtype}"
        )


def choice(op: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """`value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"tercet.{op}: {name} must be one of {', '.join(allowed)}, got {value!r}")


def threads(op: str, num_threads: int | None) -> int:
    """The number of CPU threads as ops take it; 0 stands for torch's setting, which cannot be read while tracing."""
    if num_threads is None:
        return 0
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise ValueError(f"tercet.{op}: num_threads must be a positive integer, got {num_threads!r}")
    return num_threads
