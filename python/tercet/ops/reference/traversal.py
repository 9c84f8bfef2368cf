"""`follow` in plain torch: expand every edge of the frontier, then sum by object.

Cohen, Sun, Hofer, Siegler: Scalable Neural Methods for Reasoning With a Symbolic Knowledge Base, ICLR 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rows_of(offsets: Tensor) -> Tensor:
    """The row of each member: offsets [batch + 1] -> int64 [num_members]."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def offsets_of(rows: Tensor, batch: int) -> Tensor:
    """The inverse of `rows_of`, for sorted rows: int64 [batch + 1]."""
    return torch.searchsorted(rows, torch.arange(batch + 1, device=rows.device))


def frontier_edges(row_offsets: Tensor, entities: Tensor) -> tuple[Tensor, Tensor]:
    """Every edge that leaves a member: (member, edge), both int64 [num_visits], in the order of members and edges."""
    starts, degrees = row_offsets[entities], row_offsets.diff()[entities]
    member = torch.repeat_interleave(torch.arange(len(entities), device=entities.device), degrees)
    first = degrees.cumsum(0) - degrees
    return member, starts[member] + torch.arange(len(member), device=entities.device) - first[member]


def follow(
    weights: Tensor,
    offsets: Tensor,
    entities: Tensor,
    relation_weights: Tensor,
    row_offsets: Tensor,
    relations: Tensor,
    objects: Tensor,
    edge_weights: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
    exclude_entities: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y[b, o] = sum over edges (s, p, o) of x[b, s] w[b, p] c_e, as (weights, offsets, entities)."""
    entities = entities.long()
    batch, num_entities = len(offsets) - 1, len(row_offsets) - 1
    member, edge = frontier_edges(row_offsets, entities)
    row = rows_of(offsets)[member]
    values = weights[member] * relation_weights[row, relations[edge].long()]
    if edge_weights is not None:
        values = values * edge_weights[edge]
    keys, target = torch.unique(row * num_entities + objects[edge], return_inverse=True)
    sums = torch.zeros(len(keys), dtype=weights.dtype, device=weights.device).index_add(0, target, values)
    if exclude_offsets is not None and exclude_entities is not None:
        kept = ~torch.isin(keys, rows_of(exclude_offsets) * num_entities + exclude_entities)
        keys, sums = keys[kept], sums[kept]
    rows = keys.div(max(num_entities, 1), rounding_mode="floor")
    return sums, offsets_of(rows, batch), (keys - rows * num_entities).int()


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to x, w and c (empty unless `with_edges`); reads the edges of the frontier only."""
    entities = entities.long()
    batch, num_entities = len(offsets) - 1, len(row_offsets) - 1
    num_relations = relation_weights.shape[1]
    member, edge = frontier_edges(row_offsets, entities)
    row, relation = rows_of(offsets)[member], relations[edge].long()
    keys = rows_of(out_offsets) * num_entities + out_entities
    wanted = row * num_entities + objects[edge]
    position = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
    if len(keys):
        arriving = torch.where(keys[position] == wanted, grad[position], 0)  # an excluded object brings nothing
    else:
        arriving = torch.zeros(len(edge), dtype=grad.dtype, device=grad.device)
    x, w = weights[member], relation_weights[row, relation]
    c = 1 if edge_weights is None else edge_weights[edge]
    grad_weights = torch.zeros_like(weights).index_add(0, member, w * c * arriving)
    grad_relations = relation_weights.new_zeros(batch * num_relations)
    grad_relations = grad_relations.index_add(0, row * num_relations + relation, x * c * arriving)
    grad_edges = weights.new_zeros(0)
    if with_edges and edge_weights is not None:
        grad_edges = torch.zeros_like(edge_weights).index_add(0, edge, x * w * arriving)
    return grad_weights, grad_relations.view(batch, num_relations), grad_edges
