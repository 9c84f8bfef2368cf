"""Filtered ranking in plain torch, one query at a time and in float64.

A query is a vector to which every entity is compared: head + relation for tails, tail - relation for heads (dot: the
tail itself, since what the relation adds is the same for every head).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.ops.reference.translation import compare


def query(anchors: Tensor, relations: Tensor, norm: str, tails: bool) -> Tensor:
    """The vectors that entities are compared to: embeddings of anchors and relations, [..., dim] each -> [..., dim]."""
    if tails:
        return anchors + relations
    return anchors if norm == "dot" else anchors - relations


def rank_counts(
    entities: Tensor,
    relations: Tensor,
    anchors: Tensor,
    anchor_relations: Tensor,
    target_offsets: Tensor,
    targets: Tensor,
    known_ranges: Tensor | None,
    known_entities: Tensor | None,
    candidate_ranges: Tensor | None,
    candidate_entities: Tensor | None,
    norm: str,
    tails: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What stands before and beside each target of each query.

    Args:
        entities: [num_entities, dim]; relations: [num_relations, dim].
        anchors, anchor_relations: integers [num_queries], the head (`tails`) or tail of each query and its relation.
        target_offsets, targets: the true entities of query q are targets[target_offsets[q]:target_offsets[q + 1]].
        known_ranges: int64 [num_queries, 2]: query q's known entities are known_entities[first:last]; they are no
            rivals. None: there are none.
        candidate_ranges, candidate_entities: likewise the only rivals that count; None: all entities.

    Returns:
        better, equal: int64 [num_targets], the rivals of each target with a higher and the same score, itself not
        counted; rivals: int64 [num_targets], how many there are.
    """
    num_entities, device = len(entities), entities.device
    vectors = query(entities.double()[anchors.long()], relations.double()[anchor_relations.long()], norm, tails)
    counts = torch.zeros(3, len(targets), dtype=torch.int64, device=device)
    for q, (first, last) in enumerate(zip(target_offsets[:-1].tolist(), target_offsets[1:].tolist(), strict=True)):
        scores = compare(vectors[q], entities.double(), norm)
        rival = torch.ones(num_entities, dtype=torch.bool, device=device)
        if candidate_ranges is not None and candidate_entities is not None:
            begin, end = candidate_ranges[q].tolist()
            rival[:] = False
            rival[candidate_entities[begin:end].long()] = True
        if known_ranges is not None and known_entities is not None:
            begin, end = known_ranges[q].tolist()
            rival[known_entities[begin:end].long()] = False
        for place in range(first, last):
            target = int(targets[place])
            others = rival.clone()
            others[target] = False
            counts[0, place] = (scores[others] > scores[target]).sum()
            counts[1, place] = (scores[others] == scores[target]).sum()
            counts[2, place] = others.sum()
    better, equal, rivals = counts
    return better, equal, rivals


def transe_top(
    queries: Tensor,
    entities: Tensor,
    k: int,
    norm: str,
    exclude_offsets: Tensor | None = None,
    exclude_entities: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best scores of each query and their entities [batch, k]; the smaller id first among equals.

    Where fewer than k entities are left, the rest is -inf and -1.
    """
    scores = torch.stack([compare(vector, entities, norm) for vector in queries]) if len(queries) else queries[:, :0]
    scores = scores.reshape(len(queries), len(entities))
    if exclude_offsets is not None and exclude_entities is not None:
        rows = torch.repeat_interleave(torch.arange(len(queries), device=queries.device), exclude_offsets.diff())
        scores[rows, exclude_entities.long()] = -torch.inf
    values, order = scores.sort(dim=1, descending=True, stable=True)
    values, order = values[:, :k], order[:, :k]
    return values, torch.where(values == -torch.inf, -1, order)
