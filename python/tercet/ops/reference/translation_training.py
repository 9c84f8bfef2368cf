"""Training steps in plain torch, one batch at a time; ops/translation_training.py says what they compute.

Every positive is laid out beside its K negatives: ids [P, K], scores [P, K], vectors [P, K, dim].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tercet.ops.reference.ranking import query
from tercet.ops.reference.translation import compare, direction

if TYPE_CHECKING:
    from tercet.ops.filter_index import FilterIndex
    from tercet.ops.translation_training import Batches, Gradients, Loss, Optimizer, OptimizerState

ATTEMPTS = 32
_MASK = 2**64 - 1


def mix_int(value: int) -> int:
    """Spreads the bits of an integer over 64 bits (Vigna's SplitMix64 finalizer), as csrc/mix.h does."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def mix(values: Tensor) -> Tensor:
    """`mix_int` of every value, int64: the same 64 bits, read as signed integers."""
    values = values + _signed(0x9E3779B97F4A7C15)
    values = (values ^ _shifted(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shifted(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shifted(values, 31)


def sample_batches(
    batches: Batches,
    num_entities: int,
    tail_probability: Tensor | None,
    known: FilterIndex | None,
    key: int,
    first: int,
) -> None:
    """Fill the negatives and entries of batches. What is drawn for a slot: see csrc/translation_training.h."""
    num_batches, num_chunks, num_negatives = batches.negatives.shape
    device, own = batches.triples.device, batches.chunk_size == 1
    place = torch.arange(num_batches * num_chunks, device=device).reshape(num_batches, num_chunks, 1)
    slots = torch.arange(num_negatives + 1, device=device)
    base = mix(place + first + _signed(key)) + slots * 64

    even = base.new_full((num_batches, num_chunks), num_negatives // 2)
    if num_negatives % 2:
        even += _low_half(mix(base[..., -1])) < 2**31
    base, slots = base[..., :-1], slots[:-1]
    if tail_probability is None:
        num_tails = even
    else:
        chance = tail_probability[batches.triples[..., 1].long()]
        num_tails = (_low_half(mix(base)) < chance[..., None] * 2**32).sum(-1)

    replaces_tail = slots < num_tails[..., None]
    if own:
        heads, kinds, tails = batches.triples.long()[..., None, :].expand(-1, -1, num_negatives, 3).unbind(-1)
        replaced = torch.where(replaces_tail, tails, heads)

    def draw(attempt: int) -> Tensor:
        high = _shifted(mix(base + attempt), 32)
        if not own:
            return high * num_entities >> 32
        other = high * (num_entities - 1) >> 32
        return other + (other >= replaced)

    negatives = draw(0)
    if own and known is not None:
        for attempt in range(1, ATTEMPTS):
            corrupted = torch.where(replaces_tail, heads, negatives), torch.where(replaces_tail, negatives, tails)
            again = is_known(known, corrupted[0], kinds, corrupted[1])
            if not again.any():
                break
            negatives = torch.where(again, draw(attempt), negatives)

    batches.negatives.copy_(negatives)
    batches.num_tails.copy_(num_tails)
    ends = batches.triples.long()
    rows = torch.cat([ends[..., 0], ends[..., 2], negatives.flatten(1)], dim=1)
    batches.entity_entries.copy_(_sorted_entries(rows))
    batches.relation_entries.copy_(_sorted_entries(ends[..., 1]))


def is_known(known: FilterIndex, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
    """Whether triples are in the index: int64 ids of one shape -> bool of that shape."""
    csr, num_relations, num_entities = known.by_head, known.num_relations, known.num_entities
    pairs = torch.repeat_interleave(csr.row_offsets.diff()) * num_relations + csr.relations
    # A pair's first place stands for it: the pair and a tail then fit in 64 bits.
    edges = torch.searchsorted(pairs, pairs) * num_entities + csr.objects
    wanted = heads * num_relations + relations
    found = torch.isin(torch.searchsorted(pairs, wanted) * num_entities + tails, edges)
    return found & torch.isin(wanted, pairs)


def batch_gradients(
    entities: Tensor,
    relations: Tensor,
    batches: Batches,
    index: int,
    norm: str,
    loss: Loss,
    known: FilterIndex | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of Gradients of one batch."""
    triples, size = batches.triples[index].long(), batches.triples.shape[1]
    chunk = torch.arange(size, device=triples.device) // batches.chunk_size
    ids = batches.negatives[index].long()[chunk]  # [P, K]
    is_tail = torch.arange(ids.shape[1], device=ids.device) < batches.num_tails[index].long()[chunk, None]
    present = torch.ones_like(is_tail)
    if batches.chunk_size > 1:
        heads, kinds, tails = (column[:, None].expand_as(ids) for column in triples.unbind(1))
        present = torch.where(is_tail, ids != tails, ids != heads)
        if known is not None:
            present &= ~is_known(known, torch.where(is_tail, heads, ids), kinds, torch.where(is_tail, ids, tails))

    head, relation, tail = entities[triples[:, 0]], relations[triples[:, 1]], entities[triples[:, 2]]  # [P, dim]
    queries = torch.stack([query(head, relation, norm, True), query(tail, relation, norm, False)], dim=1)
    asked = torch.where(is_tail[..., None], queries[:, :1], queries[:, 1:])  # [P, K, dim]
    negatives = entities[ids]
    positive = compare(queries[:, 0], tail, norm)
    scores = compare(asked, negatives, norm)
    if norm == "dot":  # <e + r, t> = <e, t> + <r, t>
        scores = scores + torch.where(is_tail, 0, compare(relation, tail, norm)[:, None])

    losses, to_positive, to_scores = _loss(loss, positive.double(), scores.double(), is_tail, present)
    to_positive, to_scores = (value.to(entities.dtype) / size for value in (to_positive, to_scores))
    to_query, to_negatives = _score_gradients(asked, negatives, to_scores, norm)
    # A query is h + r for tails, t - r for heads (dot: t, and r adds <r, t> to every score).
    to_tail_query, to_head_query = (torch.where(side[..., None], to_query, 0).sum(1) for side in (is_tail, ~is_tail))
    to_triple_query, to_tail = _score_gradients(queries[:, 0], tail, to_positive, norm)
    to_head = to_triple_query + to_tail_query
    to_tail = to_tail + to_head_query
    if norm == "dot":
        shift = torch.where(is_tail, 0, to_scores).sum(1)[:, None]
        to_relation, to_tail = to_head + shift * tail, to_tail + shift * relation
    else:
        to_relation = to_head - to_head_query
    positives = torch.stack([to_head, to_relation, to_tail], dim=1)

    if batches.chunk_size == 1:
        return losses, queries, positives, _multiples(asked, negatives, to_scores, norm)
    padded = to_negatives.new_zeros(batches.negatives.shape[1] * batches.chunk_size, *to_negatives.shape[1:])
    padded[:size] = to_negatives
    return losses, queries, positives, padded.unflatten(0, (-1, batches.chunk_size)).sum(1)


def _loss(
    loss: Loss, positive: Tensor, scores: Tensor, is_tail: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of positives [P] and their gradients to the scores of the positives [P] and of the negatives [P, K]."""
    if loss.name == "margin":
        share = present.double() / present.sum(1, keepdim=True).clamp(min=1)
        violation = loss.margin - positive[:, None] + scores
        to_scores = torch.where(violation > 0, share, 0)
        return torch.where(present, violation, 0).mul(to_scores).sum(1), -to_scores.sum(1), to_scores

    sides = [present & side for side in (is_tail, ~is_tail)]
    num_sides = torch.stack([side.any(1) for side in sides]).sum(0)
    losses, to_positive, to_scores = torch.zeros_like(positive), torch.zeros_like(positive), torch.zeros_like(scores)
    for side in sides:
        share = side.any(1).double() / num_sides.clamp(min=1)  # [P]
        if loss.name == "softmax":
            rivals = torch.cat([positive[:, None], scores.masked_fill(~side, -torch.inf)], dim=1)
            chance = rivals.softmax(1)
            losses += share * -rivals.log_softmax(1)[:, 0]
            to_positive += share * (chance[:, 0] - 1)
            to_scores += share[:, None] * chance[:, 1:]
        else:
            logits = (loss.temperature * scores).masked_fill(~side, -torch.inf)
            logits[~side.any(1)] = 0  # a side without negatives: its share is 0
            weight = torch.where(side, logits.softmax(1), 0)
            wrong = (weight * -logsigmoid(-loss.margin - scores)).sum(1)
            losses += share / 2 * (-logsigmoid(loss.margin + positive) + wrong)
            to_positive -= share / 2 * torch.sigmoid(-loss.margin - positive)
            to_scores += share[:, None] / 2 * weight * torch.sigmoid(loss.margin + scores)
    return losses, to_positive, to_scores


def _score_gradients(queries: Tensor, entities: Tensor, to_scores: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Gradients to queries and entities [..., dim] from those to their scores [...]."""
    if norm == "dot":
        return to_scores[..., None] * entities, to_scores[..., None] * queries
    to_query = to_scores[..., None] * direction(queries - entities, norm)
    return to_query, -to_query


def _multiples(queries: Tensor, entities: Tensor, to_scores: Tensor, norm: str) -> Tensor:
    """By what sign(q - e) (l1), q - e (l2) or q (dot) is multiplied in the gradient to e: [..., dim] -> [...]."""
    if norm != "l2":
        return to_scores
    length = (queries - entities).norm(dim=-1)
    return torch.where(length > 0, to_scores / length, torch.zeros_like(length))


def apply_gradients(
    entities: Tensor,
    relations: Tensor,
    state: OptimizerState,
    batches: Batches,
    index: int,
    gradients: Gradients,
    norm: str,
    optimizer: Optimizer,
    step: int,
    unit_ball: bool,
) -> None:
    """Move the rows that have an entry in the batch."""
    to_negatives = gradients.negatives
    if batches.chunk_size == 1:
        ids = batches.negatives[index].long()
        is_tail = torch.arange(ids.shape[1], device=ids.device) < batches.num_tails[index][:, None]
        along = torch.where(is_tail[..., None], gradients.queries[:, :1], gradients.queries[:, 1:])
        if norm != "dot":
            along = along - entities[ids]
        to_negatives = to_negatives[..., None] * (along.sign() if norm == "l1" else along)
    to_heads, to_relations, to_tails = gradients.positives.unbind(1)
    to_entities = torch.cat([to_heads, to_tails, to_negatives.flatten(0, 1)])
    moved = _move(entities, state.entities, batches.entity_entries[index], to_entities, optimizer, step)
    _move(relations, state.relations, batches.relation_entries[index], to_relations, optimizer, step)
    if unit_ball:
        entities[moved] /= entities[moved].norm(dim=1, keepdim=True).clamp(min=1)


def _move(
    table: Tensor, state: tuple[Tensor, ...], entries: Tensor, gradients: Tensor, optimizer: Optimizer, step: int
) -> Tensor:
    """Move the rows of the entries by the sums of their gradients; returns which rows."""
    rows: Tensor
    rows, lengths = torch.unique_consecutive(entries >> 32, return_counts=True)
    gradient = torch.segment_reduce(gradients[entries & 0xFFFFFFFF], "sum", lengths=lengths)
    if optimizer.name == "adagrad":
        (squares,) = state
        squares[rows] += gradient.square()
        gradient = gradient / (squares[rows].sqrt() + optimizer.epsilon)
    elif optimizer.name == "rowwise_adagrad":
        (squares,) = state
        squares[rows] += gradient.square().mean(1)
        gradient = gradient / (squares[rows].sqrt() + optimizer.epsilon)[:, None]
    elif optimizer.name == "adam":
        mean, square = state
        mean[rows] = optimizer.beta1 * mean[rows] + (1 - optimizer.beta1) * gradient
        square[rows] = optimizer.beta2 * square[rows] + (1 - optimizer.beta2) * gradient.square()
        size = (square[rows] / (1 - optimizer.beta2**step)).sqrt() + optimizer.epsilon
        gradient = mean[rows] / (1 - optimizer.beta1**step) / size
    table[rows] -= optimizer.learning_rate * gradient
    return rows


def _signed(value: int) -> int:
    """The signed 64-bit integer of the same bits."""
    return (value & _MASK) - (value & 1 << 63) * 2


def _shifted(values: Tensor, bits: int) -> Tensor:
    """int64 as unsigned integers, shifted right."""
    return values >> bits & (1 << 64 - bits) - 1


def _low_half(values: Tensor) -> Tensor:
    return values & 0xFFFFFFFF


def _sorted_entries(rows: Tensor) -> Tensor:
    """row << 32 | place, ascending: [num_batches, num_entries]."""
    return (rows << 32 | torch.arange(rows.shape[1], device=rows.device)).sort(dim=1).values
