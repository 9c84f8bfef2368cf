"""follow against other ways to compute it: MetaQA, the grid protocol of the reified knowledge base, power-law graphs.

    python -m pytest benchmarks/bench_traversal.py --tercet-size full --benchmark-json traversal.json
    python benchmarks/table.py traversal.json --out benchmarks/results/traversal.md

MetaQA needs TERCET_DATA. ULTRA's generalized rspmm takes part where its checkout is on PYTHONPATH (it compiles itself
on first import, with ninja): PYTHONPATH=path/to/ULTRA python -m pytest ...

Every timed call gets fresh relation weights, drawn and laid out outside the timing; every rival's result is compared
with ours after it is timed. edges/s counts the edges that leave the frontier, whatever an engine reads beyond them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import rivals
import tercet
import workloads
from tercet import EntitySets
from timing import assert_close, measure
from workloads import Workload

# torch says once that CSR is in beta and that it does not check what we built.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")

ENGINES: dict[str, type[rivals.Engine]] = {
    "tercet": rivals.Tercet,
    "reference": rivals.Reference,
    "reified CSR": rivals.Reified,
    "index_add": rivals.IndexAdd,
    "dense pull": rivals.DensePull,
    "late mixing": rivals.LateMixing,
    "ULTRA rspmm": rivals.Rspmm,
}
GRIDS = {
    "small": [(50, 0), (100, 10)],
    "full": [(n, 0) for n in (50, 100, 200, 400, 600, 1000)] + [(100, n) for n in (10, 20, 50, 100, 200, 500, 1000)],
}  # size, extra relations
POWER_LAWS = {
    "small": [(20_000, 100_000, 50, 32)],
    "full": [(500_000, 2_000_000, 500, 32), (5_000_000, 20_000_000, 500, 16)],
}  # entities, triples (with inverses twice as many edges), relations, batch


@functools.lru_cache(maxsize=1)
def workload(make: Callable[..., Workload], *args: Any) -> Workload:
    """The last workload asked for; benchmarks run grouped by it."""
    engine.cache_clear()
    frontier.cache_clear()
    return make(*args)


@functools.lru_cache(maxsize=1)
def engine(name: str, load: Workload) -> rivals.Engine:
    """The last engine asked for: the large graphs leave room for one."""
    return ENGINES[name](load.graph)


@functools.lru_cache(maxsize=3)
def frontier(load: Workload, hop: int) -> EntitySets:
    """Where hop `hop` (1, 2, ...) starts: what the hops before it reached from random seeds."""
    rng = np.random.default_rng(hop)
    if hop == 1:
        return load.seeds(rng)
    return tercet.follow(load.graph, frontier(load, hop - 1), load.relation_weights(rng))


def note(benchmark: BenchmarkFixture, load: Workload, name: str, edges: int) -> None:
    """Facts and rates for the saved result."""
    graph = load.graph
    benchmark.extra_info.update(
        engine=name, batch=load.batch, num_entities=graph.num_entities, num_relations=graph.num_relations,
        num_edges=graph.num_edges, frontier_edges=edges,
    )  # fmt: skip
    if benchmark.enabled:
        median = benchmark.stats.stats.median
        benchmark.extra_info.update(queries_per_second=load.batch / median, edges_per_second=edges / median)


def skip_what_cannot_run(name: str, load: Workload, edges: int) -> None:
    if name == "ULTRA rspmm" and not rivals.has_rspmm():
        pytest.skip("ULTRA is not on PYTHONPATH")
    wanted, free = ENGINES[name].memory(load.graph, load.batch, edges), psutil.virtual_memory().available
    if wanted > free:
        pytest.skip(f"{name} needs {wanted / 2**30:.0f} GiB here, {free / 2**30:.0f} are free")


def run_hop(benchmark: BenchmarkFixture, load: Workload, name: str, hop: int, with_gradient: bool) -> None:
    """One hop of a query; with_gradient also takes the gradient of the sum of squares to the relation weights."""
    sets = frontier(load, hop)
    skip_what_cannot_run(name, load, load.frontier_edges(sets))
    rng, chosen, ours = np.random.default_rng(100 + hop), engine(name, load), rivals.Tercet(load.graph)
    state, last = chosen.start(sets), {}

    def fresh() -> tuple[Tensor]:
        last["w"] = load.relation_weights(rng)
        last["leaf"] = chosen.weights(last["w"]).requires_grad_(with_gradient)
        return (last["leaf"],)

    def run(follower: rivals.Engine, start: Any, leaf: Tensor) -> Any:
        reached = follower.follow(start, leaf)
        if with_gradient:
            follower.values(reached).square().sum().backward()
        return reached

    def call(leaf: Tensor) -> None:
        last["reached"] = run(chosen, state, leaf)

    measure(benchmark, call, fresh)
    note(benchmark, load, name, load.frontier_edges(sets))
    leaf = last["w"].detach().clone().requires_grad_(with_gradient)
    assert_close(chosen.dense(last["reached"]), ours.dense(run(ours, sets, leaf)))
    if with_gradient:
        assert_close(chosen.weights_grad(last["leaf"]), ours.weights_grad(leaf))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Workload outermost, then engine, so that one graph and one engine are in memory at a time."""
    size, names = metafunc.config.getoption("--tercet-size"), [name for name in ENGINES if name != "late mixing"]
    axes: dict[str, Any] = {"name": names, "hop": (1, 2, 3), "with_gradient": (False, True)}
    if metafunc.function is bench_power_law:
        axes = {"spec": POWER_LAWS[size], **axes}
    elif metafunc.function is bench_grid:
        axes = {"spec": GRIDS[size], "name": list(ENGINES)}
    metafunc.parametrize(tuple(axes), list(itertools.product(*axes.values())), ids=_id)


def bench_metaqa(benchmark: BenchmarkFixture, metaqa: Path, name: str, hop: int, with_gradient: bool) -> None:
    benchmark.group = f"MetaQA, hop {hop}, {'forward + backward' if with_gradient else 'forward'}"
    run_hop(benchmark, workload(workloads.metaqa, metaqa / "kb.txt"), name, hop, with_gradient)


def bench_power_law(
    benchmark: BenchmarkFixture, spec: tuple[int, ...], name: str, hop: int, with_gradient: bool
) -> None:
    load = workload(workloads.power_law, *spec)
    direction = "forward + backward" if with_gradient else "forward"
    benchmark.group = f"power law {_short(spec[0])} entities {_short(2 * spec[1])} edges, hop {hop}, {direction}"
    run_hop(benchmark, load, name, hop, with_gradient)


def bench_grid(benchmark: BenchmarkFixture, spec: tuple[int, int], name: str) -> None:
    """Two hops from fresh seeds with fresh weights near 1: the figure is queries a second."""
    load = workload(workloads.grid, *spec)
    benchmark.group = f"grid {spec[0]} x {spec[0]}, {spec[1]} extra relations, 2 hops"
    skip_what_cannot_run(name, load, 20 * load.batch)
    rng, chosen, ours, last = np.random.default_rng(7), engine(name, load), rivals.Tercet(load.graph), {}

    def fresh() -> tuple[Any, Tensor]:
        last["seeds"], last["w"] = load.seeds(rng), load.relation_weights(rng)
        return chosen.start(last["seeds"]), chosen.weights(last["w"])

    def call(state: Any, weights: Tensor) -> None:
        last["reached"] = chosen.follow(chosen.follow(state, weights), weights)

    measure(benchmark, call, fresh)
    seeds, w = last["seeds"], last["w"]
    once = ours.follow(seeds, w)
    note(benchmark, load, name, load.frontier_edges(seeds) + load.frontier_edges(once))
    assert_close(chosen.dense(last["reached"]), ours.dense(ours.follow(once, w)))


def _id(value: object) -> str | None:
    return "-".join(map(str, value)) if isinstance(value, tuple) else None


def _short(count: int) -> str:
    return f"{count / 1e6:g}M" if count >= 1_000_000 else f"{count // 1000}k"
