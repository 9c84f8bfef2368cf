"""Training steps by the CUDA kernels, on the current stream; the loss is the reference's."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tercet.ops._native import pointer
from tercet.ops._translation_cuda import codes
from tercet.ops.reference import translation_training as reference
from tercet.ops.reference.translation import compare

if TYPE_CHECKING:
    from tercet.ops.translation_training import Batches, Gradients, Loss


def batch_gradients(
    native: ModuleType,
    entities: Tensor,
    relations: Tensor,
    batches: Batches,
    args: tuple[int, ...],
    index: int,
    norm: str,
    loss: Loss,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of Gradients of positives with their own negatives; args: batches as native functions take them."""
    _, size, num_negatives = batches.negatives.shape
    dim = entities.shape[1]
    with torch.cuda.device(entities.device):
        start = *codes(entities, norm), (entities.data_ptr(), relations.data_ptr(), dim), args, index
        queries, scores = entities.new_empty(size, 2, dim), entities.new_empty(size, 1 + num_negatives)
        native.own_scores(*start, queries.data_ptr(), scores.data_ptr())
        shift = None
        if norm == "dot":  # <e + r, t> = <e, t> + <r, t>
            _, kinds, tails = batches.triples[index].long().unbind(1)
            shift = compare(relations[kinds], entities[tails], norm)
        losses, weights = score_weights(scores, shift, batches.num_tails[index], norm, loss)
        positives = entities.new_empty(size, 3, dim)
        native.own_gradients(*start, weights.data_ptr(), positives.data_ptr())
        return losses, queries, positives, weights[:, 1:].contiguous()


def score_weights(
    scores: Tensor, shift: Tensor | None, num_tails: Tensor, norm: str, loss: Loss
) -> tuple[Tensor, Tensor]:
    """The losses of positives, and the gradients of their mean to the scores (l2: divided by the distance).

    Args:
        scores: [size, 1 + K] of each positive and its negatives.
        shift: [size], what replaced heads' scores hold beside.
        num_tails: [size]: how many of a positive's negatives replace tails.
    """
    is_tail = torch.arange(scores.shape[1] - 1, device=scores.device) < num_tails[:, None]
    positive, negatives = scores[:, 0].double(), scores[:, 1:].double()
    if shift is not None:
        negatives = negatives + torch.where(is_tail, 0, shift[:, None].double())
    losses, *gradients = reference._loss(loss, positive, negatives, is_tail, torch.ones_like(is_tail))
    weights = torch.cat([gradients[0][:, None], gradients[1]], dim=1).to(scores.dtype) / len(scores)
    if norm == "l2":
        weights = torch.where(scores != 0, weights / -scores, 0)
    return losses, weights


def apply_gradients(
    native: ModuleType,
    entities: Tensor,
    relations: Tensor,
    args: tuple[int, ...],
    index: int,
    gradients: Gradients,
    norm: str,
    rule: tuple[float, ...],
    moments: list[tuple[int, ...]],
    unit_ball: bool,
) -> None:
    """Moves the rows; rule and moments as native functions take them."""
    tables = entities.data_ptr(), relations.data_ptr(), entities.shape[1]
    native.apply_gradients(*codes(entities, norm), tables, args, index, tuple(map(pointer, gradients)), rule, *moments,
                           unit_ball)  # fmt: skip
