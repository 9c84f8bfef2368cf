"""A graph with triples added and removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tercet.ops import graph_build
from tercet.ops.graph_build import Csr

if TYPE_CHECKING:
    from tercet.graph.knowledge_graph import KnowledgeGraph


def updated(graph: KnowledgeGraph, csr: Csr, add: Any, remove: Any) -> Csr:
    """The edges of (graph - remove) + add, by a linear merge of sorted rows."""
    relations = graph.num_relations // 2 if graph.has_inverses else graph.num_relations
    parts = {}
    for name, value in (("add", add), ("remove", remove)):
        heads, kinds, tails = _columns(graph, name, value)
        keep = name == "add" and csr.edge_ids is not None
        op = f"updated({name})"
        part = graph_build.build(op, heads, kinds, tails, graph.num_entities, relations, keep_edge_ids=keep)
        if part.edge_ids is not None and csr.edge_ids is not None and len(csr.edge_ids):
            part = part._replace(edge_ids=part.edge_ids + (int(csr.edge_ids.max()) + 1))
        parts[name] = graph_build.inverses(part, relations) if graph.has_inverses else part
    return graph_build.merge(csr, parts["add"], parts["remove"], graph.num_relations)


def one_entity(graph: KnowledgeGraph, name: str) -> int:
    """The id of the only entity of that name."""
    ids = graph.find_entity(name)
    if len(ids) > 1:
        raise ValueError(f"tercet.find_entity: {len(ids)} entities are named {name!r}; pass one of the ids {ids[:10]}")
    return ids[0]


def _columns(graph: KnowledgeGraph, argument: str, triples: Any) -> Sequence[Any]:
    """Heads, relations and tails of [count, 3] ids, or of a sequence of triples of ids or names."""
    if triples is None or len(triples) == 0:
        return [], [], []
    if isinstance(triples, (Tensor, np.ndarray)):
        if triples.ndim != 2 or triples.shape[1] != 3:
            raise ValueError(f"tercet.updated: {argument} must be [count, 3], got {list(triples.shape)}")
        return [triples[:, place] for place in range(3)]
    rows = [tuple(row) for row in triples]
    if any(len(row) != 3 for row in rows):
        raise ValueError(f"tercet.updated: {argument} must hold triples (head, relation, tail)")
    heads, relations, tails = zip(*rows, strict=True)
    entities = [[one_entity(graph, v) if isinstance(v, str) else v for v in column] for column in (heads, tails)]
    return entities[0], [graph.find_relation(v) if isinstance(v, str) else v for v in relations], entities[1]
