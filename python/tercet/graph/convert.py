"""Graphs of other libraries, as the arguments of `KnowledgeGraph.from_triples`. Nothing of them is imported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def pykeen(factory: Any) -> dict[str, Any]:
    """From a PyKEEN triples factory: mapped_triples [num_triples, 3], and labels where it has them."""
    triples = getattr(factory, "mapped_triples", None)
    if triples is None or triples.ndim != 2 or triples.shape[1] != 3:
        raise ValueError("tercet.KnowledgeGraph.from_pykeen: triples_factory must have mapped_triples [num_triples, 3]")
    sizes = {
        "entity": int(factory.num_entities),
        "relation": int(getattr(factory, "real_num_relations", factory.num_relations)),
    }
    arguments: dict[str, Any] = dict(zip(("heads", "relations", "tails"), triples.unbind(1), strict=True))
    for kind, size in sizes.items():
        arguments["num_entities" if kind == "entity" else "num_relations"] = size
        ids = getattr(factory, f"{kind}_to_id", None)
        if ids is not None:
            labels = {index: str(label) for label, index in ids.items()}
            arguments[f"{kind}_names"] = [labels.get(index, str(index)) for index in range(size)]
    return arguments


def pyg(data: Any, entity_names: Iterable[str] | None, relation_names: Iterable[str] | None) -> dict[str, Any]:
    """From PyTorch Geometric data: edge_index [2, num_triples] and edge_type [num_triples]."""
    op = "KnowledgeGraph.from_pyg"
    index, types = getattr(data, "edge_index", None), getattr(data, "edge_type", None)
    if index is None or types is None:
        raise ValueError(
            f"tercet.{op}: data must have edge_index and edge_type; heterogeneous data has to_homogeneous()"
        )
    if index.ndim != 2 or index.shape[0] != 2:
        raise ValueError(f"tercet.{op}: edge_index must be [2, num_triples], got {list(index.shape)}")
    names = None if relation_names is None else list(relation_names)
    used = int(types.max()) + 1 if len(types) else 0
    return {
        "heads": index[0],
        "relations": types,
        "tails": index[1],
        "num_entities": int(data.num_nodes),
        "num_relations": used if names is None else len(names),
        "entity_names": entity_names,
        "relation_names": names,
    }
