"""Checks of a whole graph: dtypes, shapes and devices here, the contents natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tercet.ops import _checks, graph_build

if TYPE_CHECKING:
    from tercet.graph.knowledge_graph import KnowledgeGraph

_ATTRIBUTE_DTYPES = (*_checks.VALUE_DTYPES, *_checks.ID_DTYPES)


def size(op: str, name: str, value: Any) -> int:
    """A number of entities or relations."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"tercet.{op}: {name} must be an integer, got {type(value).__name__}")
    if not 0 <= value <= graph_build.LIMIT:
        raise ValueError(f"tercet.{op}: {name} must be in 0..{graph_build.LIMIT}, got {value}")
    return int(value)


def check_graph(graph: KnowledgeGraph) -> None:
    """Every invariant of a graph; raises ValueError or TypeError naming the first that fails."""
    op = "KnowledgeGraph"
    size(op, "num_entities", graph.num_entities)
    size(op, "num_relations", graph.num_relations)
    _column(op, "row_offsets", graph.row_offsets, torch.int64, graph.objects)
    _column(op, "relations", graph.relations, torch.int32, graph.objects)
    _column(op, "objects", graph.objects, torch.int32, graph.objects)
    num_edges = len(graph.objects)
    _checks.shape(op, "row_offsets", graph.row_offsets, (graph.num_entities + 1,), "[num_entities + 1]")
    _checks.shape(op, "relations", graph.relations, (num_edges,), "[num_edges]")
    if graph.edge_ids is not None:
        _column(op, "edge_ids", graph.edge_ids, torch.int64, graph.objects)
        _checks.shape(op, "edge_ids", graph.edge_ids, (num_edges,), "[num_edges]")
    fault = graph_build.fault(graph._csr(), graph.num_relations, with_inverses=graph.has_inverses)
    if fault:
        raise ValueError(f"tercet.{op}: {fault}")
    for kind in ("entity_names", "relation_names"):
        names = getattr(graph, kind)
        fault = None if names is None else names.fault()
        if fault:
            raise ValueError(f"tercet.{op}: {kind}: {fault}")
    check_attributes(op, graph)


def check_attributes(op: str, graph: KnowledgeGraph) -> None:
    """Attributes are numbers, one for each entity, on the graph's device."""
    for name, value in graph.attributes.items():
        if _checks.tensor(op, f"attribute {name}", value).dtype not in _ATTRIBUTE_DTYPES:
            raise TypeError(f"tercet.{op}: attribute {name} must hold numbers, got {value.dtype}")
        _checks.shape(op, f"attribute {name}", value, (graph.num_entities,), "[num_entities]")
        _checks.same(op, f"attribute {name}", value, "objects", graph.objects, dtype=False)


def _column(op: str, name: str, value: Tensor, dtype: torch.dtype, objects: Tensor) -> None:
    if _checks.tensor(op, name, value).dtype != dtype:
        raise TypeError(f"tercet.{op}: {name} must be {dtype}, got {value.dtype}")
    if value.ndim != 1:
        raise ValueError(f"tercet.{op}: {name} must have one dimension, got shape {list(value.shape)}")
    _checks.same(op, name, value, "objects", _checks.tensor(op, "objects", objects), dtype=False)
