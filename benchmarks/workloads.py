"""The graphs, queries and triples that the benchmarks run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet import EntitySets, FilterIndex, KnowledgeGraph
from tercet.graph.splits import read_splits

Draw = Callable[[np.random.Generator, int], Tensor]


@dataclass(eq=False)
class Workload:
    """A graph, where questions may start, how many are asked at once, and how their relation weights are drawn."""

    graph: KnowledgeGraph
    starts: Tensor
    batch: int
    draw: Draw

    def seeds(self, rng: np.random.Generator) -> EntitySets:
        """A random start for each question."""
        return EntitySets.one_hot(self.starts[torch.from_numpy(rng.integers(0, len(self.starts), self.batch))])

    def relation_weights(self, rng: np.random.Generator) -> Tensor:
        """Fresh weights, float32 [batch, num_relations]."""
        return self.draw(rng, self.batch)

    def frontier_edges(self, sets: EntitySets) -> int:
        """How many edges leave the members of the sets."""
        return int(self.graph.row_offsets.diff()[sets.entities.long()].sum())


def dirichlet(num_relations: int) -> Draw:
    """As a softmax gives while it learns: some relations weigh much, none weighs 0."""
    return lambda rng, batch: torch.from_numpy(rng.dirichlet(np.full(num_relations, 0.1), batch).astype(np.float32))


def near_one(num_relations: int) -> Draw:
    """Every relation weighs about 1, as in the grid protocol."""
    return lambda rng, batch: torch.from_numpy(1 + 0.001 * rng.random((batch, num_relations), dtype=np.float32))


def metaqa(knowledge_base: Path) -> Workload:
    """MetaQA's knowledge base with inverses (267,164 edges), 128 questions that start at subjects of its facts."""
    ids: dict[str, dict[str, int]] = {"entity": {}, "relation": {}}

    def id_of(kind: str, name: str) -> int:
        return ids[kind].setdefault(name, len(ids[kind]))

    rows = [line.split("|") for line in knowledge_base.read_text(encoding="utf-8").splitlines()]
    triples = np.array([(id_of("entity", s), id_of("relation", p), id_of("entity", o)) for s, p, o in rows])
    graph = from_triples(triples, len(ids["entity"]), len(ids["relation"])).with_inverses()
    return Workload(graph, torch.from_numpy(triples[:, 0].copy()), 128, dirichlet(graph.num_relations))


def grid(size: int, extra_relations: int = 0) -> Workload:
    """The grid of the reified knowledge base's paper: size x size cells, relations n, s, e, w; 128 queries.

    Each extra relation takes over one edge, as in the authors' script.
    Cohen, Sun, Hofer, Siegler: Scalable Neural Methods for Reasoning With a Symbolic Knowledge Base, ICLR 2020.
    """
    row, column = (axis.ravel() for axis in np.meshgrid(np.arange(size), np.arange(size), indexing="ij"))
    parts = []
    for relation, (down, right) in enumerate(((-1, 0), (1, 0), (0, 1), (0, -1))):
        inside = (row + down >= 0) & (row + down < size) & (column + right >= 0) & (column + right < size)
        cells = row[inside] * size + column[inside]
        parts.append(np.stack([cells, np.full(len(cells), relation), cells + down * size + right], 1))
    triples = np.concatenate(parts)
    triples = triples[np.lexsort((triples[:, 1], triples[:, 0]))]
    triples[:extra_relations, 1] = 4 + np.arange(extra_relations)
    num_relations = 4 + extra_relations
    graph = from_triples(triples, size * size, num_relations)
    return Workload(graph, torch.arange(size * size), 128, near_one(num_relations))


def power_law(num_entities: int, num_triples: int, num_relations: int, batch: int) -> Workload:
    """Few entities have most edges: an entity's rank is num_entities u^2 as subject and u^3 as object, u uniform.

    Questions start at the subjects of random triples.
    """
    rng = np.random.default_rng(0)

    def draw_entities(exponent: int) -> NDArray[np.int64]:
        ranks = (num_entities * rng.random(num_triples) ** exponent).astype(np.int64)
        return rng.permutation(num_entities)[ranks]

    triples = np.stack([draw_entities(2), rng.integers(0, num_relations, num_triples), draw_entities(3)], 1)
    graph = from_triples(triples, num_entities, num_relations).with_inverses()
    return Workload(graph, torch.from_numpy(triples[:, 0].copy()), batch, dirichlet(graph.num_relations))


def from_triples(triples: NDArray[np.int64], num_entities: int, num_relations: int) -> KnowledgeGraph:
    """The graph of int64 [num_triples, 3] rows subject, relation, object."""
    return KnowledgeGraph.from_triples(*triples.T, num_entities=num_entities, num_relations=num_relations)


@dataclass(eq=False)
class RankingLoad:
    """Triples in three splits, int64 [num_triples, 3], and the index of all of them."""

    train: Tensor
    valid: Tensor
    test: Tensor
    num_entities: int
    num_relations: int

    def __post_init__(self) -> None:
        self.known = torch.cat([self.train, self.valid, self.test])
        sizes = {"num_entities": self.num_entities, "num_relations": self.num_relations}
        self.index = FilterIndex(self.known, **sizes)


def public_graph(folder: Path) -> RankingLoad:
    """A folder of train.txt, valid.txt and test.txt."""
    splits = read_splits(folder)
    return RankingLoad(splits.train, splits.valid, splits.test, splits.num_entities, splits.num_relations)


def power_law_triples(num_entities: int, num_triples: int, num_relations: int) -> RankingLoad:
    """Generated: the triples of `power_law` without inverses; a hundredth each is for valid and test."""
    graph = power_law(num_entities, num_triples, num_relations, 1).graph
    subjects = torch.repeat_interleave(torch.arange(graph.num_entities), graph.row_offsets.diff())
    triples = torch.stack([subjects, graph.relations.long(), graph.objects.long()], dim=1)
    triples = triples[triples[:, 1] < num_relations]
    triples = triples[torch.randperm(len(triples), generator=torch.Generator().manual_seed(0))]
    part = len(triples) // 100
    return RankingLoad(triples[2 * part :], triples[:part], triples[part : 2 * part], num_entities, num_relations)
