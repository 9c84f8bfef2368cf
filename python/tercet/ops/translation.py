"""`transe_score` and `transe_scores`: how well a translation holds, by l1 or l2 distance or inner product.

Every score is summed in one order, whatever the batch, the number of threads and the other entities are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tercet.ops import _checks, _native, _translation_cuda
from tercet.ops._library import define
from tercet.ops.reference import translation as reference

NORMS = reference.NORMS


def transe_score(heads: Tensor, relations: Tensor, tails: Tensor, *, norm: str) -> Tensor:
    """Scores of triples, higher is better: -|h + r - t| (l1, l2) or <h + r, t> (dot).

    Differentiable once; where a difference is 0 its gradient is 0.

    Args:
        heads, relations, tails: embeddings [..., dim] that broadcast, float32 or float64.
        norm: "l1", "l2" or "dot".

    Returns:
        [...], of the arguments' dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Source:
        Bordes et al.: Translating Embeddings for Modeling Multi-relational Data, NIPS 2013. dot: Fisher et al.:
        Debiasing knowledge graph embeddings, EMNLP 2020.

    Example:
        >>> h, r, t = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 4.0]])
        >>> transe_score(h, r, t, norm="l1")
        tensor([-2.5000])
    """
    op = "transe_score"
    _checks.choice(op, "norm", norm, NORMS)
    _checks.floating(op, "heads", heads)
    for name, value in (("relations", relations), ("tails", tails)):
        _checks.floating(op, name, value)
        _checks.same(op, name, value, "heads", heads)
    try:
        heads, relations, tails = torch.broadcast_tensors(heads, relations, tails)
    except RuntimeError:
        shapes = ", ".join(str(list(value.shape)) for value in (heads, relations, tails))
        raise ValueError(f"tercet.{op}: heads, relations and tails must broadcast, got {shapes}") from None
    if heads.ndim == 0:
        raise ValueError(f"tercet.{op}: heads, relations and tails must be [..., dim], got three numbers")
    shape = heads.shape[:-1].numel(), heads.shape[-1]
    rows = [value.reshape(shape) for value in (heads, relations, tails)]
    scores: Tensor = _transe_score(*rows, norm)
    return scores.reshape(heads.shape[:-1])


def transe_scores(queries: Tensor, entities: Tensor, *, norm: str, num_threads: int | None = None) -> Tensor:
    """Scores of every entity for every query, higher is better: -|q - e| (l1, l2) or <q, e> (dot).

    A query is h + r for tails, t - r for heads (dot: t). Differentiable once; the gradient of a difference of 0 is 0.

    Args:
        queries: float32 or float64 [batch, dim].
        entities: the same dtype [num_entities, dim].
        norm: "l1", "l2" or "dot".
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Returns:
        [batch, num_entities]. To rank entities use `transe_rank`, for the best ones `transe_top`: neither stores this.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device or shape.

    Example:
        >>> transe_scores(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0], [3.0, 5.0]]), norm="l2")
        tensor([[-0., -5.]])
    """
    check_pair("transe_scores", queries, entities, norm)
    threads = _checks.threads("transe_scores", num_threads)
    scores: Tensor = _transe_scores(queries, entities, norm, threads)
    return scores


def check_pair(op: str, queries: Tensor, entities: Tensor, norm: str) -> None:
    """queries [batch, dim] and entities [num_entities, dim] of one floating dtype and device, and a known norm."""
    _checks.choice(op, "norm", norm, NORMS)
    _checks.floating(op, "queries", queries)
    _checks.floating(op, "entities", entities)
    _checks.same(op, "entities", entities, "queries", queries)
    if queries.ndim != 2 or entities.ndim != 2 or queries.shape[1] != entities.shape[1]:
        raise ValueError(
            f"tercet.{op}: queries and entities must be [batch, dim] and [num_entities, dim], got"
            f" {list(queries.shape)} and {list(entities.shape)}"
        )


def _rows(*tables: Tensor) -> list[Tensor]:
    """Contiguous tensors, to be held as long as their addresses are used."""
    return [table.contiguous() for table in tables]


def _score_cpu(heads: Tensor, relations: Tensor, tails: Tensor, norm: str) -> Tensor:
    rows = _rows(heads, relations, tails)
    scores = heads.new_empty(len(heads))
    _native.cpu.transe_score(_native.DTYPE_CODES[heads.dtype], NORMS.index(norm), *map(_native.pointer, rows),
                             *heads.shape, scores.data_ptr(), _native.threads(0))  # fmt: skip
    return scores


def _score_cuda(heads: Tensor, relations: Tensor, tails: Tensor, norm: str) -> Tensor:
    native = _native.cuda_kernel("transe_score")
    if native is None:
        return reference.transe_score(heads, relations, tails, norm)
    return _translation_cuda.transe_score(native, heads, relations, tails, norm)


def _score_fake(heads: Tensor, relations: Tensor, tails: Tensor, norm: str) -> Tensor:
    return heads.new_empty(heads.shape[0])


def _score_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    heads, relations, tails, ctx.norm = inputs
    ctx.save_for_backward(heads, relations, tails)


def _score_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    gradients = _transe_score_backward(grad, *ctx.saved_tensors, ctx.norm)
    to_query, to_tails = gradients
    return to_query, to_query, to_tails, None


def _score_backward_cpu(
    grad: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    rows = _rows(grad, heads, relations, tails)
    to_query, to_tails = torch.empty_like(rows[1]), torch.empty_like(rows[1])
    _native.cpu.transe_score_backward(_native.DTYPE_CODES[heads.dtype], NORMS.index(norm),
                                      *map(_native.pointer, rows), *heads.shape, to_query.data_ptr(),
                                      to_tails.data_ptr(), _native.threads(0))  # fmt: skip
    return to_query, to_tails


def _score_backward_cuda(
    grad: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    native = _native.cuda_kernel("transe_score")
    if native is None:
        return reference.transe_score_backward(grad, heads, relations, tails, norm)
    return _translation_cuda.transe_score_backward(native, grad, heads, relations, tails, norm)


def _score_backward_fake(
    grad: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    return heads.new_empty(heads.shape), heads.new_empty(heads.shape)


def _scores_cpu(queries: Tensor, entities: Tensor, norm: str, num_threads: int) -> Tensor:
    rows = _rows(queries, entities)
    scores = queries.new_empty(len(queries), len(entities))
    code, dim, threads = _native.DTYPE_CODES[queries.dtype], queries.shape[1], _native.threads(num_threads)
    scratch = queries.new_empty(threads, _native.cpu.transe_scores_scratch(code, dim))
    _native.cpu.transe_scores(code, NORMS.index(norm), *map(_native.pointer, rows), *scores.shape, dim,
                              scores.data_ptr(), scratch.data_ptr(), threads)  # fmt: skip
    return scores


def _scores_cuda(queries: Tensor, entities: Tensor, norm: str, num_threads: int) -> Tensor:
    native = _native.cuda_kernel("transe_scores")
    if native is None:
        return _translation_cuda.scores_by_torch(queries, entities, norm)
    return _translation_cuda.transe_scores(native, queries, entities, norm)


def _scores_fake(queries: Tensor, entities: Tensor, norm: str, num_threads: int) -> Tensor:
    return queries.new_empty(queries.shape[0], entities.shape[0])


def _scores_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, entities, ctx.norm, ctx.num_threads = inputs
    # l2's gradient divides by the distances; the others do not need the scores.
    ctx.save_for_backward(queries, entities, output if ctx.norm == "l2" else None)


def _scores_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    queries, entities, scores = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:2]
    to_queries, to_entities = _transe_scores_backward(
        grad, queries, entities, scores, ctx.norm, *wanted, ctx.num_threads
    )
    return to_queries if wanted[0] else None, to_entities if wanted[1] else None, None, None


def _pull_weights(grad: Tensor, scores: Tensor | None) -> Tensor:
    """What multiplies the differences. Of l2 (scores given) the gradient goes along the difference by its length."""
    return grad if scores is None else torch.where(scores != 0, grad / -scores, 0)


def _scores_backward_cpu(
    grad: Tensor, queries: Tensor, entities: Tensor, scores: Tensor | None, norm: str, to_queries: bool,
    to_entities: bool, num_threads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    weights, queries, entities = _rows(_pull_weights(grad, scores), queries, entities)
    num_entities = weights.shape[1]
    sides = (
        (to_queries, queries, entities, (weights.data_ptr(), num_entities, 1)),
        (to_entities, entities, queries, (weights.data_ptr(), 1, num_entities)),
    )
    results = []
    for wanted, rows, partners, strides in sides:
        out = rows.new_empty(rows.shape if wanted else 0)
        results.append(out)
        if wanted:
            _native.cpu.transe_scores_backward(
                _native.DTYPE_CODES[rows.dtype], NORMS.index(norm), rows.data_ptr(), partners.data_ptr(), len(rows),
                len(partners), rows.shape[1], strides, out.data_ptr(), _native.threads(num_threads),
            )  # fmt: skip
    return results[0], results[1]


def _scores_backward_cuda(
    grad: Tensor, queries: Tensor, entities: Tensor, scores: Tensor | None, norm: str, to_queries: bool,
    to_entities: bool, num_threads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    native = _native.cuda_kernel("transe_scores")
    if native is None:
        gradients = _translation_cuda.gradients_by_torch(grad, queries, entities, norm)
        wanted = zip(gradients, (to_queries, to_entities), strict=True)
        results = [gradient if keep else gradient.new_empty(0) for gradient, keep in wanted]
        return results[0], results[1]
    weights, queries, entities = _pull_weights(grad, scores), *_rows(queries, entities)
    sides = (to_queries, weights, queries, entities), (to_entities, weights.T, entities, queries)
    results = [_translation_cuda.weighted_sums(native, weight, rows, partners, norm) if wanted else rows.new_empty(0)
               for wanted, weight, rows, partners in sides]  # fmt: skip
    return results[0], results[1]


def _scores_backward_fake(
    grad: Tensor, queries: Tensor, entities: Tensor, scores: Tensor | None, norm: str, to_queries: bool,
    to_entities: bool, num_threads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    wanted = zip((queries, entities), (to_queries, to_entities), strict=True)
    results = [table.new_empty(table.shape if keep else 0) for table, keep in wanted]
    return results[0], results[1]


def _no_second_gradient(ctx: Any, *grads: Any) -> Any:
    raise NotImplementedError("tercet.transe_score(s) is differentiable once; its gradient has no gradient")


def _saves_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


_transe_score = define(
    "transe_score(Tensor heads, Tensor relations, Tensor tails, str norm) -> Tensor",
    cpu=_score_cpu,
    cuda=_score_cuda,
    fake=_score_fake,
    setup_context=_score_setup,
    backward=_score_gradients,
)
_transe_score_backward = define(
    "transe_score_backward(Tensor grad, Tensor heads, Tensor relations, Tensor tails, str norm) -> (Tensor, Tensor)",
    cpu=_score_backward_cpu,
    cuda=_score_backward_cuda,
    fake=_score_backward_fake,
    setup_context=_saves_nothing,
    backward=_no_second_gradient,
)
_transe_scores = define(
    "transe_scores(Tensor queries, Tensor entities, str norm, int num_threads) -> Tensor",
    cpu=_scores_cpu,
    cuda=_scores_cuda,
    fake=_scores_fake,
    setup_context=_scores_setup,
    backward=_scores_gradients,
)
_transe_scores_backward = define(
    "transe_scores_backward(Tensor grad, Tensor queries, Tensor entities, Tensor? scores, str norm, bool to_queries,"
    " bool to_entities, int num_threads) -> (Tensor, Tensor)",
    cpu=_scores_backward_cpu,
    cuda=_scores_backward_cuda,
    fake=_scores_backward_fake,
    setup_context=_saves_nothing,
    backward=_no_second_gradient,
)
