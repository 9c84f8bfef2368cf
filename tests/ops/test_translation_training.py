"""Training steps: the reference against autograd and its definition, the kernels against the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strategies import dtypes, seeds
from tercet.ops import translation_training as training
from tercet.ops.ranking import FilterIndex
from tercet.ops.reference import translation_training as reference
from tercet.ops.translation import NORMS
from tercet.ops.translation_training import LOSSES, OPTIMIZERS, Batches, Gradients, Loss, Optimizer


@dataclass
class Training:
    """Tables, batches of positives with sampled negatives, and what is known."""

    entities: Tensor
    relations: Tensor
    batches: Batches
    known: FilterIndex | None
    facts: set[tuple[int, int, int]]  # of known
    key: int

    def corrupted(self, triple: tuple[int, int, int], negative: int, is_tail: bool) -> tuple[int, int, int]:
        """The triple with its tail or head replaced."""
        return (*triple[:2], negative) if is_tail else (negative, *triple[1:])

    def absent(self, index: int, positive: int, slot: int) -> bool:
        """Whether a shared negative is left out for a positive."""
        chunk = positive // self.batches.chunk_size
        triple = tuple(self.batches.triples[index, positive].tolist())
        corrupted = self.corrupted(
            triple, int(self.batches.negatives[index, chunk, slot]), slot < int(self.batches.num_tails[index, chunk])
        )
        return self.batches.chunk_size > 1 and (corrupted == triple or corrupted in self.facts)


def random_tables(rng: np.random.Generator, rows: tuple[int, int], dim: int, dtype: torch.dtype) -> list[Tensor]:
    """Multiples of 1/64 below 2: sums of two are exact, differences of 0 are common, signs are the same in any dtype."""
    return [torch.from_numpy(rng.integers(-128, 128, (size, dim)) / 64).to(dtype) for size in rows]


def empty_batches(triples: Tensor, num_negatives: int, chunk_size: int) -> Batches:
    num_batches, size, _ = triples.shape
    chunks = -(-size // chunk_size)
    return Batches(
        triples,
        triples.new_empty(num_batches, chunks, num_negatives),
        triples.new_empty(num_batches, chunks),
        torch.empty(num_batches, 2 * size + chunks * num_negatives, dtype=torch.int64),
        torch.empty(num_batches, size, dtype=torch.int64),
        chunk_size,
    )


def random_training(
    rng: np.random.Generator,
    dtype: torch.dtype,
    *,
    num_entities: int,
    num_relations: int,
    num_batches: int,
    size: int,
    dim: int,
    num_negatives: int,
    chunk_size: int,
    known: bool,
) -> Training:
    """Random positives; half of the known triples are not among them."""
    tables = random_tables(rng, (num_entities, num_relations), dim, dtype)
    triples, others = (
        torch.from_numpy(np.stack([rng.integers(0, n, count) for n in (num_entities, num_relations, num_entities)], 1))
        for count in (num_batches * size, max(num_entities, num_batches * size))
    )
    facts = torch.cat([triples, others]) if known else triples[:0]
    index = FilterIndex(facts, num_entities=num_entities, num_relations=num_relations) if known else None
    batches = empty_batches(triples.int().reshape(num_batches, size, 3), num_negatives, chunk_size)
    key = int(rng.integers(2**64, dtype=np.uint64))
    reference.sample_batches(batches, num_entities, None, index, key, 0)
    return Training(*tables, batches, index, set(map(tuple, facts.tolist())), key)


@st.composite
def trainings(draw: st.DrawFn, *, dtype: torch.dtype | None = None) -> Training:
    """Small ones; chunks of one, chunks that end early, one chunk larger than the batch."""
    return random_training(
        np.random.default_rng(draw(seeds)),
        draw(dtypes) if dtype is None else dtype,
        num_entities=draw(st.sampled_from([2, 5, 30])),
        num_relations=draw(st.integers(1, 3)),
        num_batches=draw(st.integers(1, 2)),
        size=draw(st.integers(1, 9)),
        dim=draw(st.sampled_from([1, 3, 16, 21])),
        num_negatives=draw(st.integers(1, 6)),
        chunk_size=draw(st.sampled_from([1, 1, 2, 4, 20])),
        known=draw(st.booleans()),
    )


losses = st.builds(Loss, st.sampled_from(LOSSES), st.floats(0, 3), st.floats(0, 2))


def score(head: Tensor, relation: Tensor, tail: Tensor, norm: str) -> Tensor:
    """By its definition; sqrt has no gradient at 0, there it is 0."""
    if norm == "dot":
        return ((head + relation) * tail).sum()
    difference = head + relation - tail
    if norm == "l1":
        return -difference.abs().sum()
    return -difference.square().sum().sqrt() if difference.any() else 0 * difference.sum()


def loss_of_positive(case: Training, tables: list[Tensor], index: int, p: int, norm: str, loss: Loss) -> Tensor:
    """The docstring of Loss, one negative at a time."""
    entities, relations = tables
    batches = case.batches
    head, relation, tail = batches.triples[index, p].tolist()
    chunk = p // batches.chunk_size
    positive = score(entities[head], relations[relation], entities[tail], norm)
    sides: list[list[Tensor]] = [[], []]
    for slot, negative in enumerate(batches.negatives[index, chunk].tolist()):
        if case.absent(index, p, slot):
            continue
        is_tail = slot < int(batches.num_tails[index, chunk])
        ends = (head, negative) if is_tail else (negative, tail)
        sides[is_tail].append(score(entities[ends[0]], relations[relation], entities[ends[1]], norm))
    sides = [side for side in sides if side]
    if not sides:
        return positive * 0
    if loss.name == "margin":
        return torch.stack([(loss.margin - positive + s).relu() for side in sides for s in side]).mean()
    parts = []
    for side in map(torch.stack, sides):
        if loss.name == "softmax":
            parts.append(torch.logsumexp(torch.cat([positive[None], side]), 0) - positive)
        else:
            weights = (loss.temperature * side).softmax(0).detach()
            wrong = (weights * torch.nn.functional.logsigmoid(-loss.margin - side)).sum()
            parts.append(-(torch.nn.functional.logsigmoid(loss.margin + positive) + wrong) / 2)
    return torch.stack(parts).mean()


def dense_gradients(case: Training, gradients: Gradients, index: int, norm: str) -> tuple[Tensor, Tensor]:
    """The gradient to each table, entry by entry."""
    batches, sums = case.batches, [torch.zeros_like(case.entities), torch.zeros_like(case.relations)]
    size, num_negatives = batches.triples.shape[1], batches.negatives.shape[2]
    for entry in batches.entity_entries[index].tolist():
        row, place = entry >> 32, entry & 0xFFFFFFFF
        if place < 2 * size:
            sums[0][row] += gradients.positives[place % size, 0 if place < size else 2]
            continue
        chunk, slot = divmod(place - 2 * size, num_negatives)
        if batches.chunk_size > 1:
            sums[0][row] += gradients.negatives[chunk, slot]
            continue
        asked = gradients.queries[chunk, 0 if slot < batches.num_tails[index, chunk] else 1]
        along = {"l1": (asked - case.entities[row]).sign(), "l2": asked - case.entities[row], "dot": asked}[norm]
        sums[0][row] += gradients.negatives[chunk, slot] * along
    for entry in batches.relation_entries[index].tolist():
        sums[1][entry >> 32] += gradients.positives[entry & 0xFFFFFFFF, 1]
    return sums[0], sums[1]


@given(trainings(dtype=torch.float64), st.sampled_from(NORMS), losses)
def test_reference_gradients_equal_those_of_autograd(case: Training, norm: str, loss: Loss) -> None:
    index = len(case.batches.triples) - 1
    tables = [case.entities.clone().requires_grad_(), case.relations.clone().requires_grad_()]
    size = case.batches.triples.shape[1]
    want = torch.stack([loss_of_positive(case, tables, index, p, norm, loss) for p in range(size)])
    want_gradients = torch.autograd.grad(want.mean(), tables, allow_unused=True, materialize_grads=True)
    got = Gradients(
        *reference.batch_gradients(case.entities, case.relations, case.batches, index, norm, loss, case.known)
    )
    torch.testing.assert_close(got.loss, want.detach(), rtol=1e-12, atol=1e-12)
    for gradient, wanted in zip(dense_gradients(case, got, index, norm), want_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_mix_of_a_tensor_is_that_of_each_integer(values: list[int]) -> None:
    signed = torch.tensor([v - (v >> 63) * 2**64 for v in values], dtype=torch.int64)
    assert [v % 2**64 for v in reference.mix(signed).tolist()] == [reference.mix_int(v) for v in values]


def drawn_slot(case: Training, num_entities: int, position: int, slot: int, attempt: int) -> tuple[int, int]:
    """(high, low) half of the bits of a draw."""
    bits = reference.mix_int(reference.mix_int((case.key + position) % 2**64) + slot * 64 + attempt)
    return bits >> 32, bits & 0xFFFFFFFF


@given(trainings(), st.booleans(), st.integers(0, 2**40), seeds)
def test_reference_draws_as_defined(case: Training, bernoulli: bool, first: int, seed: int) -> None:
    batches, num_entities, num_relations = case.batches, len(case.entities), len(case.relations)
    own = batches.chunk_size == 1
    chance = torch.from_numpy(np.random.default_rng(seed).random(num_relations)) if bernoulli and own else None
    reference.sample_batches(batches, num_entities, chance, case.known, case.key, first)
    num_batches, num_chunks, num_negatives = batches.negatives.shape
    for batch, chunk in np.ndindex(num_batches, num_chunks):
        position = first + batch * num_chunks + chunk
        head, relation, tail = batches.triples[batch, chunk * batches.chunk_size].tolist()
        lows = [drawn_slot(case, num_entities, position, slot, 0)[1] for slot in range(num_negatives + 1)]
        num_tails = num_negatives // 2 + (num_negatives % 2 and lows[-1] < 2**31)
        if chance is not None:
            num_tails = sum(low < float(chance[relation]) * 2**32 for low in lows[:-1])
        assert int(batches.num_tails[batch, chunk]) == num_tails
        for slot, got in enumerate(batches.negatives[batch, chunk].tolist()):
            for attempt in range(32):
                high = drawn_slot(case, num_entities, position, slot, attempt)[0]
                negative = high * (num_entities - own) >> 32
                if own:
                    negative += negative >= (tail if slot < num_tails else head)
                if case.corrupted((head, relation, tail), negative, slot < num_tails) not in case.facts or not own:
                    break
            assert got == negative


def assert_entries(batches: Batches) -> None:
    """Every gradient stands in its row's entries, once, in order."""
    size = batches.triples.shape[1]
    for index, (triples, negatives) in enumerate(zip(batches.triples.tolist(), batches.negatives, strict=True)):
        rows = [t[0] for t in triples] + [t[2] for t in triples] + negatives.flatten().tolist()
        assert batches.entity_entries[index].tolist() == sorted(row << 32 | e for e, row in enumerate(rows))
        kinds = [triples[p][1] << 32 | p for p in range(size)]
        assert batches.relation_entries[index].tolist() == sorted(kinds)


@given(trainings())
def test_entries_are_complete_and_ascending(case: Training) -> None:
    assert_entries(case.batches)


def moved_by_definition(
    table: Tensor, gradient: Tensor, rows: set[int], moments: list[Tensor], rule: Optimizer, step: int
) -> None:
    """The docstring of Optimizer, a row at a time, in place."""
    for row in rows:
        g = gradient[row]
        if rule.name == "sgd":
            table[row] -= rule.learning_rate * g
        elif rule.name == "adagrad":
            moments[0][row] += (g * g).mean()
            table[row] -= rule.learning_rate * g / (moments[0][row].sqrt() + rule.epsilon)
        else:
            moments[0][row] = rule.beta1 * moments[0][row] + (1 - rule.beta1) * g
            moments[1][row] = rule.beta2 * moments[1][row] + (1 - rule.beta2) * g * g
            m, v = moments[0][row] / (1 - rule.beta1**step), moments[1][row] / (1 - rule.beta2**step)
            table[row] -= rule.learning_rate * m / (v.sqrt() + rule.epsilon)


@given(trainings(dtype=torch.float64), st.sampled_from(NORMS), st.sampled_from(OPTIMIZERS), st.booleans())
def test_reference_updates_as_defined(case: Training, norm: str, name: str, unit_ball: bool) -> None:
    rule, batches = Optimizer(name, learning_rate=0.05, epsilon=1e-6), case.batches
    tables = [case.entities, case.relations]
    state = training.optimizer_state(rule, *tables)
    want, want_state = [t.clone() for t in tables], [[t.clone() for t in part] for part in state]
    for step in (1, 2, 3):
        index = step % len(batches.triples)
        gradients = Gradients(*reference.batch_gradients(*tables, batches, index, norm, Loss(), case.known))
        entries = batches.entity_entries[index], batches.relation_entries[index]
        for side, (gradient, of) in enumerate(zip(dense_gradients(case, gradients, index, norm), entries, strict=True)):
            rows = set((of >> 32).tolist())
            moved_by_definition(want[side], gradient, rows, want_state[side], rule, step)
            if unit_ball and side == 0:
                for row in rows:
                    want[0][row] /= max(1.0, float(want[0][row].norm()))
        reference.apply_gradients(*tables, state, batches, index, gradients, norm, rule, step, unit_ball)
        for got, wanted in zip((*tables, *state[0], *state[1]), (*want, *want_state[0], *want_state[1]), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_tail_probability_of_a_hand_made_case() -> None:
    triples = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 3], [4, 1, 0], [5, 1, 0]])
    # Relation 0: 3 tails a head, 1 head a tail; relation 1: 1 and 2.
    assert training.tail_probability(triples, 3).tolist() == [0.25, 2 / 3, 0.5]
