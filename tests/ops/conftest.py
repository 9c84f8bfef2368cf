"""Fixtures of the CUDA tests."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from tercet.ops import _native


@pytest.fixture
def module() -> ModuleType:
    """The CUDA module, where it is built."""
    native = _native.cuda()
    if native is None:
        pytest.skip(f"the CUDA module is {_native.cuda_reason()}")
    return native


@pytest.fixture
def kernels(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Lets the kernels run on a device, verified or not."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    monkeypatch.setenv("TERCET_UNVERIFIED", "1")
    yield module
    torch.cuda.synchronize()
