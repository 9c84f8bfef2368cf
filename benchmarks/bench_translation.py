"""transe_scores, forward and backward, against torch.cdist, plain torch and the reference.

    python -m pytest benchmarks/bench_translation.py --tercet-size full --benchmark-json translation.json
    python benchmarks/table.py translation.json --title "Translation scores" --out benchmarks/results/translation.md

Tables are random and fresh for every timed call, drawn outside the timing; backward is the gradient to both of them, of
a fixed random weighting of all scores. Every rival's result is compared with ours after it is timed.
"""

from __future__ import annotations

import itertools
from typing import Any

import psutil
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from rivals_of_scores import SCORERS
from timing import assert_close, measure

SIZES = {
    "small": [(32, 500, 20)],
    "full": [(256, 14_541, 50), (256, 14_541, 200), (256, 14_541, 400), (256, 40_943, 200), (1, 1_000_000, 200),
             (64, 1_000_000, 100), (4096, 1000, 200)],
}  # batch, entities, dimension; 14,541 are FB15k-237's, 40,943 WN18RR's  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    axes: dict[str, Any] = {
        "size": SIZES[metafunc.config.getoption("--tercet-size")],
        "norm": ("l1", "l2", "dot"),
        "with_gradient": (False, True),
        "name": list(SCORERS),
    }
    cases = [case for case in itertools.product(*axes.values()) if case[1] in SCORERS[case[3]].norms]
    metafunc.parametrize(
        tuple(axes), cases, ids=lambda value: "x".join(map(str, value)) if type(value) is tuple else None
    )


def bench_scores(
    benchmark: BenchmarkFixture, size: tuple[int, int, int], norm: str, with_gradient: bool, name: str
) -> None:
    batch, num_entities, dim = size
    scorer, ours = SCORERS[name], SCORERS["tercet"]
    direction = "forward + backward" if with_gradient else "forward"
    benchmark.group = f"{norm}, {batch} x {num_entities} x {dim}, {direction}"
    wanted, free = scorer.memory(norm, batch, num_entities, dim, with_gradient), psutil.virtual_memory().available
    if wanted > free:
        pytest.skip(f"{name} needs {wanted / 2**30:.0f} GiB here, {free / 2**30:.0f} are free")
    rng, last = torch.Generator().manual_seed(0), {}
    probe = torch.rand(batch, num_entities, generator=rng)

    def fresh() -> tuple[Tensor, Tensor]:
        last["tables"] = tuple(torch.randn(rows, dim, generator=rng) for rows in (batch, num_entities))
        return last["tables"]

    def run(score: Any, queries: Tensor, entities: Tensor) -> list[Tensor]:
        if not with_gradient:
            with torch.no_grad():
                return [score(queries, entities, norm)]
        leaves = [queries.requires_grad_(), entities.requires_grad_()]
        scores = score(*leaves, norm)
        return [scores.detach(), *torch.autograd.grad(scores, leaves, probe)]

    def call(queries: Tensor, entities: Tensor) -> None:
        last["got"] = run(scorer.score, queries, entities)

    measure(benchmark, call, fresh)
    benchmark.extra_info.update(engine=name, norm=norm, batch=batch, num_entities=num_entities, dim=dim)
    if benchmark.enabled:
        pairs = batch * num_entities / benchmark.stats.stats.median
        benchmark.extra_info.update(scores_per_second=pairs, terms_per_second=pairs * dim)
    for got, want in zip(last["got"], run(ours.score, *(t.detach() for t in last["tables"])), strict=True):
        assert_close(got, want)
