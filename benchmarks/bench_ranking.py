"""transe_rank against PyKEEN's evaluator and a plain torch loop: FB15k-237, WN18RR and a generated power-law graph.

    python -m pytest benchmarks/bench_ranking.py --tercet-size full --benchmark-json ranking.json
    python benchmarks/table.py ranking.json --title "Filtered ranking" --out benchmarks/results/ranking.md

FB15k-237 and WN18RR need TERCET_DATA, PyKEEN the extra [pykeen]; what is missing is skipped. Every timed call gets
fresh tables, drawn outside the timing; every rival's ranks are compared with ours after they are timed. PyKEEN gets the
fastest of several batch sizes, found before timing, and MRR as its only metric, so that ranking is what is measured.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from rivals_of_ranks import RANKERS
from timing import measure
from workloads import RankingLoad, power_law_triples, public_graph

# name -> how many test triples are ranked; "all" by those that can.
LOADS = {
    "small": {"power law 2k": 40},
    "full": {"FB15k-237": 300, "WN18RR": 300, "power law 100k": 100, "FB15k-237 test": 20_466, "WN18RR test": 3134},
}
DIMS = {"small": [20], "full": [50, 200]}
LARGEST_FOR_RIVALS = 1000  # triples: PyKEEN would take minutes a call


@functools.lru_cache(maxsize=1)
def load_of(name: str, folder: Path | None) -> RankingLoad:
    """The last graph asked for."""
    if name.startswith("power law"):
        return power_law_triples(*{"2k": (2000, 10_000, 20), "100k": (100_000, 500_000, 200)}[name.split()[-1]])
    if folder is None:
        pytest.skip("TERCET_DATA is not set: no real data here")
    return public_graph(folder / "kge" / name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    size = metafunc.config.getoption("--tercet-size")
    cases = [
        (graph, dim, norm, name)
        for graph, dim, norm, name in itertools.product(LOADS[size], DIMS[size], ("l1", "l2", "dot"), RANKERS)
        if norm in RANKERS[name].norms and (LOADS[size][graph] <= LARGEST_FOR_RIVALS or name.startswith("tercet"))
    ]
    metafunc.parametrize(("graph", "dim", "norm", "name"), cases)


def bench_filtered_ranks(
    benchmark: BenchmarkFixture, request: pytest.FixtureRequest, graph: str, dim: int, norm: str, name: str
) -> None:
    public = graph.removesuffix(" test")
    folder = None if public.startswith("power law") else request.getfixturevalue("data")
    load = load_of(public, folder)
    count = LOADS[request.config.getoption("--tercet-size")][graph]
    rng, last = torch.Generator().manual_seed(0), {}
    triples = load.test[torch.randperm(len(load.test), generator=rng)[:count]]
    benchmark.group = f"{public}, {len(triples)} triples, {norm}, dimension {dim}"
    ranker = RANKERS[name](load, dim, norm)

    def fresh() -> tuple[Tensor, Tensor]:
        last["tables"] = tuple(
            torch.randn(rows, dim, generator=rng) for rows in (load.num_entities, load.num_relations)
        )
        return last["tables"]

    ranker.prepare(*fresh(), triples)

    def call(entities: Tensor, relations: Tensor) -> None:
        last["got"] = ranker.ranks(entities, relations, triples)

    measure(benchmark, call, fresh)
    benchmark.extra_info.update(engine=name, norm=norm, dim=dim, num_entities=load.num_entities, triples=len(triples))
    benchmark.extra_info.update(ranker.facts())
    if benchmark.enabled:
        rankings = 2 * len(triples) / benchmark.stats.stats.median
        benchmark.extra_info.update(rankings_per_second=rankings, scores_per_second=rankings * load.num_entities)
    want: Any = RANKERS["tercet"](load, dim, norm).ranks(*last["tables"], triples)
    # Rivals add up in float32: a rank moves by the rivals whose scores are nearer than that holds.
    off = (last["got"] - want).abs()
    assert off.max() <= max(2, 1e-3 * load.num_entities)
    assert (off > 0).double().mean() <= 0.2
