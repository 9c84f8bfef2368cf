"""Training steps: the reference against autograd and its definition, the kernels against the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strategies import dtypes, instruction_set, seeds
from tercet.ops import _native
from tercet.ops import translation_training as training
from tercet.ops.filter_index import FilterIndex
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
        elif "adagrad" in rule.name:
            moments[0][row] += g * g if rule.name == "adagrad" else (g * g).mean()
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


def sampled(case: Training, **options: object) -> Batches:
    """The case's negatives drawn by the kernel."""
    batches, seed = case.batches, 5
    return training.sample_batches(
        batches.triples, num_entities=len(case.entities), num_negatives=batches.negatives.shape[2],
        chunk_size=batches.chunk_size, known=case.known, seed=seed, **options,
    )  # fmt: skip


def assert_same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    """Equal bit for bit."""
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, want, strict=True))


@given(trainings(), st.booleans(), st.integers(0, 2**40), st.integers(0, 1000), seeds)
def test_sampling_equals_reference(case: Training, bernoulli: bool, first: int, epoch: int, seed: int) -> None:
    chance = None
    if bernoulli and case.batches.chunk_size == 1:
        chance = torch.from_numpy(np.random.default_rng(seed).random(len(case.relations)))
    want = empty_batches(case.batches.triples, case.batches.negatives.shape[2], case.batches.chunk_size)
    reference.sample_batches(want, len(case.entities), chance, case.known, training.epoch_key(5, epoch), first)
    for isa in _native.available_isas():
        with instruction_set(isa):
            for threads in (1, 2, 7):
                got = sampled(case, tail_probability=chance, epoch=epoch, first=first, num_threads=threads)
                assert_same(got[:5], want[:5])
                assert got.chunk_size == want.chunk_size


@pytest.mark.parametrize("num_entities", [2, 2048, 2049, 2**22, 2**22 + 1, 2**31 - 1])
@pytest.mark.parametrize(("chunk_size", "num_negatives"), [(1, 3), (50, 40)])
def test_sampling_of_many_entities_equals_reference(num_entities: int, chunk_size: int, num_negatives: int) -> None:
    rng = np.random.default_rng(num_entities)
    columns = [rng.integers(0, size, 9 * 120) for size in (num_entities, 3000, num_entities)]
    triples = torch.from_numpy(np.stack(columns, 1)).int().reshape(9, 120, 3)
    triples[0, 0, 0], triples[0, 0, 2] = num_entities - 1, 0
    want = empty_batches(triples, num_negatives, chunk_size)
    reference.sample_batches(want, num_entities, None, None, training.epoch_key(1, 2), 7)
    for threads in (1, 4):
        got = training.sample_batches(triples, num_entities=num_entities, num_negatives=num_negatives, seed=1, epoch=2,
                                      chunk_size=chunk_size, first=7, num_threads=threads)  # fmt: skip
        assert_same(got[:5], want[:5])
    assert int(want.negatives.min()) >= 0
    assert int(want.negatives.max()) < num_entities


def test_batches_do_not_depend_on_how_an_epoch_is_divided() -> None:
    triples = torch.from_numpy(np.random.default_rng(0).integers(0, 40, (6, 10, 3))).int()
    options = {"num_entities": 40, "num_negatives": 5, "chunk_size": 4, "seed": 3, "epoch": 1}
    whole = training.sample_batches(triples, **options)
    later = training.sample_batches(triples[4:], first=4 * 3, **options)
    assert_same(later[:5], tuple(part[4:] for part in whole[:5]))
    for other in ({"seed": 4}, {"epoch": 2}, {"first": 1}):
        assert not torch.equal(training.sample_batches(triples, **{**options, **other}).negatives, whole.negatives)


@pytest.mark.parametrize("chunk_size", [1, 100])
def test_negatives_are_uniform(chunk_size: int) -> None:
    """Of the 50 (49) entities that can be drawn, with a chi-square test that one in a million correct samplers fails."""
    triples = torch.zeros(20, 500, 3, dtype=torch.int32)
    batches = training.sample_batches(triples, num_entities=50, num_negatives=41 if chunk_size == 1 else 4001,
                                      chunk_size=chunk_size, seed=11)  # fmt: skip
    counts = batches.negatives.flatten().bincount(minlength=50).double()
    if chunk_size == 1:
        assert counts[0] == 0
        counts = counts[1:]
    chi_square = float((counts - counts.mean()).square().sum() / counts.mean())
    assert chi_square < 110  # the quantile 1 - 1e-6 of 49 degrees of freedom is 109.5
    share = batches.num_tails.double() / batches.negatives.shape[2]
    assert set(batches.num_tails.unique().tolist()) == {
        batches.negatives.shape[2] // 2,
        batches.negatives.shape[2] // 2 + 1,
    }
    assert abs(float(share.mean()) - 0.5) < 0.01


def test_bernoulli_replaces_the_side_with_fewer_true_entities() -> None:
    triples = torch.zeros(10, 1000, 3, dtype=torch.int32)
    triples[:, :, 1] = torch.arange(1000, dtype=torch.int32) % 3
    chance = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)
    batches = training.sample_batches(triples, num_entities=9, num_negatives=8, tail_probability=chance, seed=2)
    shares = [float(batches.num_tails[:, relation::3].double().mean()) / 8 for relation in range(3)]
    assert abs(shares[0] - 0.25) < 0.01  # about four standard deviations
    assert shares[1:] == [1.0, 0.0]


def test_known_triples_are_avoided_where_others_exist() -> None:
    rng = np.random.default_rng(4)
    triples = torch.from_numpy(np.stack([rng.integers(0, size, 400) for size in (25, 3, 25)], 1)).int()
    known = FilterIndex(triples, num_entities=25, num_relations=3)
    facts = set(map(tuple, triples.tolist()))
    batches = training.sample_batches(triples[None], num_entities=25, num_negatives=20, known=known, seed=6)
    free = training.sample_batches(triples[None], num_entities=25, num_negatives=20, seed=6)

    def share_known(batches: Batches) -> int:
        found = 0
        for triple, negatives, num_tails in zip(
            triples.tolist(), batches.negatives[0].tolist(), batches.num_tails[0].tolist(), strict=True
        ):
            for slot, negative in enumerate(negatives):
                corrupted = (*triple[:2], negative) if slot < num_tails else (negative, *triple[1:])
                assert corrupted != tuple(triple)
                found += corrupted in facts
        return found

    assert share_known(free) > 500
    assert share_known(batches) == 0
    # Where all but the true one are known there is nothing else to draw.
    full = torch.tensor([[0, 0, t] for t in range(4)] + [[h, 0, 0] for h in range(4)])
    known = FilterIndex(full, num_entities=4, num_relations=1)
    rest = training.sample_batches(
        torch.zeros(1, 50, 3, dtype=torch.int32), num_entities=4, num_negatives=6, known=known
    )
    assert set(rest.negatives.unique().tolist()) == {1, 2, 3}


def assert_gradients(got: Gradients, want: Gradients, dtype: torch.dtype) -> None:
    """Equal but for rounding: scores of up to a few hundred, whose exponentials are taken."""
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    assert got.loss.dtype == torch.float64
    size = len(want.loss)
    torch.testing.assert_close(got.loss, want.loss, rtol=tolerance, atol=tolerance)
    for name in ("queries", "positives", "negatives"):
        have, wanted = getattr(got, name), getattr(want, name)
        assert have.dtype == dtype
        torch.testing.assert_close(
            have.double(), wanted, rtol=tolerance, atol=tolerance / (1 if name == "queries" else size)
        )


def check_gradients(case: Training, index: int, norm: str, loss: Loss) -> None:
    wide = case.entities.double(), case.relations.double()
    want = Gradients(*reference.batch_gradients(*wide, case.batches, index, norm, loss, case.known))
    for isa in _native.available_isas():
        with instruction_set(isa):
            first, *others = (
                training.batch_gradients(case.entities, case.relations, case.batches, index, norm=norm, loss=loss,
                                         known=case.known, num_threads=threads)
                for threads in (1, 2, 7)
            )  # fmt: skip
        assert_gradients(first, want, case.entities.dtype)
        for other in others:
            assert_same(other, first)


@given(trainings(), st.sampled_from(NORMS), losses)
def test_gradients_equal_reference(case: Training, norm: str, loss: Loss) -> None:
    check_gradients(case, len(case.batches.triples) - 1, norm, loss)


@pytest.mark.parametrize("chunk_size", [1, 60])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_of_large_batches_equal_reference(norm: str, loss: str, chunk_size: int) -> None:
    for dtype, dim in ((torch.float32, 100), (torch.float64, 67)):
        case = random_training(
            np.random.default_rng(7), dtype, num_entities=300, num_relations=7, num_batches=1, size=250, dim=dim,
            num_negatives=33, chunk_size=chunk_size, known=True,
        )  # fmt: skip
        check_gradients(case, 0, norm, Loss(loss, 1.5, 0.5))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_positive_without_negatives_has_no_loss(norm: str, loss: str, dtype: torch.dtype) -> None:
    """Of two entities a shared negative is often the true one, on one side or on both."""
    seen = set()
    for seed in range(20):
        case = random_training(np.random.default_rng(seed), dtype, num_entities=2, num_relations=1, num_batches=1, size=4,
                               dim=3, num_negatives=2, chunk_size=2, known=bool(seed % 2))  # fmt: skip
        check_gradients(case, 0, norm, Loss(loss, 20.0, 0.0))
        absent = [case.absent(0, p, slot) for p in range(4) for slot in range(2)]
        gradients = training.batch_gradients(case.entities, case.relations, case.batches, 0, norm=norm,
                                             loss=Loss(loss, 20.0), known=case.known)  # fmt: skip
        for p, slots in enumerate(zip(absent[::2], absent[1::2], strict=True)):
            seen.add(sum(slots))
            if all(slots):
                assert gradients.loss[p] == 0
                assert not gradients.positives[p].any()
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_scores_of_thousands_are_finite(loss: str, chunk_size: int, dtype: torch.dtype) -> None:
    case = random_training(np.random.default_rng(8), dtype, num_entities=12, num_relations=2, num_batches=1, size=6, dim=9,
                           num_negatives=5, chunk_size=chunk_size, known=False)  # fmt: skip
    case.entities *= 256
    for norm in NORMS:
        check_gradients(case, 0, norm, Loss(loss))


@given(trainings(), st.sampled_from(NORMS), st.sampled_from(OPTIMIZERS), st.sampled_from(LOSSES), st.booleans())
def test_updates_equal_reference(case: Training, norm: str, name: str, loss: str, unit_ball: bool) -> None:
    """Several steps; after each the reference goes on from where the kernel is, as rounding decides signs."""
    dtype = case.entities.dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    rule = Optimizer(name, learning_rate=0.05, epsilon=1e-2 if dtype == torch.float32 else 1e-8)
    for isa in _native.available_isas():
        tables = [case.entities.clone(), case.relations.clone()]
        state = training.optimizer_state(rule, *tables)
        for step in (1, 2, 3):
            index = step % len(case.batches.triples)
            before = [table.clone() for table in tables]
            want = [table.double() for table in tables]
            want_state = training.OptimizerState(*(tuple(t.double() for t in part) for part in state))
            with instruction_set(isa):
                gradients = training.batch_gradients(*tables, case.batches, index, norm=norm, loss=Loss(loss),
                                                     known=case.known)  # fmt: skip
                training.apply_gradients(*tables, state, case.batches, index, gradients, norm=norm, optimizer=rule,
                                         step=step, unit_ball=unit_ball, num_threads=2)  # fmt: skip
            wide = Gradients(*(part.double() for part in gradients))
            reference.apply_gradients(*want, want_state, case.batches, index, wide, norm, rule, step, unit_ball)
            for got, wanted in zip(
                (*tables, *state[0], *state[1]), (*want, *want_state[0], *want_state[1]), strict=True
            ):
                torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)
            entries = case.batches.entity_entries[index], case.batches.relation_entries[index]
            for table, old, of in zip(tables, before, entries, strict=True):
                others = torch.ones(len(table), dtype=torch.bool)
                others[of >> 32] = False
                assert torch.equal(table[others], old[others])


@pytest.mark.parametrize("chunk_size", [1, 40])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("norm", NORMS)
def test_training_has_the_same_bits_at_any_thread_count(norm: str, optimizer: str, chunk_size: int) -> None:
    """A hub has entries beyond what is looked up at once; other rows have one."""
    rng = np.random.default_rng(9)
    triples = torch.from_numpy(np.stack([rng.integers(0, size, (3, 200)) for size in (500, 4, 500)], -1)).int()
    triples[:, :150, 2] = 17
    known = FilterIndex(triples.reshape(-1, 3), num_entities=500, num_relations=4)
    rule, loss = Optimizer(optimizer, learning_rate=0.1), Loss("softmax" if chunk_size > 1 else "margin")

    def trained(threads: int) -> tuple[Tensor, ...]:
        tables = [torch.from_numpy(np.random.default_rng(1).standard_normal((rows, 37))).float() for rows in (500, 4)]
        state = training.optimizer_state(rule, *tables)
        batches = training.sample_batches(triples, num_entities=500, num_negatives=9, chunk_size=chunk_size, known=known,
                                          num_threads=threads)  # fmt: skip
        assert_entries(batches)
        for index in range(3):
            gradients = training.batch_gradients(*tables, batches, index, norm=norm, loss=loss, known=known,
                                                 num_threads=threads)  # fmt: skip
            training.apply_gradients(*tables, state, batches, index, gradients, norm=norm, optimizer=rule,
                                     step=index + 1, unit_ball=True, num_threads=threads)  # fmt: skip
        return (*tables, *state[0], *state[1])

    want = trained(1)
    assert all(part.isfinite().all() for part in want)
    for threads in (2, 3, 8):
        assert_same(trained(threads), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_ball_holds_touched_entities_alone(dtype: torch.dtype) -> None:
    case = random_training(np.random.default_rng(10), dtype, num_entities=40, num_relations=2, num_batches=1, size=3, dim=20,
                           num_negatives=2, chunk_size=1, known=False)  # fmt: skip
    case.entities[: len(case.entities) // 2] /= 64
    before = case.entities.clone(), case.relations.clone()
    rule = Optimizer("sgd", learning_rate=0.0)
    gradients = training.batch_gradients(
        case.entities, case.relations, case.batches, 0, norm="l2", loss=Loss(margin=50.0)
    )
    training.apply_gradients(case.entities, case.relations, training.OptimizerState((), ()), case.batches, 0, gradients,
                             norm="l2", optimizer=rule, step=1, unit_ball=True)  # fmt: skip
    assert torch.equal(case.relations, before[1])
    touched = torch.zeros(40, dtype=torch.bool)
    touched[case.batches.entity_entries[0] >> 32] = True
    lengths = before[0].norm(dim=1)
    long = touched & (lengths > 1)
    assert long.any()
    assert (touched & ~long).any()
    assert torch.equal(case.entities[~long], before[0][~long])
    torch.testing.assert_close(case.entities[long], before[0][long] / lengths[long, None])
