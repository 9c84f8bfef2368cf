"""Translation scores and their gradients on CUDA: by the kernels on the current stream, and by torch without them.

What torch does stays as small as the kernels' results: nothing of size [batch, num_entities, dim] is stored.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from tercet.ops import _native
from tercet.ops._native import pointer
from tercet.ops._traversal_cuda import queue_of
from tercet.ops.reference import translation as reference
from tercet.ops.reference.translation import NORMS

_PART = 1 << 24  # numbers that one step of the gradients by torch stores


def codes(table: Tensor, norm: str) -> tuple[tuple[int, int], int, int]:
    """Stream, dtype and norm, as native functions take them."""
    return queue_of(table.device), _native.DTYPE_CODES[table.dtype], NORMS.index(norm)


def transe_score(native: ModuleType, heads: Tensor, relations: Tensor, tails: Tensor, norm: str) -> Tensor:
    """As the reference."""
    with torch.cuda.device(heads.device):
        rows = [table.contiguous() for table in (heads, relations, tails)]
        scores = heads.new_empty(len(heads))
        native.transe_score(*codes(heads, norm), *map(pointer, rows), *heads.shape, scores.data_ptr())
        return scores


def transe_score_backward(
    native: ModuleType, grad: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    """As the reference."""
    with torch.cuda.device(heads.device):
        rows = [table.contiguous() for table in (grad, heads, relations, tails)]
        to_query, to_tails = torch.empty_like(rows[1]), torch.empty_like(rows[1])
        native.transe_score_backward(*codes(heads, norm), *map(pointer, rows), *heads.shape, to_query.data_ptr(),
                                     to_tails.data_ptr())  # fmt: skip
        return to_query, to_tails


def transe_scores(native: ModuleType, queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """As the reference."""
    with torch.cuda.device(queries.device):
        rows = [table.contiguous() for table in (queries, entities)]
        scores = queries.new_empty(len(queries), len(entities))
        native.transe_scores(*codes(queries, norm), *map(pointer, rows), *scores.shape, queries.shape[1],
                             scores.data_ptr())  # fmt: skip
        return scores


def weighted_sums(native: ModuleType, weights: Tensor, rows: Tensor, partners: Tensor, norm: str) -> Tensor:
    """out[i] = sum over j of weights[i, j] f(rows[i], partners[j]); see csrc/translation.h. Rows are contiguous."""
    with torch.cuda.device(rows.device):
        out = torch.empty_like(rows)
        queue, code, norm_code = codes(rows, norm)
        sizes = (*weights.shape, rows.shape[1])
        scratch = torch.empty(native.transe_scores_backward_workspace(code, *sizes), dtype=torch.uint8,
                              device=rows.device)  # fmt: skip
        native.transe_scores_backward(queue, code, norm_code, rows.data_ptr(), partners.data_ptr(), *sizes,
                                      (weights.data_ptr(), *weights.stride()), out.data_ptr(),
                                      scratch.data_ptr())  # fmt: skip
        return out


def scores_by_torch(queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """The reference's scores."""
    if norm == "dot":
        return queries @ entities.T
    mode = "donot_use_mm_for_euclid_dist"
    return -torch.cdist(queries, entities, p=1 if norm == "l1" else 2, compute_mode=mode)


def gradients_by_torch(grad: Tensor, queries: Tensor, entities: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The reference's gradients to queries and entities, by parts of the entities."""
    size = len(entities) if norm == "dot" else max(1, _PART // max(1, queries.numel()))
    to_queries, to_entities = torch.zeros_like(queries), torch.zeros_like(entities)
    for first in range(0, len(entities), max(size, 1)):
        part = slice(first, first + size)
        more, to_entities[part] = reference.transe_scores_backward(grad[:, part], queries, entities[part], norm)
        to_queries += more
    return to_queries, to_entities
