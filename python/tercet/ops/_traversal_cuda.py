"""`follow` and its gradients by the CUDA kernels: what `traversal.py` does for the CPU, on the current stream.

A batch is worked through in parts of consecutive rows whose visits (edges of the frontier) fit in the scratch. The host
waits for the device once for the visits of the rows and once for each part's members, because sizes depend on both.
Nothing is summed in an order that changes between runs, so there is no non-deterministic mode to switch off.
"""

from __future__ import annotations

from bisect import bisect_right
from types import ModuleType

import torch
from torch import Tensor

from tercet.ops import _native
from tercet.ops._native import pointer, sets_of

Part = tuple[int, int, int, int, int, int]  # first and last row, member, visit


class Hop:
    """The arguments that forward and backward share, and the frontier: which visits each member and each row makes.

    Tensors are held for as long as their addresses are used.
    """

    def __init__(
        self,
        native: ModuleType,
        weights: Tensor,
        offsets: Tensor,
        entities: Tensor,
        relation_weights: Tensor,
        row_offsets: Tensor,
        relations: Tensor,
        objects: Tensor,
        edge_weights: Tensor | None,
    ) -> None:
        self.device, self.code = weights.device, _native.DTYPE_CODES[weights.dtype]
        self.queue = queue_of(self.device)
        self.batch, self.num_relations = len(offsets) - 1, relation_weights.shape[1]
        self.graph = (row_offsets.data_ptr(), relations.data_ptr(), objects.data_ptr(), len(row_offsets) - 1,
                      self.num_relations)  # fmt: skip
        self.sets = sets_of(offsets, entities)
        weight_tensors = [t if t is None else t.contiguous() for t in (weights, relation_weights, edge_weights)]
        self.weights = tuple(pointer(tensor) for tensor in weight_tensors)

        members = len(entities)
        rows, first_visits = self.integers(members), self.integers(members + 1)
        self.frontier = (rows.data_ptr(), first_visits.data_ptr(), members)
        self.held = (rows, first_visits, *weight_tensors)
        scratch = self.scratch(native.follow_visits_workspace(self.queue, members))
        native.follow_visits(self.queue, self.graph, self.sets, self.frontier, scratch.data_ptr())
        self.members: list[int]  # the first of each row, and the end
        self.visits: list[int]
        self.members, self.visits = torch.stack([offsets, first_visits[offsets]]).tolist()

    def integers(self, size: int) -> Tensor:
        """Uninitialised int64 [size]."""
        return torch.empty(size, dtype=torch.int64, device=self.device)

    def scratch(self, size: int) -> Tensor:
        """Uninitialised bytes; the allocator aligns them to 512 and gives them to this stream alone."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def parts(self, visit_bytes: int, row_bytes: int, budget: int) -> list[Part]:
        """The batch in runs of rows whose scratch fits in the budget, one row at least."""
        visits, members = self.visits, self.members
        costs = [visits[row] * visit_bytes + row * row_bytes for row in range(self.batch + 1)]
        rows = row_parts(costs, budget)
        return [(first, last, members[first], members[last], visits[first], visits[last]) for first, last in rows]


def row_parts(costs: list[int], budget: int) -> list[tuple[int, int]]:
    """Runs of rows (first, last) that cost at most `budget`, or one row; costs [batch + 1]: of all rows before each."""
    parts: list[tuple[int, int]] = []
    first, batch = 0, len(costs) - 1
    while first < batch:
        last = max(bisect_right(costs, costs[first] + budget) - 1, first + 1)
        parts.append((first, last))
        first = last
    return parts


def queue_of(device: torch.device) -> tuple[int, int]:
    """The device's index and its current stream, as native code takes them."""
    stream = torch.cuda.current_stream(device)
    return stream.device_index, stream.cuda_stream


def follow(
    native: ModuleType,
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
    scratch_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(weights, offsets, entities) of y, as the reference returns them."""
    with torch.cuda.device(weights.device):
        hop = Hop(native, weights, offsets, entities, relation_weights, row_offsets, relations, objects, edge_weights)
        exclude = sets_of(exclude_offsets, exclude_entities)
        out_offsets = torch.zeros_like(offsets)
        results = [(weights.new_empty(0), entities.new_empty(0))]
        before = 0
        for part in hop.parts(native.follow_visit_bytes(weights.dtype.itemsize), 0, scratch_bytes):
            results.append(_follow_part(native, hop, exclude, part, before, out_offsets, weights, entities))
            before += len(results[-1][0])
        if len(results) == 2:
            return results[1][0], out_offsets, results[1][1]
        return torch.cat([part[0] for part in results]), out_offsets, torch.cat([part[1] for part in results])


def _follow_part(
    native: ModuleType,
    hop: Hop,
    exclude: tuple[int, int, int],
    part: Part,
    before: int,
    out_offsets: Tensor,
    weights: Tensor,
    entities: Tensor,
) -> tuple[Tensor, Tensor]:
    """A part's (weights, entities), like the tensors given; writes the offsets of its rows, after `before` members."""
    scratch = hop.scratch(native.follow_workspace(hop.queue, hop.code, hop.graph, part))
    size = native.follow_count(hop.queue, hop.code, hop.graph, hop.sets, hop.weights, exclude, hop.frontier, part,
                               before, out_offsets.data_ptr(), scratch.data_ptr())  # fmt: skip
    part_weights, part_entities = weights.new_empty(size), entities.new_empty(size)
    native.follow_fill(hop.queue, hop.code, hop.graph, part, size, part_entities.data_ptr(), part_weights.data_ptr(),
                       scratch.data_ptr())  # fmt: skip
    return part_weights, part_entities


def follow_backward(
    native: ModuleType,
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
    scratch_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to x, w and c (empty unless `with_edges`), as the reference returns them."""
    with torch.cuda.device(weights.device):
        hop = Hop(native, weights, offsets, entities, relation_weights, row_offsets, relations, objects, edge_weights)
        grad, result = grad.contiguous(), sets_of(out_offsets, out_entities)
        grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
        grad_relations = torch.empty_like(relation_weights, memory_format=torch.contiguous_format)
        grad_edges = weights.new_zeros(len(objects) if with_edges else 0)
        row_bytes = 16 * hop.num_relations
        for part in hop.parts(native.follow_visit_bytes(weights.dtype.itemsize), row_bytes, scratch_bytes):
            _backward_part(native, hop, result, grad, part, grad_weights, grad_relations)
            if with_edges:
                _backward_edges_part(native, hop, result, grad, part, grad_edges)
        return grad_weights, grad_relations, grad_edges


def _backward_part(
    native: ModuleType,
    hop: Hop,
    result: tuple[int, int, int],
    grad: Tensor,
    part: Part,
    grad_weights: Tensor,
    grad_relations: Tensor,
) -> None:
    """Writes the gradients to the part's members and rows."""
    scratch = hop.scratch(native.follow_backward_workspace(hop.queue, hop.code, hop.graph, part))
    native.follow_backward(hop.queue, hop.code, hop.graph, hop.sets, hop.weights, result, grad.data_ptr(), hop.frontier,
                           part, grad_weights.data_ptr(), grad_relations.data_ptr(), scratch.data_ptr())  # fmt: skip


def _backward_edges_part(
    native: ModuleType, hop: Hop, result: tuple[int, int, int], grad: Tensor, part: Part, grad_edges: Tensor
) -> None:
    """Adds the part's gradients to the edges."""
    num_edges = len(grad_edges)
    scratch = hop.scratch(native.follow_backward_edges_workspace(hop.queue, hop.code, num_edges, part))
    native.follow_backward_edges(hop.queue, hop.code, hop.graph, num_edges, hop.sets, hop.weights, result,
                                 grad.data_ptr(), hop.frontier, part, grad_edges.data_ptr(),
                                 scratch.data_ptr())  # fmt: skip
