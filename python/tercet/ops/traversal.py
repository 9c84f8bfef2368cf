"""`follow`: weighted traversal of a knowledge graph by one hop.

The op takes tensors only. Its sparse push reads the frontier's edges; given the graph's incoming edges it runs the dense
pull instead. Both sum in one order, so they give the same bits, as does any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tercet.ops import _checks, _native
from tercet.ops.reference import traversal as reference

if TYPE_CHECKING:
    from tercet.graph.entity_sets import EntitySets
    from tercet.graph.knowledge_graph import KnowledgeGraph


def follow(
    graph: KnowledgeGraph,
    sets: EntitySets,
    relation_weights: Tensor,
    *,
    edge_weights: Tensor | None = None,
    exclude: Tensor | EntitySets | None = None,
    clamp: bool = False,
    layout: str = "auto",
    num_threads: int | None = None,
    scratch_bytes: int = 256 << 20,
) -> EntitySets:
    """Follow weighted relations from each set of a batch. (Reference only for now.)"""
    if isinstance(exclude, Tensor):
        exclude = sets.one_hot(exclude)
    weights, offsets, entities = reference.follow(
        sets.weights, sets.offsets, sets.entities, relation_weights, graph.row_offsets, graph.relations, graph.objects,
        edge_weights, *((exclude.offsets, exclude.entities) if exclude is not None else (None, None)))
    if clamp:
        weights = weights / weights.detach().clamp(min=1)
    return sets.trusted(weights, offsets, entities, graph.num_entities)
