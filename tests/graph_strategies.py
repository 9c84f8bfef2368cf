"""Random triples, their plain numpy graph, and ways to break one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from tercet import KnowledgeGraph


class Case(NamedTuple):
    heads: np.ndarray
    relations: np.ndarray
    tails: np.ndarray
    num_entities: int
    num_relations: int

    @property
    def rows(self) -> np.ndarray:
        return np.stack([self.heads, self.relations, self.tails], 1)


@st.composite
def cases(draw: st.DrawFn, min_edges: int = 0) -> Case:
    """Structure by hypothesis (sizes, hub, isolated last entities, duplicates, dtype), values by a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_entities = draw(st.sampled_from([1, 2, 5, 40, 3000, 9000]))
    num_relations = draw(st.sampled_from([1, 3, 5000]))
    size = draw(st.sampled_from([min_edges, 1, 7, 300, 6000])) or min_edges
    used = max(1, num_entities - draw(st.sampled_from([0, 1, 3])))  # the last entities may have no edges
    rows = np.stack([rng.integers(0, used, size), rng.integers(0, num_relations, size), rng.integers(0, used, size)], 1)
    if size and draw(st.booleans()):  # a hub longer than the radix threshold, as subject and as object
        rows[: size // 2, 0] = used // 2
        rows[size // 4 : size // 2 + size // 4, 2] = 0
    if draw(st.booleans()):
        rows = rng.permutation(np.concatenate([rows, rows[: size // 3]]))
    rows = rows.astype(draw(st.sampled_from([np.int32, np.int64, np.uint16])))
    return Case(rows[:, 0], rows[:, 1], rows[:, 2], num_entities, num_relations)


def plain(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row_offsets, edges [E, 3] in order, the first triple of each edge) by numpy."""
    edges, first = np.unique(case.rows.astype(np.int64).reshape(-1, 3), axis=0, return_index=True)
    counts = np.bincount(edges[:, 0], minlength=case.num_entities)
    return np.concatenate([[0], np.cumsum(counts)]), edges, first


def with_inverses(case: Case) -> Case:
    """Every triple and its inverse."""
    heads, relations, tails = (column.astype(np.int64) for column in case[:3])
    both = np.concatenate([heads, tails]), np.concatenate([relations, relations + case.num_relations])
    return Case(*both, np.concatenate([tails, heads]), case.num_entities, 2 * case.num_relations)


def graph_of(case: Case, **options: object) -> KnowledgeGraph:
    return KnowledgeGraph.from_triples(
        *case[:3], num_entities=case.num_entities, num_relations=case.num_relations, **options
    )


def edges_of(graph: KnowledgeGraph) -> np.ndarray:
    subjects = np.repeat(np.arange(graph.num_entities), graph.row_offsets.diff().numpy())
    return np.stack([subjects, graph.relations.numpy(), graph.objects.numpy()], 1)


def assert_same(a: KnowledgeGraph, b: KnowledgeGraph) -> None:
    for name in ("row_offsets", "relations", "objects"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.edge_ids is None) == (b.edge_ids is None)
    assert a.edge_ids is None or torch.equal(a.edge_ids, b.edge_ids)
    assert (a.num_entities, a.num_relations, a.has_inverses) == (b.num_entities, b.num_relations, b.has_inverses)


def small(**options: object) -> KnowledgeGraph:
    return KnowledgeGraph.from_triples(
        [0, 0, 2],
        [1, 0, 0],
        [1, 2, 0],
        num_entities=4,
        num_relations=2,
        entity_names=["Heat", "Pacino", "Heat", "Oslo"],
        relation_names=["year", "actor"],
        **options,
    )
