"""transe_score and transe_scores: against the reference, their laws, their gradients, their checks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import TOLERANCE, dtypes, instruction_set, normal, seeds, torch_threads
from tercet.ops import _native, translation
from tercet.ops.reference import translation as reference
from tercet.ops.translation import NORMS

# Around the vectors (2 to 16 values), the blocks of dimensions (64) and of entities (32, 64) of the kernels.
DIMS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 130, 200)
norms = st.sampled_from(NORMS)


@dataclass
class Pairs:
    """Queries [batch, dim] and entities [num_entities, dim], and weights of their scores."""

    queries: Tensor
    entities: Tensor
    grad: Tensor

    def in_float64(self) -> Pairs:
        return Pairs(self.queries.double(), self.entities.double(), self.grad.double())


def random_pairs(rng: np.random.Generator, batch: int, num_entities: int, dim: int, dtype: torch.dtype) -> Pairs:
    """Normal values; some entities equal some queries, so that some differences are 0."""
    queries, entities = normal(rng, batch, dim, dtype=dtype), normal(rng, num_entities, dim, dtype=dtype)
    if batch and num_entities:
        equal = rng.integers(0, num_entities, num_entities // 4)
        entities[equal] = queries[rng.integers(0, batch, len(equal))]
    return Pairs(queries, entities, normal(rng, batch, num_entities, dtype=dtype))


@st.composite
def pairs(draw: st.DrawFn, *, dtype: torch.dtype | None = None) -> Pairs:
    """Small ones, and such that fill several tiles and tasks."""
    return random_pairs(
        np.random.default_rng(draw(seeds)),
        draw(st.sampled_from([0, 1, 3, 4, 5, 17, 70])),
        draw(st.sampled_from([0, 1, 7, 31, 32, 33, 63, 64, 65, 150, 300])),
        draw(st.sampled_from(DIMS)),
        draw(dtypes) if dtype is None else dtype,
    )


def assert_scores(got: Tensor, want: Tensor, size: Tensor) -> None:
    """Equal but for rounding; `size` is the sum of the sizes of the terms (l2: its root)."""
    assert ((got.double() - want).abs() <= TOLERANCE[got.dtype] * size.clamp(min=1e-30)).all()


def sizes(queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """The scores if nothing cancelled, in float64; arguments broadcast."""
    return reference.compare(queries.double().abs(), -entities.double().abs(), norm).abs()


@given(pairs(), norms)
def test_scores_equal_reference(case: Pairs, norm: str) -> None:
    want = reference.transe_scores(case.queries.double(), case.entities.double(), norm)
    size = sizes(case.queries[:, None], case.entities, norm)
    for isa in _native.available_isas():
        with instruction_set(isa):
            got = tercet.transe_scores(case.queries, case.entities, norm=norm)
        assert got.dtype == case.queries.dtype
        assert_scores(got, want, size)


@given(pairs(), norms, seeds)
def test_score_equals_reference(case: Pairs, norm: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = len(case.queries) if len(case.entities) else 0
    heads, tails = case.queries[:count], case.entities[rng.integers(0, max(len(case.entities), 1), count)]
    relations = normal(rng, *heads.shape, dtype=heads.dtype)
    wide = heads.double(), relations.double(), tails.double()
    want = reference.transe_score(*wide, norm)
    grad = normal(rng, count, dtype=heads.dtype)
    want_gradients = reference.transe_score_backward(grad.double(), *wide, norm)
    for isa in _native.available_isas():
        with instruction_set(isa):
            leaves = [t.clone().requires_grad_() for t in (heads, relations, tails)]
            got = tercet.transe_score(*leaves, norm=norm)
            gradients = torch.autograd.grad(got, leaves, grad)
        assert got.dtype == heads.dtype
        assert_scores(got, want, sizes(heads.abs() + relations.abs(), tails, norm))
        assert torch.equal(gradients[0], gradients[1])
        for gradient, wanted in zip(gradients[1:], want_gradients, strict=True):
            torch.testing.assert_close(gradient.double(), wanted, rtol=2e-4 if grad.dtype == torch.float32 else 1e-12,
                                       atol=2e-4 if grad.dtype == torch.float32 else 1e-12)  # fmt: skip


@given(pairs(), norms)
def test_gradients_of_scores_equal_reference(case: Pairs, norm: str) -> None:
    wide = case.in_float64()
    want = reference.transe_scores_backward(wide.grad, wide.queries, wide.entities, norm)
    # A gradient's terms are at most this large, by dimension (dot) or by score (l1, l2).
    if norm == "dot":
        size = wide.grad.abs() @ wide.entities.abs(), wide.grad.abs().T @ wide.queries.abs()
    else:
        size = wide.grad.abs().sum(1, keepdim=True), wide.grad.abs().sum(0)[:, None]
    slack = 4 if norm == "l2" else 1  # a short distance is itself rounded
    for isa in _native.available_isas():
        leaves = [case.queries.clone().requires_grad_(), case.entities.clone().requires_grad_()]
        with instruction_set(isa):
            got = torch.autograd.grad(tercet.transe_scores(*leaves, norm=norm), leaves, case.grad)
        for gradient, wanted, largest in zip(got, want, size, strict=True):
            assert gradient.shape == wanted.shape
            bound = slack * TOLERANCE[gradient.dtype] * largest.clamp(min=1e-30)
            assert ((gradient.double() - wanted).abs() <= bound).all()


@given(st.sampled_from([0, 1, 5, 300, 700]), st.sampled_from([1, 100, 257, 600]), norms, dtypes, seeds)
@settings(max_examples=15)
def test_same_bits_for_any_thread_count_and_split(
    batch: int, num_entities: int, norm: str, dtype: torch.dtype, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    case = random_pairs(rng, batch, num_entities, int(rng.choice([1, 17, 64, 70])), dtype)
    want = tercet.transe_scores(case.queries, case.entities, norm=norm, num_threads=1)
    for threads in (2, 7):
        assert torch.equal(tercet.transe_scores(case.queries, case.entities, norm=norm, num_threads=threads), want)
    rows, columns = (np.sort(rng.integers(0, size + 1, 3)).tolist() for size in (batch, num_entities))
    by_rows = [tercet.transe_scores(part, case.entities, norm=norm) for part in case.queries.tensor_split(rows)]
    by_columns = [tercet.transe_scores(case.queries, part, norm=norm) for part in case.entities.tensor_split(columns)]
    assert torch.equal(torch.cat(by_rows), want)
    assert torch.equal(torch.cat(by_columns, dim=1), want)

    def gradients(threads: int) -> tuple[Tensor, ...]:
        leaves = [case.queries.clone().requires_grad_(), case.entities.clone().requires_grad_()]
        scores = tercet.transe_scores(*leaves, norm=norm, num_threads=threads)
        return torch.autograd.grad(scores, leaves, case.grad)

    first = gradients(1)
    for threads in (2, 7):
        for again, once in zip(gradients(threads), first, strict=True):
            assert torch.equal(again, once)


@given(st.sampled_from([1, 257, 1000]), norms, dtypes, seeds)
@settings(max_examples=10)
def test_score_has_the_same_bits_for_any_thread_count_and_split(
    batch: int, norm: str, dtype: torch.dtype, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    triples = [normal(rng, batch, 19, dtype=dtype) for _ in range(3)]
    grad, cut = normal(rng, batch, dtype=dtype), int(rng.integers(0, batch + 1))

    def run(rows: slice) -> tuple[Tensor, ...]:
        leaves = [t[rows].clone().requires_grad_() for t in triples]
        scores = tercet.transe_score(*leaves, norm=norm)
        return scores.detach(), *torch.autograd.grad(scores, leaves, grad[rows])

    with torch_threads(1):
        want = run(slice(None))
    with torch_threads(5):
        assert all(map(torch.equal, run(slice(None)), want))
    parts = zip(run(slice(0, cut)), run(slice(cut, None)), strict=True)
    assert all(torch.equal(torch.cat(part), whole) for part, whole in zip(parts, want, strict=True))


@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 3, 17]), norms, seeds)
@settings(max_examples=20)
def test_gradcheck_away_from_kinks(batch: int, num_entities: int, dim: int, norm: str, seed: int) -> None:
    """Queries are multiples of 1/4 and entities lie an eighth beside such: no difference is small."""
    rng = np.random.default_rng(seed)
    queries = torch.from_numpy(rng.integers(-8, 9, (batch, dim)) / 4).requires_grad_()
    entities = torch.from_numpy(rng.integers(-8, 9, (num_entities, dim)) / 4 + 1 / 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, e: tercet.transe_scores(q, e, norm=norm), (queries, entities))
    relations = torch.from_numpy(rng.integers(-8, 9, (batch, dim)) / 4).requires_grad_()
    tails = entities.detach()[rng.integers(0, num_entities, batch)].requires_grad_()
    assert torch.autograd.gradcheck(lambda *rows: tercet.transe_score(*rows, norm=norm), (queries, relations, tails))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_difference_of_zero_has_gradient_zero(norm: str, dtype: torch.dtype, zero: float) -> None:
    query = torch.tensor([[1.0, zero, 2.0]], dtype=dtype, requires_grad=True)
    entities = torch.tensor([[1.0, 0.0, 2.0], [1.0, 0.0, 5.0]], dtype=dtype, requires_grad=True)
    scores = tercet.transe_scores(query, entities, norm=norm)
    assert scores.tolist() == [[0.0, -3.0]]
    to_query, to_entities = torch.autograd.grad(scores.sum(), [query, entities])
    assert to_query.tolist() == [[0.0, 0.0, 1.0]]
    assert to_entities.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
    relations = torch.zeros_like(entities, requires_grad=True)
    scores = tercet.transe_score(query, relations, entities, norm=norm)
    to_relations, to_tails = torch.autograd.grad(scores.sum(), [relations, entities])
    assert to_relations.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert to_tails.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]


@pytest.mark.parametrize("norm", NORMS)
def test_only_the_wanted_gradient_is_computed(norm: str) -> None:
    case = random_pairs(np.random.default_rng(0), 5, 70, 20, torch.float64)
    both = [case.queries.clone().requires_grad_(), case.entities.clone().requires_grad_()]
    want = torch.autograd.grad(tercet.transe_scores(*both, norm=norm), both, case.grad)
    for side in (0, 1):
        leaves = [case.queries.clone(), case.entities.clone()]
        leaves[side].requires_grad_()
        (got,) = torch.autograd.grad(tercet.transe_scores(*leaves, norm=norm), leaves[side], case.grad)
        assert torch.equal(got, want[side])


@pytest.mark.parametrize("norm", NORMS)
def test_score_broadcasts(norm: str) -> None:
    rng = np.random.default_rng(1)
    heads, relation, tails = (
        normal(rng, *shape, dtype=torch.float64).requires_grad_() for shape in ((4, 1, 9), (9,), (1, 6, 9))
    )
    got, want = (
        tercet.transe_score(heads, relation, tails, norm=norm),
        reference.transe_score(heads, relation, tails, norm),
    )
    assert got.shape == (4, 6)
    torch.testing.assert_close(got, want)
    probe = normal(rng, 4, 6, dtype=torch.float64)
    gradients = [torch.autograd.grad(scores, [heads, relation, tails], probe) for scores in (got, want)]
    torch.testing.assert_close(*gradients)
    assert tercet.transe_score(relation, relation, relation, norm=norm).shape == ()


@pytest.mark.parametrize("norm", NORMS)
def test_strided_and_expanded_arguments(norm: str) -> None:
    rng = np.random.default_rng(2)
    case = random_pairs(rng, 6, 80, 20, torch.float32)
    want = tercet.transe_scores(case.queries, case.entities, norm=norm)
    strided = torch.stack([case.queries, case.queries], -1)[..., 1], case.entities.T.contiguous().T
    assert torch.equal(tercet.transe_scores(*strided, norm=norm), want)
    leaves = [t.detach().requires_grad_() for t in strided]
    (to_queries, to_entities) = torch.autograd.grad(tercet.transe_scores(*leaves, norm=norm).sum(), leaves)
    plain = [case.queries.clone().requires_grad_(), case.entities.clone().requires_grad_()]
    ones = torch.autograd.grad(tercet.transe_scores(*plain, norm=norm), plain, torch.ones(6, 80))
    assert torch.equal(to_queries, ones[0])
    assert torch.equal(to_entities, ones[1])
    reverse = case.entities[:6].flip(0), case.queries[:1].expand(6, 20), case.entities[::2][:6]
    dense = [t.contiguous() for t in reverse]
    assert torch.equal(tercet.transe_score(*reverse, norm=norm), tercet.transe_score(*dense, norm=norm))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_not_a_number_stays_in_its_row(norm: str, bad: float) -> None:
    case = random_pairs(np.random.default_rng(3), 9, 70, 21, torch.float32)
    clean = tercet.transe_scores(case.queries, case.entities, norm=norm)
    queries, entities = case.queries.clone(), case.entities.clone()
    queries[4, 20], entities[66, 0] = bad, bad
    got = tercet.transe_scores(queries, entities, norm=norm)
    touched = torch.zeros(9, 70, dtype=torch.bool)
    touched[4], touched[:, 66] = True, True
    assert torch.equal(got[~touched], clean[~touched])
    assert torch.equal(got.isnan(), reference.transe_scores(queries, entities, norm).isnan())
    assert not got[touched].isfinite().any()
    leaves = [queries.requires_grad_(), case.entities.clone().requires_grad_()]
    (to_queries,) = torch.autograd.grad(tercet.transe_scores(*leaves, norm=norm), leaves[:1], case.grad)
    plain = case.queries.clone().requires_grad_()
    (want,) = torch.autograd.grad(tercet.transe_scores(plain, case.entities, norm=norm), plain, case.grad)
    others = torch.arange(9) != 4
    assert torch.equal(to_queries[others], want[others])
    triples = queries.detach(), case.queries.flip(1), case.entities[:9]
    single = tercet.transe_score(*triples, norm=norm)
    assert single.isfinite().tolist() == others.tolist()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (0, 0, 3), (4, 5, 0), (0, 0, 0)])
def test_empty_inputs(norm: str, shape: tuple[int, int, int]) -> None:
    batch, num_entities, dim = shape
    queries, entities = torch.ones(batch, dim, requires_grad=True), torch.ones(num_entities, dim, requires_grad=True)
    scores = tercet.transe_scores(queries, entities, norm=norm)
    assert torch.equal(scores, torch.zeros(batch, num_entities))
    gradients = torch.autograd.grad(scores.sum(), [queries, entities])
    assert all(torch.equal(g, torch.zeros_like(t)) for g, t in zip(gradients, (queries, entities), strict=True))
    single = tercet.transe_score(queries, queries, -queries, norm=norm)
    assert single.tolist() == pytest.approx(
        [{"l1": -3.0 * dim, "l2": -3.0 * dim**0.5, "dot": -2.0 * dim}[norm]] * batch
    )


@pytest.mark.parametrize("norm", NORMS)
def test_opcheck(norm: str) -> None:
    rng = np.random.default_rng(4)
    heads, relations, tails, entities = (
        normal(rng, rows, 9, dtype=torch.float64).requires_grad_() for rows in (5, 5, 5, 40)
    )
    torch.library.opcheck(translation._transe_score, (heads, relations, tails, norm))
    torch.library.opcheck(translation._transe_scores, (heads, entities, norm, 2))
    plain = [t.detach() for t in (heads, relations, tails, entities)]
    grad, grads = normal(rng, 5, dtype=torch.float64), normal(rng, 5, 40, dtype=torch.float64)
    torch.library.opcheck(translation._transe_score_backward, (grad, *plain[:3], norm))
    scores = tercet.transe_scores(plain[0], plain[3], norm=norm)
    for wanted in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(
            translation._transe_scores_backward, (grads, plain[0], plain[3], scores, norm, *wanted, 2)
        )


@pytest.mark.parametrize("norm", NORMS)
def test_compiles_in_one_graph(norm: str) -> None:
    rng = np.random.default_rng(5)
    entities, relations = (normal(rng, rows, 12, dtype=torch.float64).requires_grad_() for rows in (30, 4))
    ids = torch.from_numpy(rng.integers(0, 4, (7, 3)))

    def loss(entities: Tensor, relations: Tensor) -> Tensor:
        heads, kinds, tails = entities[ids[:, 0]], relations[ids[:, 1]], entities[ids[:, 2]]
        positive = tercet.transe_score(heads, kinds, tails, norm=norm)
        scores = tercet.transe_scores(heads + kinds, entities, norm=norm)
        return (scores.logsumexp(1) - positive).mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(entities, relations), loss(entities, relations)
    torch.testing.assert_close(got, want)
    gradients = [torch.autograd.grad(out, [entities, relations]) for out in (got, want)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("op", ["transe_score", "transe_scores"])
def test_a_second_gradient_is_refused(op: str, norm: str) -> None:
    rows = [torch.tensor([[1.0, 2.0]], requires_grad=True) for _ in range(3 if op == "transe_score" else 2)]
    rows[0] = torch.tensor([[0.5, 3.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(getattr(tercet, op)(*rows, norm=norm).sum(), rows[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(grad.sum(), rows[0])


ROWS = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "l3"}, ValueError, "norm must be one of l1, l2, dot, got 'l3'"),
        ({"queries": [[1.0]]}, TypeError, "queries must be a torch.Tensor, got list"),
        ({"queries": torch.ones(2, 3, dtype=torch.int64)}, TypeError, "queries must be float32 or float64, got torch.int64"),
        ({"entities": torch.ones(2, 3).half()}, TypeError, "entities must be float32 or float64, got torch.float16"),
        ({"entities": torch.ones(2, 3).double()}, TypeError, "entities and queries must have one dtype, got torch.float64 and torch.float32"),
        ({"entities": torch.ones(2, 3, device="meta")}, ValueError, "entities and queries must be on one device, got meta and cpu"),
        ({"entities": torch.ones(2, 4)}, ValueError, "queries and entities must be [batch, dim] and [num_entities, dim], got [2, 3] and [2, 4]"),
        ({"queries": torch.ones(3)}, ValueError, "queries and entities must be [batch, dim] and [num_entities, dim], got [3] and [2, 3]"),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
        ({"num_threads": 2.0}, ValueError, "num_threads must be a positive integer, got 2.0"),
    ],
)  # fmt: skip
def test_errors_of_scores(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"queries": ROWS, "entities": ROWS, "norm": "l1", **options}
    with pytest.raises(error, match=re.escape(f"tercet.transe_scores: {message}")):
        tercet.transe_scores(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "L1"}, ValueError, "norm must be one of l1, l2, dot, got 'L1'"),
        ({"heads": [[1.0]]}, TypeError, "heads must be a torch.Tensor, got list"),
        ({"heads": torch.ones(2, 3, dtype=torch.int32)}, TypeError, "heads must be float32 or float64, got torch.int32"),
        ({"relations": 1.0}, TypeError, "relations must be a torch.Tensor, got float"),
        ({"relations": torch.ones(3).double()}, TypeError, "relations and heads must have one dtype"),
        ({"tails": torch.ones(2, 3, device="meta")}, ValueError, "tails and heads must be on one device, got meta and cpu"),
        ({"tails": torch.ones(5, 3)}, ValueError, "heads, relations and tails must broadcast, got [2, 3], [2, 3], [5, 3]"),
        ({"heads": torch.tensor(1.0), "relations": torch.tensor(1.0), "tails": torch.tensor(1.0)}, ValueError,
         "heads, relations and tails must be [..., dim], got three numbers"),
    ],
)  # fmt: skip
def test_errors_of_score(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"heads": ROWS, "relations": ROWS, "tails": ROWS, "norm": "l1", **options}
    with pytest.raises(error, match=re.escape(f"tercet.transe_score: {message}")):
        tercet.transe_score(**arguments)
