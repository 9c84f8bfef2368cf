"""How benchmarks time a call and compare results."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

SECONDS = 1.5  # what the timed calls of one benchmark take together, as far as three calls allow


def measure(
    benchmark: BenchmarkFixture,
    call: Callable[..., Any],
    fresh: Callable[[], tuple[Any, ...]],
) -> None:
    """Time `call(*fresh())`; drawing the arguments is not timed."""
    rounds = 1
    if benchmark.enabled:
        arguments = fresh()
        start = time.perf_counter()
        call(*arguments)
        rounds = max(3, min(200, int(SECONDS / (time.perf_counter() - start))))
    benchmark.pedantic(call, setup=lambda: (fresh(), {}), rounds=rounds)


def assert_close(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    """Float32 sums, up to thousands of terms long, in another order: equal to 1e-4 of the largest value."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * float(want.abs().max())
