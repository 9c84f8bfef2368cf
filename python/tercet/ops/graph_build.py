"""The native graph builder, one function for each step.

Tensors are on the CPU and trusted unless a function checks them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tercet.ops import _checks, _native

LIMIT = 2**31 - 1
_COLUMNS = {1: "heads", 2: "relations", 3: "tails"}


class Csr(NamedTuple):
    """Edges by subject: row_offsets int64 [N + 1], relations and objects int32 [E], edge_ids int64 [E] or None."""

    row_offsets: Tensor
    relations: Tensor
    objects: Tensor
    edge_ids: Tensor | None


class Incoming(NamedTuple):
    """Edges by object, within an object in the graph's order: offsets int64 [N + 1], subjects and relations int32 [E].

    `edges` int64 [E] is each edge's place in the graph, or None where it was not asked for.
    """

    offsets: Tensor
    subjects: Tensor
    relations: Tensor
    edges: Tensor | None


class Column(NamedTuple):
    """Integer ids that native code reads in place: (address, stride in elements, whether int64), and who owns them."""

    args: tuple[int, int, bool]
    size: int
    owner: Any


def column(op: str, name: str, values: Any) -> Column:
    """Ids of any integer dtype, from a tensor, an array or a sequence; copied only when not int32 or int64."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.size == 0 and not isinstance(values, np.ndarray):
        array = array.astype(np.int64)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"tercet.{op}: {name} must hold integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"tercet.{op}: {name} must have one dimension, got shape {list(array.shape)}")
    if array.dtype == np.uint64 and array.size and int(array.max()) > LIMIT:
        position = int(np.argmax(array > LIMIT))
        raise ValueError(f"tercet.{op}: {name} must be below 2^31, got {array[position]} at position {position}")
    if array.dtype not in (np.int32, np.int64) or not array.flags.aligned or array.strides[0] % array.itemsize:
        array = np.ascontiguousarray(array, np.int64)
    stride = array.strides[0] // array.itemsize
    return Column((array.__array_interface__["data"][0], stride, array.dtype == np.int64), len(array), array)


def build(
    op: str,
    heads: Any,
    relations: Any,
    tails: Any,
    num_entities: int,
    num_relations: int,
    *,
    keep_edge_ids: bool = False,
    num_threads: int | None = None,
) -> Csr:
    """Edges sorted by (subject, relation, object), each once; ids are checked. See csrc/graph_build.h."""
    threads = _native.threads(_checks.threads(op, num_threads))
    columns = [
        column(op, name, values) for name, values in (("heads", heads), ("relations", relations), ("tails", tails))
    ]
    counts = [c.size for c in columns]
    if len(set(counts)) > 1:
        raise ValueError(f"tercet.{op}: heads, relations and tails must be equally long, got {counts}")
    triples = (*(c.args for c in columns), counts[0])
    code, position = _native.cpu.graph_check_triples(triples, num_entities, num_relations, threads)
    if code:
        size = num_relations if code == 2 else num_entities
        raise ValueError(
            f"tercet.{op}: {_COLUMNS[code]} must be in 0..{size - 1}, got {columns[code - 1].owner[position]}"
            f" at position {position}"
        )
    offsets = torch.empty(num_entities + 1, dtype=torch.int64)
    largest = _native.cpu.graph_build_offsets(triples, num_entities, _native.pointer(offsets), threads)
    out = _edges(counts[0], keep_edge_ids)
    scratch, _keep = _scratch(counts[0], largest, keep_edge_ids, threads)
    kept = _native.cpu.graph_build_edges(
        triples, num_entities, num_relations, _native.pointer(offsets), _addresses(out), scratch, threads
    )
    del _keep
    if kept < counts[0]:  # duplicates were merged: give their room back where it is worth a copy
        out = [None if t is None else t[:kept].clone() if kept < 0.9 * counts[0] else t[:kept] for t in out]
    return Csr(offsets, out[0], out[1], out[2])  # type: ignore[arg-type]


def inverses(graph: Csr, num_relations: int, *, num_threads: int | None = None) -> Csr:
    """The graph with the edge (o, r + num_relations, s) beside each edge (s, r, o)."""
    threads = _native.threads(_checks.threads("with_inverses", num_threads))
    num_edges, num_entities = len(graph.objects), len(graph.row_offsets) - 1
    offsets = torch.empty(num_entities + 1, dtype=torch.int64)
    args = graph_args(graph, num_relations)
    largest = _native.cpu.graph_inverse_offsets(args, num_edges, _native.pointer(offsets), threads)
    out = _edges(2 * num_edges, graph.edge_ids is not None)
    scratch, _keep = _scratch(num_edges, largest, graph.edge_ids is not None, threads)
    _native.cpu.graph_inverse_edges(
        args, _native.pointer(graph.edge_ids), _native.pointer(offsets), _addresses(out), scratch, threads
    )
    return Csr(offsets, *out)  # type: ignore[arg-type]


def incoming(graph: Csr, num_relations: int, *, edges: bool, num_threads: int | None = None) -> Incoming:
    """The edges by object."""
    threads = _native.threads(_checks.threads("incoming", num_threads))
    num_edges = len(graph.objects)
    offsets = torch.empty_like(graph.row_offsets)
    subjects, relations = torch.empty_like(graph.objects), torch.empty_like(graph.relations)
    places = torch.empty(num_edges, dtype=torch.int64) if edges else None
    _native.cpu.graph_incoming(
        graph_args(graph, num_relations),
        num_edges,
        *map(_native.pointer, (offsets, subjects, relations, places)),
        threads,
    )
    return Incoming(offsets, subjects, relations, places)


def merge(graph: Csr, added: Csr, removed: Csr, num_relations: int, *, num_threads: int | None = None) -> Csr:
    """(graph - removed) + added; an edge that stays keeps its edge id."""
    threads = _native.threads(_checks.threads("updated", num_threads))
    offsets = torch.empty_like(graph.row_offsets)
    args = [graph_args(csr, num_relations) for csr in (graph, added, removed)]
    _native.cpu.graph_merge_offsets(*args, _native.pointer(offsets), threads)
    out = _edges(int(offsets[-1]), graph.edge_ids is not None)
    _native.cpu.graph_merge_edges(
        args[0],
        _native.pointer(graph.edge_ids),
        args[1],
        _native.pointer(added.edge_ids),
        args[2],
        _native.pointer(offsets),
        _addresses(out),
        threads,
    )
    return Csr(offsets, *out)  # type: ignore[arg-type]


def fault(graph: Csr, num_relations: int, *, with_inverses: bool, num_threads: int | None = None) -> str | None:
    """What is wrong with a CSR of the right dtypes, in words; None when nothing is."""
    threads = _native.threads(_checks.threads("validate", num_threads))
    num_edges, num_entities = len(graph.objects), len(graph.row_offsets) - 1
    code, at = _native.cpu.graph_check(graph_args(graph, num_relations), num_edges, with_inverses, threads)
    if code == 0:
        return None
    if code == 2:
        return f"relations must be in 0..{num_relations - 1}, got {int(graph.relations[at])} at edge {at}"
    if code == 3:
        return f"objects must be in 0..{num_entities - 1}, got {int(graph.objects[at])} at edge {at}"
    if code == 4:
        return f"row_offsets must rise from 0 to {num_edges}, got {int(graph.row_offsets[at])} at position {at}"
    if code == 5:
        return f"edges must ascend by (relation, object) within a subject, each once; edge {at} does not"
    return f"relations {num_relations // 2}..{num_relations - 1} must hold the inverse of every edge, and do not"


def graph_args(graph: Csr, num_relations: int) -> tuple[int, int, int, int, int]:
    """The graph as native functions take it."""
    row_offsets, relations, objects = map(_native.pointer, graph[:3])
    return row_offsets, relations, objects, len(graph.row_offsets) - 1, num_relations


def _edges(count: int, with_ids: bool) -> list[Tensor | None]:
    relations, objects = torch.empty(count, dtype=torch.int32), torch.empty(count, dtype=torch.int32)
    return [relations, objects, torch.empty(count, dtype=torch.int64) if with_ids else None]


def _addresses(edges: list[Tensor | None]) -> tuple[int, ...]:
    return tuple(map(_native.pointer, edges))


def _scratch(num_edges: int, largest_row: int, with_ids: bool, threads: int) -> tuple[tuple[int, int, int], Tensor]:
    """One largest row for each worker, and never more than the edges: one row that is most of them has one worker."""
    workers = max(1, min(threads, num_edges // max(largest_row, 1)))
    memory = torch.empty(workers * largest_row * (2 if with_ids else 1), dtype=torch.int64)
    return (largest_row, workers, _native.pointer(memory)), memory
