"""What the tests draw: hypothesis draws structure and a seed, the seed draws values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from tercet import EntitySets, KnowledgeGraph
from tercet.ops import _native

# Largest deviation from the float64 reference by dtype, relative to the sum of the sizes of the terms: a hub's sum has
# about 10,000 terms, each of which may round by half a unit in the last place of the sum so far.
TOLERANCE = {torch.float32: 3e-5, torch.float64: 6e-14}

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Kernels of this level."""
    chosen = _native.cpu
    _native.cpu = _native.load_cpu(isa)
    try:
        yield
    finally:
        _native.cpu = chosen


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch's number of threads, which ops without an argument for it use."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Hop:
    """One call of follow."""

    graph: KnowledgeGraph
    sets: EntitySets
    relation_weights: Tensor
    edge_weights: Tensor | None
    exclude: EntitySets | None

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The arguments of the reference."""
        excluded = (None, None) if self.exclude is None else (self.exclude.offsets, self.exclude.entities)
        g, s = self.graph, self.sets
        members = s.weights, s.offsets, s.entities
        return *members, self.relation_weights, g.row_offsets, g.relations, g.objects, self.edge_weights, *excluded

    def options(self) -> dict[str, Tensor | EntitySets | None]:
        """The keyword arguments of tercet.follow."""
        return {"edge_weights": self.edge_weights, "exclude": self.exclude}


def random_graph(
    rng: np.random.Generator, num_entities: int, num_relations: int, num_triples: int, *, hubs: int = 0
) -> KnowledgeGraph:
    """Random triples; the last entity is isolated in every other graph; hubs have edges from and to everything."""
    used = max(num_entities - int(rng.integers(2)), 1)
    heads, tails = (rng.integers(0, used, num_triples) for _ in range(2))
    relations = rng.integers(0, num_relations, num_triples)
    for hub in rng.integers(0, used, hubs):
        others = np.arange(used)
        heads, tails = (
            np.concatenate([heads, np.full(used, hub), others]),
            np.concatenate([tails, others, 0 * others + hub]),
        )
        relations = np.concatenate([relations, rng.integers(0, num_relations, 2 * used)])
    return KnowledgeGraph.from_triples(heads, relations, tails, num_entities=num_entities, num_relations=num_relations)


def random_sets(
    rng: np.random.Generator, batch: int, num_entities: int, density: float, dtype: torch.dtype
) -> EntitySets:
    """Each entity is a member with probability `density`; one row is empty, some members weigh 0."""
    member = rng.random((batch, num_entities)) < density
    if batch > 1:
        member[rng.integers(batch)] = False
    rows, entities = member.nonzero()
    weights = rng.random(len(rows)) * (rng.random(len(rows)) < 0.9)
    offsets = np.searchsorted(rows, np.arange(batch + 1))
    return EntitySets(
        torch.from_numpy(weights).to(dtype), torch.from_numpy(offsets), torch.from_numpy(entities.astype(np.int32))
    )


def random_hop(
    rng: np.random.Generator,
    dtype: torch.dtype,
    *,
    batch: int,
    num_entities: int,
    num_relations: int,
    num_triples: int,
    hubs: int,
    density: float,
    edge_weights: bool,
    exclude: bool,
) -> Hop:
    """A graph, a batch of frontiers and weights."""
    graph = random_graph(rng, num_entities, num_relations, num_triples, hubs=hubs)
    return Hop(
        graph,
        random_sets(rng, batch, num_entities, density, dtype),
        torch.from_numpy(rng.standard_normal((batch, num_relations))).to(dtype),
        torch.from_numpy(rng.random(graph.num_edges)).to(dtype) if edge_weights else None,
        random_sets(rng, batch, num_entities, 0.3, dtype) if exclude else None,
    )


@st.composite
def hops(draw: st.DrawFn, *, dtype: torch.dtype | None = None, max_entities: int = 30, max_batch: int = 20) -> Hop:
    """Small hops, degenerate ones among them: no edges, one entity, no rows."""
    return random_hop(
        np.random.default_rng(draw(seeds)),
        draw(dtypes) if dtype is None else dtype,
        batch=draw(st.integers(0, max_batch)),
        num_entities=draw(st.integers(1, max_entities)),
        num_relations=draw(st.integers(1, 5)),
        num_triples=draw(st.integers(0, 80)),
        hubs=draw(st.integers(0, 2)),
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        edge_weights=draw(st.booleans()),
        exclude=draw(st.booleans()),
    )


@st.composite
def large_hops(draw: st.DrawFn) -> Hop:
    """Hops that give each thread several chunks of the pull (2048 entities) and pages of the push (4096), with hubs larger
    than both, and rows beyond one block of 16 lanes."""
    return random_hop(
        np.random.default_rng(draw(seeds)),
        draw(dtypes),
        batch=draw(st.integers(3, 19)),
        num_entities=draw(st.integers(8000, 13000)),
        num_relations=draw(st.integers(1, 40)),
        num_triples=draw(st.integers(0, 20000)),
        hubs=draw(st.integers(1, 3)),
        density=draw(st.sampled_from([0.001, 0.02, 0.3])),
        edge_weights=draw(st.booleans()),
        exclude=draw(st.booleans()),
    )


def deviation(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest wanted value."""
    if not want.numel():
        return 0.0
    return float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-30))


def grid(rng: np.random.Generator, *shape: int, dtype: torch.dtype, values: int = 4) -> Tensor:
    """Whole numbers from -values to values: sums, differences, squares and products are exact, and ties abound."""
    return torch.from_numpy(rng.integers(-values, values + 1, shape)).to(dtype)


def normal(rng: np.random.Generator, *shape: int, dtype: torch.dtype) -> Tensor:
    """Normally distributed values, float32 ones also as float64 the same."""
    return torch.from_numpy(rng.standard_normal(shape)).to(dtype)
