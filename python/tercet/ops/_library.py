"""The `tercet` namespace of torch.ops. Each op is declared in its stem's file through `define`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Inside it an op goes straight to its device's kernel. For calls that want no gradient: passing torch's autograd layer
# takes longer than following a few edges does.
below_autograd = torch._C._AutoDispatchBelowAutograd

_library = torch.library.Library("tercet", "DEF")


def define(
    schema: str,
    *,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Declare one op and return it; `backward` and `setup_context` as torch.library.register_autograd takes them."""
    name = schema[: schema.index("(")]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, cpu, "CPU")
    _library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"tercet::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"tercet::{name}", backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.tercet, name).default
