"""Ranks by the CUDA kernel, on the current stream; best entities by sorting scores in parts."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from tercet.ops._native import pointer
from tercet.ops._translation_cuda import codes

_SCRATCH = 256 << 20  # bytes: for the queries that are ranked at once
_PAIRS = 1 << 24  # that are sorted at once


def rank_counts(
    native: ModuleType,
    entities: Tensor,
    relations: Tensor,
    anchors: Tensor,
    kinds: Tensor,
    target_offsets: Tensor,
    targets: Tensor,
    known_ranges: Tensor | None,
    known_entities: Tensor | None,
    rival_ranges: Tensor | None,
    rival_entities: Tensor | None,
    norm: str,
    tails: bool,
    *,
    scratch_bytes: int = _SCRATCH,
) -> tuple[Tensor, Tensor, Tensor]:
    """As the reference."""
    with torch.cuda.device(entities.device):
        tables = [t if t is None else t.contiguous()
                  for t in (entities, relations, anchors, kinds, target_offsets, targets,
                            known_ranges, known_entities, rival_ranges, rival_entities)]  # fmt: skip
        queue, code, norm_code = codes(entities, norm)
        (num_entities, dim), num_queries, num_targets = entities.shape, len(anchors), len(targets)
        at_once = min(max(1, scratch_bytes // max(1, dim * entities.dtype.itemsize)), max(1, num_queries))
        counts = [targets.new_zeros(num_targets, dtype=torch.int64) for _ in range(3)]
        scratch = torch.empty(native.rank_workspace(code, num_targets, dim, at_once), dtype=torch.uint8,
                              device=entities.device)  # fmt: skip
        native.rank_counts(queue, code, norm_code, tuple(map(pointer, tables)),
                           (num_entities, dim, num_queries, num_targets), tails, at_once,
                           tuple(map(pointer, counts)), scratch.data_ptr())  # fmt: skip
        better, equal, rivals = counts
        return better, equal, rivals


def transe_top(
    score: Callable[[Tensor, Tensor], Tensor],
    queries: Tensor,
    entities: Tensor,
    k: int,
    exclude_offsets: Tensor | None,
    exclude_entities: Tensor | None,
    *,
    pairs: int = _PAIRS,
) -> tuple[Tensor, Tensor]:
    """The k best scores of each query and their entities, from at most about `pairs` scores at a time.

    Args:
        score: the scores of some queries and some entities.
        The others as the op's.
    """
    batch, num_entities = len(queries), len(entities)
    values = queries.new_full((batch, k), -torch.inf)
    found = torch.full((batch, k), -1, dtype=torch.int64, device=queries.device)
    rows = min(max(1, pairs // max(1, num_entities)), max(1, batch))
    columns = max(1, pairs // rows)
    excluded = None
    if exclude_offsets is not None and exclude_entities is not None:
        sizes = exclude_offsets.diff()
        excluded = (torch.repeat_interleave(torch.arange(batch, device=sizes.device), sizes), exclude_entities.long())
    for top in range(0, batch, rows):
        best, ids = values[top : top + rows], found[top : top + rows]
        for first in range(0, num_entities, columns):
            # What is not a number or excluded becomes what the rest is filled with. + 0 makes equals of 0 and -0.
            part = score(queries[top : top + rows], entities[first : first + columns]) + 0.0
            part.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            if excluded is not None:
                _exclude(part, top, first, *excluded)
            here = torch.arange(first, first + part.shape[1], device=ids.device).expand(part.shape)
            # The best so far come first and have the smaller ids, so a stable sort keeps the order among equals.
            part, here = torch.cat([best, part], dim=1), torch.cat([ids, here], dim=1)
            part, order = part.sort(dim=1, descending=True, stable=True)
            best.copy_(part[:, :k])
            ids.copy_(here.gather(1, order[:, :k]))
        ids.masked_fill_(best == -torch.inf, -1)
    return values, found


def _exclude(scores: Tensor, top: int, first: int, rows: Tensor, entities: Tensor) -> None:
    """Writes -inf where a pair of rows and entities falls into the scores, which begin at row `top`, entity `first`."""
    inside = (rows >= top) & (rows < top + scores.shape[0]) & (entities >= first) & (entities < first + scores.shape[1])
    scores[rows[inside] - top, entities[inside] - first] = -torch.inf
