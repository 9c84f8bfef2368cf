"""`follow` and its gradients by the CPU kernels: the two layouts, and results whose size is not known before."""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.ops import _native
from tercet.ops._native import pointer, sets_of
from tercet.ops._scratch import Scratch, join, row_chunks

# Fewer edges than this in all are worked on faster by one thread than by waking others.
_EDGES_OF_A_THREAD = 16384


class Hop:
    """The arguments that forward and backward share, as native code takes them, and what the frontier costs.

    Tensors are held for as long as their addresses are used.
    """

    def __init__(
        self,
        weights: Tensor,
        offsets: Tensor,
        entities: Tensor,
        relation_weights: Tensor,
        row_offsets: Tensor,
        relations: Tensor,
        objects: Tensor,
        edge_weights: Tensor | None,
        num_threads: int,
    ) -> None:
        self.dtype, self.code = weights.dtype, _native.DTYPE_CODES[weights.dtype]
        self.batch, self.num_entities = offsets.numel() - 1, row_offsets.numel() - 1
        self.num_relations = relation_weights.shape[1]
        self.graph = (row_offsets.data_ptr(), relations.data_ptr(), objects.data_ptr(), self.num_entities,
                      self.num_relations)  # fmt: skip
        self.sets = sets_of(offsets, entities)
        self.held = [t if t is None else t.contiguous() for t in (weights, relation_weights, edge_weights)]
        self.weights = tuple(pointer(tensor) for tensor in self.held)
        self.bounds = torch.empty(self.batch + 1, dtype=torch.int64)
        self.max_edges, total_edges, self.room = _native.cpu.follow_bounds(
            self.graph, self.sets, self.bounds.data_ptr()
        )
        tasks = 1 + total_edges // _EDGES_OF_A_THREAD
        self.threads = 1 if tasks == 1 else min(_native.threads(num_threads), tasks)

    def scratch(self, tasks: int, budget: int) -> Scratch:
        """Scratch for this hop's edges, for as many workers as there are tasks, threads and budget for."""
        return Scratch(self.num_entities, self.dtype, tasks, self.max_edges, self.threads, budget)


def frontier_edges(row_offsets: Tensor, offsets: Tensor, entities: Tensor) -> int:
    """How many edges leave the members of all rows."""
    bounds = torch.empty_like(offsets)
    graph = (row_offsets.data_ptr(), 0, 0, row_offsets.numel() - 1, 0)
    _, total_edges, _ = _native.cpu.follow_bounds(graph, sets_of(offsets, entities), bounds.data_ptr())
    return int(total_edges)


class _Pull:
    """The dense pull's arguments where it is to run: `lanes` is 0 where the push runs instead."""

    def __init__(self, hop: Hop, incoming: tuple[Tensor | None, ...], budget: int) -> None:
        self.lanes = 0
        if incoming[0] is None:
            return
        _, relation_weights, edge_weights = hop.held
        # Absent members are multiplied by 0, which gives 0 with finite weights only.
        if not (_all_finite(relation_weights) and _all_finite(edge_weights)):
            return
        for lanes in (16, 4):
            size = _native.cpu.follow_pull_bytes(hop.num_entities, hop.num_relations, lanes, hop.dtype.itemsize)
            if size <= budget and (hop.batch > 4 or lanes == 4):
                self.lanes = lanes
                self.memory = torch.empty(size, dtype=torch.uint8)
                self.incoming = tuple(pointer(tensor) for tensor in incoming)
                return


def _all_finite(weights: Tensor | None) -> bool:
    return weights is None or bool(weights.isfinite().all())


def follow(
    weights: Tensor,
    offsets: Tensor,
    entities: Tensor,
    relation_weights: Tensor,
    row_offsets: Tensor,
    relations: Tensor,
    objects: Tensor,
    edge_weights: Tensor | None,
    exclude_offsets: Tensor | None,
    exclude_entities: Tensor | None,
    in_offsets: Tensor | None,
    in_subjects: Tensor | None,
    in_relations: Tensor | None,
    in_edges: Tensor | None,
    num_threads: int,
    scratch_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, offsets, entities) of y. Half of the budget goes to the kernel's scratch, half to room for results."""
    cpu, budget = _native.cpu, scratch_bytes // 2
    hop = Hop(weights, offsets, entities, relation_weights, row_offsets, relations, objects, edge_weights, num_threads)
    exclude = sets_of(exclude_offsets, exclude_entities)
    pull = _Pull(hop, (in_offsets, in_subjects, in_relations, in_edges), budget)
    scratch = None if pull.lanes else hop.scratch(hop.batch, budget)
    out_offsets = torch.empty(hop.batch + 1, dtype=torch.int64)
    parts: list[tuple[Tensor, Tensor]] = []
    value_bytes = hop.dtype.itemsize
    for first, last, room in row_chunks(hop.bounds, hop.room, budget // (value_bytes + 4)):
        memory = torch.empty(room * (value_bytes + 4), dtype=torch.uint8)  # weights, then entities
        room_weights = memory.data_ptr()
        output = (hop.bounds.data_ptr(), room_weights + room * value_bytes, room_weights, out_offsets.data_ptr())
        if scratch is None:
            size = cpu.follow_pull(hop.code, hop.graph, pull.incoming, hop.sets, hop.weights, exclude, first, last,
                                   pull.lanes, output, pull.memory.data_ptr(), hop.threads)  # fmt: skip
        else:
            size = cpu.follow_push(hop.code, hop.graph, hop.sets, hop.weights, exclude, first, last, hop.max_edges,
                                   output, scratch.args)  # fmt: skip
        part = torch.empty(size, dtype=torch.int32), torch.empty(size, dtype=hop.dtype)
        cpu.follow_compact(hop.code, output, first, last, part[0].data_ptr(), part[1].data_ptr(), hop.threads)
        parts.append(part)
    out_weights, out_entities = join(parts, hop.dtype)
    return out_weights, out_offsets, out_entities


def follow_backward(
    grad: Tensor,
    out_offsets: Tensor,
    out_entities: Tensor,
    weights: Tensor,
    offsets: Tensor,
    entities: Tensor,
    relation_weights: Tensor,
    row_offsets: Tensor,
    relations: Tensor,
    objects: Tensor,
    edge_weights: Tensor | None,
    with_edges: bool,
    num_threads: int,
    scratch_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to x, w and c (empty unless `with_edges`)."""
    cpu = _native.cpu
    hop = Hop(weights, offsets, entities, relation_weights, row_offsets, relations, objects, edge_weights, num_threads)
    grad, result = grad.contiguous(), sets_of(out_offsets, out_entities)
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    grad_relations = torch.empty_like(relation_weights, memory_format=torch.contiguous_format)
    scratch = hop.scratch(hop.batch, scratch_bytes)
    cpu.follow_backward(hop.code, hop.graph, hop.sets, hop.weights, result, grad.data_ptr(), grad_weights.data_ptr(),
                        grad_relations.data_ptr(), scratch.args)  # fmt: skip
    grad_edges = weights.new_zeros(len(objects) if with_edges else 0)
    if with_edges:
        scratch = hop.scratch(hop.threads, scratch_bytes)
        cpu.follow_backward_edges(hop.code, hop.graph, hop.sets, hop.weights, result, grad.data_ptr(),
                                  grad_edges.data_ptr(), scratch.args)  # fmt: skip
    return grad_weights, grad_relations, grad_edges
