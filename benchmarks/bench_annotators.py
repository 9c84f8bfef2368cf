"""Fifty iterations of Dawid-Skene against crowd-kit's and the reference in torch, on generated labels.

    python -m pytest benchmarks/bench_annotators.py --tercet-size full --benchmark-json annotators.json
    python benchmarks/table.py annotators.json --title "Annotators" --out benchmarks/results/annotators.md

crowd-kit comes with the extra [test]. The largest size is run by ours alone, once more in a fresh process for its peak
memory, the labels and torch itself included.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from rivals_of_annotators import ENGINES, ITERATIONS, Size, draw, peak_gb
from timing import measure

SIZES = {
    "small": [Size(2000, 400, 20, 3)],
    "full": [
        Size(100_000, 30_000, 1000, 5),
        Size(1_000_000, 300_000, 3000, 5),
        Size(10_000_000, 3_000_000, 10_000, 5),
    ],
}
LARGEST_FOR_RIVALS = 1_000_000  # labels: crowd-kit would take many minutes

drawn = functools.lru_cache(maxsize=1)(draw)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = SIZES[metafunc.config.getoption("--tercet-size")]
    cases = [(size, name) for size in sizes for name in ENGINES
             if name == "tercet" or size.num_labels <= LARGEST_FOR_RIVALS]  # fmt: skip
    metafunc.parametrize(("size", "name"), cases, ids=[f"{size.num_labels}-{name}" for size, name in cases])


def bench_dawid_skene(benchmark: BenchmarkFixture, size: Size, name: str) -> None:
    benchmark.group = (
        f"{size.num_labels:,} labels of {size.num_items:,} items by {size.num_annotators:,} annotators,"
        f" {size.num_classes} classes"
    )
    last: dict[str, Any] = {}

    def call(*data: Tensor) -> None:
        last["got"] = ENGINES[name](*data, size)

    measure(benchmark, call, lambda: drawn(size))
    benchmark.extra_info.update(engine=name, iterations=ITERATIONS, **size._asdict())
    if benchmark.enabled:
        benchmark.extra_info["labels_per_second"] = ITERATIONS * size.num_labels / benchmark.stats.stats.median
    if name == "tercet":
        benchmark.extra_info["peak_gb"] = peak_gb(size)
        return
    want = ENGINES["tercet"](*drawn(size), size)
    labelled = drawn(size)[0].unique()
    off = (last["got"] - want)[labelled].abs().sum(1) / 2  # total variation
    if name == "plain torch":
        assert off.max() <= 1e-9
    assert off.mean() <= 1e-6  # crowd-kit clips what is 0
