"""CUDA: scores, ranks and best entities against the CPU where there is a device; without one, what surrounds them.

The kernels' own steps run on the host in tests/cpp/driver_cuda_translation.cpp.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import TOLERANCE, dtypes, grid, normal, random_sets, seeds
from tercet import EntitySets
from tercet.ops import _native, _ranking_cuda, _translation_cuda, _translation_training_cuda, ranking, translation
from tercet.ops import translation_training as training
from tercet.ops.reference import ranking as ranking_reference
from tercet.ops.reference import translation as reference
from tercet.ops.reference import translation_training as training_reference
from tercet.ops.translation import NORMS

NOBODY = 10_000  # the index of a device that does not exist
RULE = (0, 0.1, 0.9, 0.999, 1e-10, 1)
norms = st.sampled_from(NORMS)
quietly = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Either side of a tile of pairs (64, 128) and of a step of dimensions (16).
COUNTS = st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 300])
DIMS = st.sampled_from([0, 1, 7, 15, 16, 17, 32, 33, 64, 200])


# Without a device.


def calls(dtype: int, norm: int) -> list[tuple[str, tuple[object, ...]]]:
    start = (NOBODY, 0), dtype, norm
    return [
        ("transe_score", (*start, 0, 0, 0, 1, 1, 0)),
        ("transe_score_backward", (*start, 0, 0, 0, 0, 1, 1, 0, 0)),
        ("transe_scores", (*start, 0, 0, 1, 1, 1, 0)),
        ("transe_scores_backward", (*start, 0, 0, 1, 1, 1, (0, 1, 1), 0, 0)),
        ("rank_counts", (*start, (0,) * 10, (1, 1, 1, 1), True, 1, (0, 0, 0), 0)),
        ("own_scores", (*start, (0, 0, 1), (0,) * 9, 0, 0, 0)),
        ("own_gradients", (*start, (0, 0, 1), (0,) * 9, 0, 0, 0)),
        ("apply_gradients", (*start, (0, 0, 1), (0,) * 9, 0, (0,) * 4, RULE, (0, 0), (0, 0), False)),
    ]


@pytest.mark.parametrize("dtype", [0, 1])
def test_without_the_device_every_function_names_what_failed(module: ModuleType, dtype: int) -> None:
    named = {name for name in dir(module) if name.startswith(("transe", "rank", "own", "apply"))}
    assert named == {name for name, _ in calls(0, 0)} | {"transe_scores_backward_workspace", "rank_workspace"}
    for name, args in calls(dtype, 0):
        with pytest.raises(RuntimeError, match=r"^tercet: CUDA: cuda(Get|Set)Device: \w+"):
            getattr(module, name)(*args)


def test_unknown_codes_are_errors(module: ModuleType) -> None:
    for name, args in calls(2, 0):
        with pytest.raises(ValueError, match="dtype must be 0"):
            getattr(module, name)(*args)
    for name, args in calls(0, 3):
        with pytest.raises(ValueError, match="norm must be 0"):
            getattr(module, name)(*args)

    *args, _, of_entities, of_relations, unit_ball = calls(0, 0)[-1][1]
    with pytest.raises(ValueError, match="rule must be 0"):
        module.apply_gradients(*args, (4, *RULE[1:]), of_entities, of_relations, unit_ball)


def random_tables(seed: int, batch: int, num_entities: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries and entities; a quarter of the entities equal queries."""
    rng = np.random.default_rng(seed)
    queries, entities = normal(rng, batch, dim, dtype=dtype), normal(rng, num_entities, dim, dtype=dtype)
    if batch and num_entities:
        equal = rng.integers(0, num_entities, num_entities // 4)
        entities[equal] = queries[rng.integers(0, batch, len(equal))]
    return queries, entities


def assert_close(got: Tensor, want: Tensor, slack: float = 10) -> None:
    assert got.dtype == want.dtype
    scale = max(1.0, float(want.abs().max())) if want.numel() else 1.0
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=slack * scale * TOLERANCE[want.dtype])


@given(seeds, st.integers(0, 9), st.integers(0, 20), st.integers(0, 8), norms, st.integers(1, 200))
@quietly
def test_torch_runs_in_a_kernels_place(
    monkeypatch: pytest.MonkeyPatch, seed: int, batch: int, num_entities: int, dim: int, norm: str, part: int
) -> None:
    monkeypatch.setattr(_native, "cuda_kernel", lambda name: None)
    monkeypatch.setattr(_translation_cuda, "_PART", part)
    queries, entities = random_tables(seed, batch, num_entities, dim, torch.float64)
    scores = translation._scores_cuda(queries, entities, norm, 0)
    assert_close(scores, reference.transe_scores(queries, entities, norm))
    grad = normal(np.random.default_rng(seed), batch, num_entities, dtype=torch.float64)
    saved = scores if norm == "l2" else None
    got = translation._scores_backward_cuda(grad, queries, entities, saved, norm, True, True, 0)
    for gradient, want in zip(got, reference.transe_scores_backward(grad, queries, entities, norm), strict=True):
        assert_close(gradient, want)
    only = translation._scores_backward_cuda(grad, queries, entities, saved, norm, False, True, 0)
    assert len(only[0]) == 0
    assert torch.equal(only[1], got[1])
    count = min(batch, num_entities)
    rows = queries[:count], entities[:count], entities[:count].flip(0)
    assert torch.equal(translation._score_cuda(*rows, norm), reference.transe_score(*rows, norm))
    backward = normal(np.random.default_rng(seed), count, dtype=torch.float64), *rows, norm
    both = translation._score_backward_cuda(*backward), reference.transe_score_backward(*backward)
    assert all(map(torch.equal, *both))


@given(seeds, st.integers(0, 9), st.integers(0, 30), st.integers(1, 35), norms, dtypes, st.integers(1, 400))
def test_best_entities_from_parts_of_the_scores(
    seed: int, batch: int, num_entities: int, k: int, norm: str, dtype: torch.dtype, pairs: int
) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, max(num_entities, 1))
    queries, entities = grid(rng, batch, 3, dtype=dtype), grid(rng, num_entities, 3, dtype=dtype)  # many equals
    entities[rng.random(num_entities) < 0.1] = torch.nan
    exclude = random_sets(rng, batch, num_entities, rng.choice([0.1, 0.9]), dtype)
    for sets in (None, exclude):
        want = tercet.transe_top(queries, entities, k, norm=norm, exclude=sets)
        members = (None, None) if sets is None else (sets.offsets, sets.entities)
        got = _ranking_cuda.transe_top(
            lambda q, e: translation._scores_cpu(q, e, norm, 1), queries, entities, k, *members, pairs=pairs
        )
        assert torch.equal(got[1], want[1])
        assert torch.equal(got[0], want[0])


def random_ranking(
    rng: np.random.Generator, num_entities: int, dim: int, num_triples: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[EntitySets, EntitySets] | None]:
    """Entities, relations, triples, known triples and candidates; equal and nearly equal entities."""
    entities, relations = normal(rng, num_entities, dim, dtype=dtype), normal(rng, 3, dim, dtype=dtype)
    equal = rng.integers(0, num_entities, num_entities // 3)
    entities[equal] = entities[0].clone() if rng.random() < 0.5 else entities[rng.integers(0, num_entities, len(equal))]
    if rng.random() < 0.5:
        entities += entities * 1e-7 * normal(rng, num_entities, dim, dtype=dtype)
    sizes = [num_entities, 3, num_entities]
    triples, known = (torch.from_numpy(rng.integers(0, sizes, (n, 3))) for n in (num_triples, 20 * num_entities))
    candidates = None
    if rng.random() < 0.5:
        density = rng.choice([0.1, 0.9])
        candidates = tuple(random_sets(rng, 3, num_entities, density, torch.float32) for _ in range(2))
    return entities, relations, triples, torch.cat([known, triples[::2]]), candidates  # type: ignore[return-value]


@given(seeds, st.integers(1, 12), st.integers(0, 5), norms)
@quietly
def test_the_reference_ranks_in_the_kernels_place(
    monkeypatch: pytest.MonkeyPatch, seed: int, num_entities: int, dim: int, norm: str
) -> None:
    monkeypatch.setattr(_native, "cuda_kernel", lambda name: None)
    rng = np.random.default_rng(seed)
    entities, relations, triples, known, _ = random_ranking(rng, num_entities, dim, 7, torch.float64)
    _, anchors, kinds, offsets = ranking._queries(triples, 3, True)
    index = tercet.FilterIndex(known, num_entities=num_entities, num_relations=3)
    args = (entities, relations, anchors, kinds, offsets, triples[:, 2].int(),
            *index.ranges(anchors, kinds, tails=True), None, None, norm, True)  # fmt: skip
    got = ranking._rank_counts_cuda(*args, 0)
    assert all(map(torch.equal, got, ranking_reference.rank_counts(*args)))


def random_training(
    rng: np.random.Generator, norm: str, chunk_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, training.Batches]:
    """Entities, relations and two batches."""
    entities, relations = normal(rng, 30, 19, dtype=dtype), normal(rng, 3, 19, dtype=dtype)
    triples = torch.from_numpy(rng.integers(0, [30, 3, 30], (2, 50, 3))).int()
    return entities, relations, training.sample_batches(triples, num_entities=30, num_negatives=7,
                                                        chunk_size=chunk_size, seed=int(rng.integers(99)))  # fmt: skip


losses = st.builds(training.Loss, st.sampled_from(training.LOSSES), st.sampled_from([0.5, 4.0]), st.just(0.7))


@given(seeds, norms, losses)
@settings(max_examples=15)
def test_the_weights_of_scores_are_those_of_the_reference(seed: int, norm: str, loss: training.Loss) -> None:
    entities, relations, batches = random_training(np.random.default_rng(seed), norm, 1, torch.float64)
    want = training_reference.batch_gradients(entities, relations, batches, 1, norm, loss, None)
    heads, kinds, tails = batches.triples[1].long().unbind(1)
    ids, num_tails = batches.negatives[1].long(), batches.num_tails[1]
    by_side = [reference.compare(query[:, None], entities[ids], norm) for query in want[1].unbind(1)]
    scores = torch.where(torch.arange(7) < num_tails[:, None], *by_side)
    positive = reference.transe_score(entities[heads], relations[kinds], entities[tails], norm)
    shift = reference.compare(relations[kinds], entities[tails], norm) if norm == "dot" else None
    scores = torch.cat([positive[:, None], scores], dim=1)
    values, weights = _translation_training_cuda.score_weights(scores, shift, num_tails, norm, loss)
    assert_close(values, want[0])
    assert_close(weights[:, 1:], want[3])
    # What is left of the gradient to the head, once the negatives' part is taken away, is the positive's.
    to_head = want[2][:, 0] - sum_of_pulls(weights[:, 1:], want[1][:, 0], entities[ids], num_tails, norm)
    assert_close(sum_of_pulls(weights[:, :1], want[1][:, 0], entities[tails][:, None], num_tails + 1, norm), to_head)


def sum_of_pulls(weights: Tensor, queries: Tensor, partners: Tensor, num_tails: Tensor, norm: str) -> Tensor:
    """Sums over the first num_tails partners of weight f(query, partner); see csrc/translation.h."""
    weights = torch.where(torch.arange(weights.shape[1]) < num_tails[:, None], weights, 0)[..., None]
    along = partners if norm == "dot" else partners - queries[:, None]
    return (weights * (along.sign() if norm == "l1" else along)).sum(1)


# With a device.


@pytest.mark.cuda
@given(seeds, COUNTS, COUNTS, DIMS, norms, dtypes)
@quietly
def test_scores_and_gradients_agree_with_the_cpu(
    kernels: ModuleType, seed: int, batch: int, num_entities: int, dim: int, norm: str, dtype: torch.dtype
) -> None:
    tables = random_tables(seed, batch, num_entities, dim, dtype)
    grad = normal(np.random.default_rng(seed), batch, num_entities, dtype=dtype)

    def run(device: str) -> tuple[Tensor, ...]:
        leaves = [t.to(device).requires_grad_() for t in tables]
        scores = tercet.transe_scores(*leaves, norm=norm)
        return scores.detach(), *torch.autograd.grad(scores, leaves, grad.to(device))

    got = run("cuda")
    for mine, want in zip(got, run("cpu"), strict=True):
        assert_close(mine, want, slack=40)
    assert all(map(torch.equal, run("cuda"), got))
    there = [t.cuda() for t in tables]
    part = tercet.transe_scores(there[0][batch // 3 :], there[1][num_entities // 3 :], norm=norm)
    assert torch.equal(part, got[0][batch // 3 :, num_entities // 3 :])


@pytest.mark.cuda
@given(seeds, st.sampled_from([0, 1, 7, 8, 9, 500]), DIMS, norms, dtypes)
@quietly
def test_scores_of_triples_agree_with_the_cpu(
    kernels: ModuleType, seed: int, batch: int, dim: int, norm: str, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    rows = [normal(rng, batch, dim, dtype=dtype) for _ in range(3)]
    rows[2][: batch // 3] = rows[0][: batch // 3] + rows[1][: batch // 3]  # distances of 0
    grad = normal(rng, batch, dtype=dtype)

    def run(device: str) -> tuple[Tensor, ...]:
        leaves = [t.to(device).requires_grad_() for t in rows]
        scores = tercet.transe_score(*leaves, norm=norm)
        return scores.detach(), *torch.autograd.grad(scores, leaves, grad.to(device))

    for mine, want in zip(run("cuda"), run("cpu"), strict=True):
        assert_close(mine, want)


@pytest.mark.cuda
@given(seeds, st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 400]), DIMS, norms, dtypes)
@quietly
def test_ranks_are_those_of_the_cpu(
    kernels: ModuleType, seed: int, num_entities: int, dim: int, norm: str, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    num_triples = int(rng.integers(0, 400))
    *tensors, known, candidates = random_ranking(rng, num_entities, dim, num_triples, dtype)
    for filtered in (known, None):
        want = tercet.transe_rank(*tensors, known=filtered, norm=norm, candidates=candidates)
        there = None if candidates is None else tuple(sets.to("cuda") for sets in candidates)
        got = tercet.transe_rank(*(t.cuda() for t in tensors), known=None if filtered is None else filtered.cuda(),
                                 norm=norm, candidates=there)  # fmt: skip
        assert torch.equal(got.optimistic.cpu(), want.optimistic)
        assert torch.equal(got.pessimistic.cpu(), want.pessimistic)
        assert torch.equal(got.num_candidates.cpu(), want.num_candidates)


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_tiles_than_a_grid_has_blocks(kernels: ModuleType, norm: str, dtype: torch.dtype) -> None:
    # 8192 blocks, of 128 x 128 pairs (float64: 64 x 64).
    rng = np.random.default_rng(0)
    count = 12_000 if dtype == torch.float32 else 6_000
    entities, relations = normal(rng, count, 5, dtype=dtype), normal(rng, 1, 5, dtype=dtype)
    triples = torch.from_numpy(rng.integers(0, [count, 1, count], (count, 3)))
    triples[:, 0] = torch.arange(count)
    scores = tercet.transe_scores(entities.cuda(), entities.cuda(), norm=norm)
    some = torch.arange(0, count, 997)
    assert_close(scores[some.cuda()], tercet.transe_scores(entities[some], entities, norm=norm))
    want = tercet.transe_rank(entities, relations, triples, known=triples, norm=norm)
    got = tercet.transe_rank(entities.cuda(), relations.cuda(), triples.cuda(), known=triples.cuda(), norm=norm)
    assert torch.equal(got.optimistic.cpu(), want.optimistic)
    assert torch.equal(got.pessimistic.cpu(), want.pessimistic)


@pytest.mark.cuda
def test_ranks_by_chunks_of_the_queries(kernels: ModuleType) -> None:
    rng = np.random.default_rng(1)
    entities, relations, triples, known, _ = (
        t if t is None or isinstance(t, tuple) else t.cuda() for t in random_ranking(rng, 300, 20, 400, torch.float32)
    )
    order, anchors, kinds, offsets = ranking._queries(triples, 3, True)
    index = tercet.FilterIndex(known, num_entities=300, num_relations=3)
    args = (entities, relations, anchors, kinds, offsets, triples[order, 2].int(),
            *index.ranges(anchors, kinds, tails=True), None, None, "l1", True)  # fmt: skip
    want = _ranking_cuda.rank_counts(kernels, *args)
    for budget in (1, 80 * 7, 80 * 129):
        assert all(map(torch.equal, _ranking_cuda.rank_counts(kernels, *args, scratch_bytes=budget), want))


@pytest.mark.cuda
@given(seeds, st.sampled_from([1, 5, 130]), st.sampled_from([1, 64, 300]), norms, dtypes)
@quietly
def test_best_entities_are_those_of_sorted_scores(
    kernels: ModuleType, seed: int, batch: int, num_entities: int, norm: str, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(seed)
    queries, entities = grid(rng, batch, 17, dtype=dtype).cuda(), grid(rng, num_entities, 17, dtype=dtype).cuda()
    k = int(rng.integers(1, num_entities + 1))
    exclude = random_sets(rng, batch, num_entities, 0.3, dtype).to("cuda")
    got = tercet.transe_top(queries, entities, k, norm=norm, exclude=exclude)
    scores = tercet.transe_scores(queries, entities, norm=norm)
    rows = torch.repeat_interleave(torch.arange(batch, device="cuda"), exclude.offsets.diff())
    scores[rows, exclude.entities.long()] = -torch.inf
    values, order = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(got[0], values[:, :k])
    assert torch.equal(got[1], torch.where(values == -torch.inf, -1, order)[:, :k])


@pytest.mark.cuda
@given(seeds, norms, losses, st.sampled_from(training.OPTIMIZERS), st.sampled_from([1, 6]), dtypes, st.booleans())
@quietly
def test_training_steps_agree_with_the_cpu(
    kernels: ModuleType, seed: int, norm: str, loss: training.Loss, name: str, chunk_size: int, dtype: torch.dtype,
    unit_ball: bool,
) -> None:  # fmt: skip
    *tables, batches = random_training(np.random.default_rng(seed), norm, chunk_size, dtype)
    optimizer = training.Optimizer(name, 0.1)

    def run(device: str) -> list[Tensor]:
        entities, relations = (t.to(device, copy=True) for t in tables)
        there = training.Batches(*(t.to(device) for t in batches[:5]), chunk_size)
        state = training.optimizer_state(optimizer, entities, relations)
        gradients = training.batch_gradients(entities, relations, there, 1, norm=norm, loss=loss)
        training.apply_gradients(entities, relations, state, there, 1, gradients, norm=norm, optimizer=optimizer,
                                 step=1, unit_ball=unit_ball)  # fmt: skip
        rows = [entities, relations] if name == "sgd" else []  # the others divide by the size of the gradient
        return [*gradients, *state.entities, *state.relations, *rows]

    got = run("cuda")
    for mine, want in zip(got, run("cpu"), strict=True):
        torch.testing.assert_close(mine.cpu(), want, rtol=1e-3, atol=2e-4 if dtype == torch.float32 else 1e-10)
    assert all(map(torch.equal, run("cuda"), got))


@pytest.mark.cuda
@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck(kernels: ModuleType, norm: str) -> None:
    rng = np.random.default_rng(3)
    # Multiples of 1/4, and entities an eighth beside such: no difference is small.
    queries = torch.from_numpy(rng.integers(-8, 9, (4, 17)) / 4).cuda().requires_grad_()
    entities = torch.from_numpy(rng.integers(-8, 9, (6, 17)) / 4 + 1 / 8).cuda().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, e: tercet.transe_scores(q, e, norm=norm), (queries, entities))
    heads = queries.detach().clone().requires_grad_()
    tails = entities.detach()[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda *rows: tercet.transe_score(*rows, norm=norm), (heads, queries, tails))


@pytest.mark.cuda
def test_streams(kernels: ModuleType) -> None:
    queries, entities = (t.cuda() for t in random_tables(4, 300, 700, 33, torch.float32))
    want = tercet.transe_scores(queries, entities, norm="l1")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what runs on another stream would be done before
        got = tercet.transe_scores(queries * 2 / 2, entities, norm="l1")
        again = got.clone()
    stream.synchronize()
    assert torch.equal(again, want)
