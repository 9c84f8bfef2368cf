"""Training steps for TransE tables: sample negatives, gradients of a loss, update the rows that they touch.

    batches = sample_batches(...)                   negatives, and which gradients go to which row, for many batches
    gradients = batch_gradients(..., batches, i)    scores -> loss -> how it changes with every score and positive
    apply_gradients(..., batches, i, gradients)     each touched row sums its gradients in one order, and moves

The three are plain functions over tables that change in place. What a seed gives does not depend on the number of
threads. On other devices than the CPU the reference runs, but CUDA has kernels for positives with negatives of their
own and for the update.

Sources: margin: Bordes et al., NIPS 2013; Bernoulli: Wang et al., Knowledge Graph Embedding by Translating on
Hyperplanes, AAAI 2014; self-adversarial: Sun et al., RotatE, ICLR 2019; row-wise Adagrad and negatives that a chunk
shares: Lerer et al., PyTorch-BigGraph, MLSys 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.ops import _checks, _native, _translation_training_cuda, graph_build
from tercet.ops.filter_index import FilterIndex
from tercet.ops.reference import translation_training as reference
from tercet.ops.translation import NORMS

LOSSES = ("margin", "softmax", "self_adversarial")
OPTIMIZERS = ("sgd", "rowwise_adagrad", "adam", "adagrad")  # by the kernels' codes
SAMPLINGS = ("uniform", "bernoulli", "shared")


@dataclass(frozen=True)
class Loss:
    """What is minimised: the mean over positives of the loss of one positive with score s and negatives s_k.

    margin: the mean over its negatives of max(0, margin - s + s_k), whose gradient at margin - s + s_k = 0 is 0.
    softmax: the mean over its two sides (negatives that replace the tail, and the head) of
        -log(exp(s) / (exp(s) + sum_k exp(s_k))).
    self_adversarial: the mean over its two sides of
        (-log sigmoid(margin + s) - sum_k p_k log sigmoid(-margin - s_k)) / 2, where p = softmax(temperature s_k) is no
        function of the tables.

    Negatives that are absent (see `batch_gradients`) appear in no mean, sum or softmax. A side whose negatives are all
    absent, or that has none, is left out of the mean; the loss of a positive without any negative is 0.
    """

    name: str = "margin"
    margin: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    """How a touched row x with gradient g moves; the others stay. A row with an entry in the batch is touched.

    sgd: x -= learning_rate g.
    adagrad: a += g^2; x -= learning_rate g / (sqrt(a) + epsilon), as torch.optim.Adagrad.
    rowwise_adagrad: one step size a row, which takes dim times less memory: a += mean(g^2), the rest likewise.
    adam: m = beta1 m + (1 - beta1) g; v likewise with g^2 and beta2; x -= learning_rate m' / (sqrt(v') + epsilon) with
        m' = m / (1 - beta1^step), v' = v / (1 - beta2^step); step counts batches.
    """

    name: str = "rowwise_adagrad"
    learning_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-10


class OptimizerState(NamedTuple):
    """What the optimizer remembers, of entities, then of relations: rowwise_adagrad: a [rows]; adagrad: a [rows, dim];
    adam: m, v [rows, dim]."""

    entities: tuple[Tensor, ...]
    relations: tuple[Tensor, ...]


class Batches(NamedTuple):
    """Batches of one size P, in chunks of S positives that share K negatives; C = ceil(P / S) chunks a batch.

    Attributes:
        triples: int32 [num_batches, P, 3], the positives.
        negatives: int32 [num_batches, C, K]; the first num_tails of a chunk replace tails, the others heads.
        num_tails: int32 [num_batches, C].
        entity_entries: int64 [num_batches, 2 P + C K] ascending: row << 32 | entry. Entry p < P is the head of positive
            p, P + p its tail, 2 P + c K + k negative k of chunk c: every gradient to an entity, by row.
        relation_entries: int64 [num_batches, P] ascending: relation << 32 | p.
        chunk_size: S; 1: every positive has negatives of its own.
    """

    triples: Tensor
    negatives: Tensor
    num_tails: Tensor
    entity_entries: Tensor
    relation_entries: Tensor
    chunk_size: int


class Gradients(NamedTuple):
    """How the loss of one batch, the mean over its positives, changes.

    Attributes:
        loss: float64 [P], of each positive.
        queries: [P, 2, dim]: what negatives were compared to: h + r for tails, t - r (dot: t) for heads.
        positives: [P, 3, dim]: gradients to the positive's head, relation and tail.
        negatives: chunk_size 1: [P, K], by which the gradient to a negative e of query q is multiplied: it is
            w sign(q - e) (l1), w (q - e) (l2; w = 0 where q = e) or w q (dot). Else [C, K, dim], gradients to the
            negatives.
    """

    loss: Tensor
    queries: Tensor
    positives: Tensor
    negatives: Tensor


def optimizer_state(optimizer: Optimizer, entities: Tensor, relations: Tensor) -> OptimizerState:
    """The state before the first step."""
    if optimizer.name == "rowwise_adagrad":
        return OptimizerState(*((table.new_zeros(len(table)),) for table in (entities, relations)))
    if optimizer.name == "adagrad":
        return OptimizerState(*((torch.zeros_like(table),) for table in (entities, relations)))
    if optimizer.name == "adam":
        return OptimizerState(*((torch.zeros_like(t), torch.zeros_like(t)) for t in (entities, relations)))
    return OptimizerState((), ())


def tail_probability(triples: Tensor, num_relations: int) -> Tensor:
    """How often a negative of each relation should replace the tail, float64 [num_relations] (Wang et al. 2014).

    hpt / (tph + hpt), where tph is the mean number of tails of a head and hpt of heads of a tail; 0.5 for a relation
    without triples.
    """
    heads, relations, tails = triples.long().unbind(1)
    count = torch.bincount(relations, minlength=num_relations).double()
    distinct = []
    for column in (heads, tails):
        pairs = torch.stack([relations, column], dim=1).unique(dim=0)
        distinct.append(torch.bincount(pairs[:, 0], minlength=num_relations).double())
    tails_of_head, heads_of_tail = (count / number for number in distinct)
    return torch.where(count > 0, heads_of_tail / (tails_of_head + heads_of_tail), 0.5)


def sample_batches(
    triples: Tensor,
    *,
    num_entities: int,
    num_negatives: int,
    chunk_size: int = 1,
    tail_probability: Tensor | None = None,
    known: FilterIndex | None = None,
    seed: int = 0,
    epoch: int = 0,
    first: int = 0,
    num_threads: int | None = None,
) -> Batches:
    """Negatives for batches of positives, and the order in which rows will sum their gradients.

    What is drawn depends on the seed, the epoch and the position of a chunk in it, on nothing else.

    Args:
        triples: int32 [num_batches, P, 3], ids trusted to be in range.
        num_entities: at least 2.
        num_negatives: K, of each chunk; half of them replace the tail (of an odd number one more or less, by chance).
        chunk_size: how many positives share negatives; 1: each has its own, which never are the entity they replace.
        tail_probability: float64 [num_relations], for Bernoulli sampling, with chunk_size 1 only: how often a negative
            replaces the tail.
        known: with chunk_size 1: negatives that make one of these triples are drawn again, up to 32 draws in all.
        seed, epoch: of the draws.
        first: the position in the epoch of the first chunk.
        num_threads: CPU threads, default torch's; the result does not depend on it.
    """
    num_batches, size, _ = triples.shape
    num_chunks = -(-size // chunk_size)
    negatives = triples.new_empty(num_batches, num_chunks, num_negatives)
    num_tails = triples.new_empty(num_batches, num_chunks)
    num_entries = 2 * size + num_chunks * num_negatives
    of_entities, of_relations = (triples.new_empty(num_batches, n, dtype=torch.int64) for n in (num_entries, size))
    batches = Batches(triples.contiguous(), negatives, num_tails, of_entities, of_relations, chunk_size)
    key = epoch_key(seed, epoch)
    if triples.device.type != "cpu":
        reference.sample_batches(batches, num_entities, tail_probability, known, key, first)
        return batches
    threads = _native.threads(_checks.threads("sample_batches", num_threads))
    scratch = torch.empty(threads, num_entries, dtype=torch.int64)
    _native.cpu.sample_batches(_batches_of(batches), (key, first, num_entities), _native.pointer(tail_probability),
                               _known_of(known), scratch.data_ptr(), threads)  # fmt: skip
    return batches


def batch_gradients(
    entities: Tensor,
    relations: Tensor,
    batches: Batches,
    index: int,
    *,
    norm: str,
    loss: Loss,
    known: FilterIndex | None = None,
    out: Gradients | None = None,
    num_threads: int | None = None,
) -> Gradients:
    """The loss of one batch and its gradients; the tables stay.

    Args:
        entities, relations: contiguous float32 or float64 [num_entities, dim], [num_relations, dim].
        batches, index: which batch.
        norm: "l1", "l2" or "dot".
        loss: what is minimised.
        known: with shared negatives: those that make one of these triples count as absent. Those that equal the true
            entity always do.
        out: gradients of a batch of these sizes, to be overwritten: fresh memory costs more than a small batch.
        num_threads: CPU threads, default torch's; the result does not depend on it.
    """
    _, size, _ = batches.triples.shape
    _, num_chunks, num_negatives = batches.negatives.shape
    dim = entities.shape[1]
    if entities.device.type != "cpu":
        native = None
        if entities.device.type == "cuda" and batches.chunk_size == 1:
            native = _native.cuda_kernel("batch_gradients")
        if native is None:
            return Gradients(*reference.batch_gradients(entities, relations, batches, index, norm, loss, known))
        fields = _translation_training_cuda.batch_gradients(native, entities, relations, batches, _batches_of(batches),
                                                            index, norm, loss)  # fmt: skip
        return Gradients(*fields)
    if out is None:
        own = batches.chunk_size == 1
        out = Gradients(
            torch.empty(size, dtype=torch.float64),
            entities.new_empty(size, 2, dim),
            entities.new_empty(size, 3, dim),
            entities.new_empty((size, num_negatives) if own else (num_chunks, num_negatives, dim)),
        )
    code = _native.DTYPE_CODES[entities.dtype]
    threads = _native.threads(_checks.threads("batch_gradients", num_threads))
    args = _batches_of(batches)
    scratch = torch.empty(threads * _native.cpu.batch_gradients_bytes(code, args, dim), dtype=torch.uint8)
    options = LOSSES.index(loss.name), loss.margin, loss.temperature
    _native.cpu.batch_gradients(code, NORMS.index(norm), (entities.data_ptr(), relations.data_ptr(), dim), args, index,
                                options, _known_of(known), tuple(map(_native.pointer, out)), scratch.data_ptr(),
                                threads)  # fmt: skip
    return out


def apply_gradients(
    entities: Tensor,
    relations: Tensor,
    state: OptimizerState,
    batches: Batches,
    index: int,
    gradients: Gradients,
    *,
    norm: str,
    optimizer: Optimizer,
    step: int,
    unit_ball: bool = False,
    num_threads: int | None = None,
) -> None:
    """Move the rows that a batch touches, in place.

    Args:
        entities, relations: the tables that the gradients were computed with.
        state: of the optimizer; changes in place.
        batches, index, gradients: the batch.
        norm: "l1", "l2" or "dot".
        optimizer: the rule.
        step: of the optimizer, counted from 1.
        unit_ball: scale touched entities that are longer than 1 (l2) to length 1.
        num_threads: CPU threads, default torch's; the result does not depend on it.
    """
    native = _native.cuda_kernel("apply_gradients") if entities.device.type == "cuda" else None
    if entities.device.type != "cpu" and native is None:
        reference.apply_gradients(
            entities, relations, state, batches, index, gradients, norm, optimizer, step, unit_ball
        )
        return
    rule = (OPTIMIZERS.index(optimizer.name), optimizer.learning_rate, optimizer.beta1, optimizer.beta2,
            optimizer.epsilon, step)  # fmt: skip
    moments = [tuple(_native.pointer(t) for t in (*part, None, None)[:2]) for part in state]
    if native is not None:
        _translation_training_cuda.apply_gradients(native, entities, relations, _batches_of(batches), index, gradients,
                                                   norm, rule, moments, unit_ball)  # fmt: skip
        return
    threads = _native.threads(_checks.threads("apply_gradients", num_threads))
    code, dim = _native.DTYPE_CODES[entities.dtype], entities.shape[1]
    scratch = entities.new_empty(threads, _native.cpu.apply_gradients_scratch(code, dim))
    _native.cpu.apply_gradients(code, NORMS.index(norm), (entities.data_ptr(), relations.data_ptr(), dim),
                                _batches_of(batches), index, tuple(map(_native.pointer, gradients)), rule, moments[0],
                                moments[1], unit_ball, scratch.data_ptr(), threads)  # fmt: skip


def epoch_key(seed: int, epoch: int) -> int:
    """mix(mix(seed) + epoch): what the draws of an epoch start from. mix: see csrc/mix.h."""
    return reference.mix_int(reference.mix_int(seed) + epoch)


def _batches_of(batches: Batches) -> tuple[int, ...]:
    """Batches as native functions take them."""
    num_batches, size, _ = batches.triples.shape
    sizes = num_batches, size, batches.chunk_size, batches.negatives.shape[2]
    return (*map(_native.pointer, batches[:5]), *sizes)


def _known_of(known: FilterIndex | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An index as native functions take it; null pointers for none."""
    if known is None:
        return (0,) * 5, (0,) * 5
    by_head, by_tail = (graph_build.graph_args(csr, known.num_relations) for csr in (known.by_head, known.by_tail))
    return by_head, by_tail
