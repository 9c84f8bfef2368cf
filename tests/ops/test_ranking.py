"""FilterIndex, transe_rank and transe_top: against sets, the reference and full sorts; ties, extremes, checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import dtypes, grid, instruction_set, normal, seeds, torch_threads
from tercet import EntitySets, FilterIndex, Ranks
from tercet.ops import _native, ranking
from tercet.ops.reference import ranking as reference
from tercet.ops.translation import NORMS

norms = st.sampled_from(NORMS)
Draw = Callable[..., Tensor]


def random_triples(rng: np.random.Generator, count: int, num_entities: int, num_relations: int) -> Tensor:
    columns = [rng.integers(0, size, count) for size in (num_entities, num_relations, num_entities)]
    return torch.from_numpy(np.stack(columns, 1))


def near_ties(rng: np.random.Generator, *shape: int, dtype: torch.dtype, exponent: int = -20) -> Tensor:
    """Small whole numbers, a few off by a power of two: what float32 sums cannot tell apart float64 sums can, exactly."""
    offsets = rng.integers(-2, 3, shape) * (rng.random(shape) < 0.1) * 2.0**exponent
    return (torch.from_numpy(rng.integers(-2, 3, shape) + offsets)).to(dtype)


def scaled(exponent: int) -> Draw:
    """Whole numbers times a power of two: ties stay exact however large or small the values are."""
    return lambda rng, *shape, dtype: grid(rng, *shape, dtype=torch.float64).mul(2.0**exponent).to(dtype)


@dataclass
class Case:
    """One call of transe_rank."""

    entities: Tensor
    relations: Tensor
    triples: Tensor
    known: Tensor | None
    candidates: Tensor | tuple[EntitySets, EntitySets] | None

    def index(self) -> FilterIndex | None:
        if self.known is None:
            return None
        return FilterIndex(self.known, num_entities=len(self.entities), num_relations=len(self.relations))

    def ranks(self, norm: str, rows: slice = slice(None), **options: object) -> Ranks:
        options = {"known": self.index(), "candidates": self.candidates, **options}
        return tercet.transe_rank(self.entities, self.relations, self.triples[rows], norm=norm, **options)


@st.composite
def cases(draw: st.DrawFn, values: Draw, *, max_entities: int = 200, dtype: torch.dtype | None = None) -> Case:
    """Repeated queries and triples, unknown targets, candidates that hold the target or do not."""
    rng = np.random.default_rng(draw(seeds))
    num_entities = draw(st.one_of(st.integers(1, 40), st.integers(1, max_entities)))
    num_relations = draw(st.integers(1, 3))
    dim = draw(st.sampled_from([1, 2, 3, 8, 17, 70]))
    chosen = draw(dtypes) if dtype is None else dtype
    triples = random_triples(rng, draw(st.sampled_from([0, 1, 5, 60, 150])), num_entities, num_relations)
    known = None
    if draw(st.booleans()):
        others = random_triples(rng, draw(st.sampled_from([0, 30, 1000])), num_entities, num_relations)
        known = torch.cat([triples[: draw(st.sampled_from([0, 3, 1000]))], others])
    candidates: Tensor | tuple[EntitySets, EntitySets] | None = None
    kind = draw(st.sampled_from(["all", "all", "ids", "sets"]))
    if kind == "ids":
        candidates = torch.from_numpy(rng.integers(0, num_entities, num_entities // 2))
    elif kind == "sets":
        member = rng.random((2, num_relations, num_entities)) < 0.4
        rows = [[np.flatnonzero(side[r]).tolist() for r in range(num_relations)] for side in member]
        candidates = EntitySets.from_lists(rows[0]), EntitySets.from_lists(rows[1])
    tables = (values(rng, size, dim, dtype=chosen) for size in (num_entities, num_relations))
    return Case(*tables, triples, known, candidates)


def rivals_of(case: Case, relation: int, tails: bool) -> set[int]:
    if case.candidates is None:
        return set(range(len(case.entities)))
    if isinstance(case.candidates, Tensor):
        return set(case.candidates.tolist())
    return set(case.candidates[tails][relation].entities.tolist())


def want_ranks(case: Case, norm: str) -> tuple[list[list[int]], ...]:
    """(optimistic, pessimistic, num_candidates), one target at a time; the reference only counts its scores."""
    facts = set() if case.known is None else set(map(tuple, case.known.tolist()))
    found: tuple[list[list[int]], ...] = ([], [], [])
    for head, relation, tail in case.triples.tolist():
        for column in found:
            column.append([])
        for tails in (False, True):
            anchor, target = (head, tail) if tails else (tail, head)
            rivals = sorted(
                e for e in rivals_of(case, relation, tails)
                if ((head, relation, e) if tails else (e, relation, tail)) not in facts and e != target
            )  # fmt: skip
            counts = reference.rank_counts(
                case.entities, case.relations, torch.tensor([anchor]), torch.tensor([relation]),
                torch.tensor([0, 1]), torch.tensor([target]), None, None,
                torch.tensor([[0, len(rivals)]]), torch.tensor(rivals, dtype=torch.int32), norm, tails,
            )  # fmt: skip
            better, equal, rest = (int(count) for count in counts)
            for column, value in zip(found, (better + 1, better + equal + 1, rest + 1), strict=True):
                column[-1].append(value)
    return found


def assert_ranks(got: Ranks, want: tuple[list[list[int]], ...]) -> None:
    for have, wanted in zip((got.optimistic, got.pessimistic, got.num_candidates), want, strict=True):
        assert have.dtype == torch.int64
        assert have.shape == (len(wanted), 2)
        assert have.tolist() == wanted
    assert torch.equal(got.realistic, (got.optimistic + got.pessimistic).double() / 2)


def assert_same(a: Ranks, b: Ranks) -> None:
    assert torch.equal(a.optimistic, b.optimistic)
    assert torch.equal(a.pessimistic, b.pessimistic)
    assert torch.equal(a.num_candidates, b.num_candidates)


@pytest.mark.parametrize("values", [grid, near_ties, normal], ids=["ties", "near ties", "reals"])
@given(data=st.data(), norm=norms)
def test_ranks_equal_reference(values: Draw, data: st.DataObject, norm: str) -> None:
    case = data.draw(cases(values))
    want = want_ranks(case, norm)
    for isa in _native.available_isas():
        with instruction_set(isa):
            assert_ranks(case.ranks(norm), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [66, 40, -40, -66, -100, -140])
@given(data=st.data(), norm=norms)
@settings(max_examples=15)
def test_ranks_of_huge_and_tiny_values(exponent: int, dtype: torch.dtype, data: st.DataObject, norm: str) -> None:
    """2^66 is about 1e20, whose square float32 does not hold; 2^-100 about 1e-30, whose square is 0 there."""
    case = data.draw(cases(scaled(exponent), dtype=dtype, max_entities=60))
    assert_ranks(case.ranks(norm), want_ranks(case, norm))


@pytest.mark.parametrize("exponent", [400, -400])
@given(data=st.data(), norm=norms)
@settings(max_examples=15)
def test_ranks_of_float64_beyond_float32(exponent: int, data: st.DataObject, norm: str) -> None:
    case = data.draw(cases(scaled(exponent), dtype=torch.float64, max_entities=60))
    assert_ranks(case.ranks(norm), want_ranks(case, norm))


@given(data=st.data(), norm=norms)
@settings(max_examples=20)
def test_ranks_of_values_of_all_sizes(data: st.DataObject, norm: str) -> None:
    """A few vectors are 2^8 times as long as the others: what is near for them is far for others."""

    def values(rng: np.random.Generator, *shape: int, dtype: torch.dtype) -> Tensor:
        lengths = torch.from_numpy(2.0 ** rng.choice([0, 0, 0, 8], (shape[0], 1)))
        return (near_ties(rng, *shape, dtype=torch.float64, exponent=-10) * lengths).to(dtype)

    case = data.draw(cases(values))
    assert_ranks(case.ranks(norm), want_ranks(case, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks_over_several_blocks_of_entities(norm: str, dtype: torch.dtype) -> None:
    """More entities than are packed at once, more queries than a task takes, some with many targets and known ones."""
    rng = np.random.default_rng(6)
    num_entities = 4300
    for values in (grid, normal):
        triples = random_triples(rng, 140, num_entities, 2)
        triples[:40, :2] = triples[0, :2].clone()
        triples[40:60, 1:] = triples[40, 1:].clone()
        known = torch.cat([triples[::2], random_triples(rng, 3000, num_entities, 2)])
        hub = random_triples(rng, 3000, num_entities, 2)
        hub[:, :2] = triples[0, :2]
        tables = (values(rng, size, 5, dtype=dtype) for size in (num_entities, 2))
        case = Case(*tables, triples, torch.cat([known, hub]), None)
        index = case.index()
        assert index is not None
        want = case.ranks(norm, known=index, num_threads=1)
        for tails in (False, True):
            anchors, kinds = triples[:, 0 if tails else 2], triples[:, 1]
            ranges, members = index.ranges(anchors.int(), kinds.int(), tails=tails)
            with torch_threads(1):  # many small operations, which threads only slow down
                better, equal, rivals = reference.rank_counts(
                    case.entities, case.relations, anchors, kinds, torch.arange(141), triples[:, 2 if tails else 0],
                    ranges, members, None, None, norm, tails,
                )  # fmt: skip
            assert torch.equal(want.optimistic[:, int(tails)], better + 1)
            assert torch.equal(want.pessimistic[:, int(tails)], better + equal + 1)
            assert torch.equal(want.num_candidates[:, int(tails)], rivals + 1)
        for threads in (2, 7):
            assert_same(case.ranks(norm, known=index, num_threads=threads), want)


@given(cases(grid), norms, seeds)
def test_same_ranks_for_threads_splits_orders_and_kinds_of_known(case: Case, norm: str, seed: int) -> None:
    index = case.index()
    want = case.ranks(norm, known=index, num_threads=1)
    for threads in (2, 7):
        assert_same(case.ranks(norm, known=index, num_threads=threads), want)
    assert_same(case.ranks(norm, known=case.known), want)
    cut = int(np.random.default_rng(seed).integers(0, len(case.triples) + 1))
    first, second = case.ranks(norm, slice(0, cut)), case.ranks(norm, slice(cut, None))
    joined = (torch.cat([getattr(first, name), getattr(second, name)]) for name in Ranks.__dataclass_fields__)
    assert_same(Ranks(*joined), want)
    assert_same(case.ranks(norm, slice(None), known=index), want)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(case.triples)))
    case.triples = case.triples[order].int()
    assert_same(case.ranks(norm), Ranks(*(getattr(want, name)[order] for name in Ranks.__dataclass_fields__)))


@given(cases(normal), norms, seeds)
@settings(max_examples=20)
def test_ranks_do_not_depend_on_the_names_of_entities(case: Case, norm: str, seed: int) -> None:
    case.candidates = None
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(case.entities)))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))

    def renamed(triples: Tensor | None) -> Tensor | None:
        return None if triples is None else torch.stack([place[triples[:, 0]], triples[:, 1], place[triples[:, 2]]], 1)

    other = Case(case.entities[order], case.relations, renamed(case.triples), renamed(case.known), None)
    assert_same(other.ranks(norm), case.ranks(norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_embeddings_all_tie(norm: str, dtype: torch.dtype) -> None:
    entities = torch.full((130, 7), 0.1, dtype=dtype)
    relations = torch.full((1, 7), 0.3, dtype=dtype)
    ranks = tercet.transe_rank(entities, relations, torch.tensor([[0, 0, 129], [64, 0, 64]]), norm=norm,
                               known=torch.tensor([[0, 0, 5], [0, 0, 129], [7, 0, 129]]))  # fmt: skip
    assert ranks.optimistic.tolist() == [[1, 1], [1, 1]]
    # (0, 0, 129): 5 is no rival of the tail, 7 none of the head, and the target is none of its own.
    assert ranks.pessimistic.tolist() == [[129, 129], [130, 130]]
    assert torch.equal(ranks.pessimistic, ranks.num_candidates)


@pytest.mark.parametrize("norm", NORMS)
def test_ranks_at_the_edges(norm: str) -> None:
    one = tercet.transe_rank(torch.ones(1, 3), torch.ones(1, 3), torch.tensor([[0, 0, 0]]), known=None, norm=norm)
    assert_ranks(one, ([[1, 1]], [[1, 1]], [[1, 1]]))
    for known in (None, torch.zeros(0, 3, dtype=torch.int64)):
        none = tercet.transe_rank(torch.ones(4, 3), torch.ones(2, 3), torch.zeros(0, 3, dtype=torch.int64),
                                  known=known, norm=norm)  # fmt: skip
        assert_ranks(none, ([], [], []))
    flat = tercet.transe_rank(torch.ones(4, 0), torch.ones(1, 0), torch.tensor([[0, 0, 1]]), known=None, norm=norm)
    assert_ranks(flat, ([[1, 1]], [[4, 4]], [[4, 4]]))
    nobody = tercet.transe_rank(torch.ones(4, 2), torch.ones(1, 2), torch.tensor([[0, 0, 1]]), known=None, norm=norm,
                                candidates=torch.zeros(0, dtype=torch.int64))  # fmt: skip
    assert_ranks(nobody, ([[1, 1]], [[1, 1]], [[1, 1]]))
    empty = torch.zeros(0, 3, dtype=torch.int64)
    assert_ranks(tercet.transe_rank(torch.ones(0, 2), torch.ones(0, 2), empty, known=empty, norm=norm), ([], [], []))


def test_ranks_of_strided_tables_and_of_tables_with_gradients() -> None:
    rng = np.random.default_rng(7)
    entities, relations = (normal(rng, size, 6, dtype=torch.float32) for size in (50, 2))
    triples = random_triples(rng, 20, 50, 2)
    want = tercet.transe_rank(entities, relations, triples, known=triples)
    strided = entities.T.contiguous().T.requires_grad_(), torch.stack([relations, relations], -1)[..., 1]
    assert_same(tercet.transe_rank(*strided, triples.T.contiguous().T, known=triples.flip(0)), want)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
@given(seed=seeds, count=st.sampled_from([0, 1, 40, 400]))
@settings(max_examples=10)
def test_filter_index_holds_a_set_of_triples(dtype: torch.dtype, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    triples = random_triples(rng, count, 20, 3)
    facts = set(map(tuple, triples.tolist()))
    given_triples = torch.cat([triples, triples[: count // 2]]).to(dtype)
    index = FilterIndex(given_triples, num_entities=20, num_relations=3)
    for known in (index, index.to("cpu")):
        assert len(known) == len(facts)
        assert known.device == torch.device("cpu")
        for relation in range(3):
            for entity in range(20):
                tails = sorted(t for h, r, t in facts if (h, r) == (entity, relation))
                heads = sorted(h for h, r, t in facts if (r, t) == (relation, entity))
                assert known.tails(entity, relation).tolist() == tails
                assert known.heads(relation, entity).tolist() == heads
                assert known.tails(entity, relation).dtype == torch.int64
    assert repr(index) == f"FilterIndex({len(facts)} triples, num_entities=20, num_relations=3)"


def test_filter_index_of_strided_triples_and_without_entities() -> None:
    triples = torch.tensor([[0, 0, 1], [2, 1, 0]])
    index = FilterIndex(triples.T.contiguous().T, num_entities=3, num_relations=2)
    assert (index.tails(0, 0).tolist(), index.heads(1, 0).tolist()) == ([1], [2])
    assert len(FilterIndex(triples[:0], num_entities=0, num_relations=0)) == 0


def best_by_sorting(
    queries: Tensor, entities: Tensor, k: int, norm: str, excluded: list[set[int]]
) -> tuple[list[list[float]], list[list[int]]]:
    """By the scores of transe_scores: those of transe_top are the same bits."""
    scores = tercet.transe_scores(queries, entities, norm=norm).tolist()
    found: list[list[int]] = []
    for row, away in zip(scores, excluded, strict=True):
        left = [e for e in range(len(entities)) if e not in away and row[e] == row[e] and row[e] > -np.inf]
        found.append(sorted(left, key=lambda e: (-row[e], e))[:k])
    values = [[row[e] for e in best] + [-np.inf] * (k - len(best)) for row, best in zip(scores, found, strict=True)]
    return values, [best + [-1] * (k - len(best)) for best in found]


@pytest.mark.parametrize("values", [grid, normal], ids=["ties", "reals"])
@given(data=st.data(), norm=norms, dtype=dtypes, seed=seeds)
def test_top_equals_a_full_sort(values: Draw, data: st.DataObject, norm: str, dtype: torch.dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, num_entities = data.draw(st.sampled_from([0, 1, 5, 40])), data.draw(st.sampled_from([1, 2, 31, 64, 65, 300]))
    dim, k = data.draw(st.sampled_from([1, 2, 17])), data.draw(st.sampled_from([1, 2, 10, 10000]))
    queries, entities = (values(rng, size, dim, dtype=dtype) for size in (batch, num_entities))
    k = min(k, num_entities)
    how = data.draw(st.sampled_from(["none", "ids", "sets"]))
    excluded: list[set[int]] = [set() for _ in range(batch)]
    exclude: Tensor | EntitySets | None = None
    if how == "ids":
        exclude = torch.from_numpy(rng.integers(0, num_entities, batch))
        excluded = [{int(e)} for e in exclude]
    elif how == "sets":
        share = rng.choice([0.1, 0.7, 1.0])
        excluded = [set(np.flatnonzero(rng.random(num_entities) < share).tolist()) for _ in range(batch)]
        exclude = EntitySets.from_lists([sorted(row) for row in excluded])
    for isa in _native.available_isas():
        with instruction_set(isa):
            want = best_by_sorting(queries, entities, k, norm, excluded)
            for threads in (1, 2, 7):
                scores, found = tercet.transe_top(queries, entities, k, norm=norm, exclude=exclude, num_threads=threads)
                assert (scores.dtype, found.dtype) == (dtype, torch.int64)
                assert (scores.tolist(), found.tolist()) == want


@pytest.mark.parametrize("norm", NORMS)
def test_top_over_many_entities_and_few_queries(norm: str) -> None:
    """Few queries: the entities are shared among threads, and their best are merged."""
    rng = np.random.default_rng(8)
    for values in (grid, normal):
        queries, entities = values(rng, 2, 6, dtype=torch.float32), values(rng, 6000, 6, dtype=torch.float32)
        excluded = [set(range(0, 6000, 3)), set()]
        sets = EntitySets.from_lists([sorted(row) for row in excluded])
        for k in (1, 50, 6000):
            want = best_by_sorting(queries, entities, k, norm, excluded)
            for threads in (1, 2, 7, 16):
                scores, found = tercet.transe_top(queries, entities, k, norm=norm, exclude=sets, num_threads=threads)
                assert (scores.tolist(), found.tolist()) == want


@pytest.mark.parametrize("norm", NORMS)
def test_top_leaves_out_what_has_no_score(norm: str) -> None:
    entities = torch.tensor([[torch.nan], [1.0], [-torch.inf], [torch.inf], [2.0]])
    queries = torch.tensor([[1.0], [torch.nan]])
    scores, found = tercet.transe_top(queries, entities, 5, norm=norm)
    assert (scores.tolist(), found.tolist()) == best_by_sorting(queries, entities, 5, norm, [set(), set()])
    assert found[1].tolist() == [-1] * 5
    assert found[0].tolist() == {"dot": [3, 4, 1, -1, -1]}.get(norm, [1, 4, -1, -1, -1])


@pytest.mark.parametrize("norm", NORMS)
def test_opcheck(norm: str) -> None:
    rng = np.random.default_rng(9)
    queries, entities, relations = (normal(rng, size, 5, dtype=torch.float64) for size in (3, 30, 2))
    offsets, members = torch.tensor([0, 1, 1, 3]), torch.tensor([4, 0, 9], dtype=torch.int32)
    torch.library.opcheck(ranking._transe_top, (queries, entities, 4, norm, offsets, members, 2))
    torch.library.opcheck(ranking._transe_top, (queries, entities, 4, norm, None, None, 2))
    ids = torch.tensor([0, 3, 7], dtype=torch.int32), torch.tensor([0, 1, 1], dtype=torch.int32)
    targets = torch.tensor([0, 1, 3, 4]), torch.tensor([1, 0, 4, 29], dtype=torch.int32)
    ranges = torch.tensor([[0, 1], [1, 1], [1, 3]])
    for known in ((ranges, members), (None, None)):
        for tails in (False, True):
            call = (entities, relations, *ids, *targets, *known, ranges, members, norm, tails, 2)
            torch.library.opcheck(ranking._rank_counts, call)


TABLE, KINDS, TRIPLES = torch.zeros(3, 2), torch.zeros(2, 2), torch.tensor([[0, 1, 2]])
INDEX = FilterIndex(TRIPLES, num_entities=3, num_relations=2)
SETS = EntitySets.from_lists([[0], [1]])


def with_value(table: Tensor, row: int, value: float) -> Tensor:
    table = table.clone()
    table[row, 1] = value
    return table


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "cosine"}, ValueError, "norm must be one of l1, l2, dot, got 'cosine'"),
        ({"entities": np.zeros((3, 2))}, TypeError, "entities must be a torch.Tensor, got ndarray"),
        ({"entities": torch.zeros(3, 2).half()}, TypeError, "entities must be float32 or float64, got torch.float16"),
        ({"relations": torch.zeros(2, 2).double()}, TypeError, "relations and entities must have one dtype"),
        ({"relations": torch.zeros(2, 3)}, ValueError, "entities and relations must be [num_entities, dim] and [num_relations, dim], got [3, 2] and [2, 3]"),
        ({"entities": torch.zeros(2)}, ValueError, "entities and relations must be [num_entities, dim] and [num_relations, dim], got [2] and [2, 2]"),
        ({"entities": with_value(TABLE, 2, torch.nan)}, ValueError, "entities must be finite, got nan in row 2"),
        ({"entities": with_value(TABLE, 1, torch.inf)}, ValueError, "entities must be finite, got inf in row 1"),
        ({"relations": with_value(KINDS, 1, -torch.inf)}, ValueError, "relations must be finite, got -inf in row 1"),
        ({"entities": with_value(TABLE.double(), 1, 1e200), "relations": KINDS.double()}, ValueError, "entities must be within 1e150, got 1e+200"),
        ({"triples": torch.zeros(1, 2, dtype=torch.int64)}, ValueError, "triples must be [num_triples, 3], got [1, 2]"),
        ({"triples": torch.zeros(1, 3)}, TypeError, "triples must hold integers, got torch.float32"),
        ({"triples": torch.tensor([[0, 1, 3]])}, ValueError, "triples[:, ::2] must be in 0..2, got 3"),
        ({"triples": torch.tensor([[-1, 1, 0]])}, ValueError, "triples[:, ::2] must be in 0..2, got -1"),
        ({"triples": torch.tensor([[0, 2, 0]])}, ValueError, "triples[:, 1] must be in 0..1, got 2"),
        ({"triples": torch.zeros(1, 3, dtype=torch.int64, device="meta")}, ValueError, "triples and entities must be on one device, got meta and cpu"),
        ({"known": [[0, 0, 0]]}, TypeError, "known must be a FilterIndex, triples or None, got list"),
        ({"known": torch.zeros(3, dtype=torch.int64)}, ValueError, "known must be [num_triples, 3], got [3]"),
        ({"known": FilterIndex(TRIPLES, num_entities=4, num_relations=2)}, ValueError, "known must be of 3 entities and 2 relations, got 4 and 2"),
        ({"known": FilterIndex(TRIPLES, num_entities=3, num_relations=3)}, ValueError, "known must be of 3 entities and 2 relations, got 3 and 3"),
        ({"candidates": torch.tensor([0, 3])}, ValueError, "candidates must be in 0..2, got 3"),
        ({"candidates": torch.tensor([0.0])}, TypeError, "candidates must hold integers, got torch.float32"),
        ({"candidates": [0]}, TypeError, "candidates must be ids or (heads, tails), got list"),
        ({"candidates": (SETS,)}, TypeError, "candidates must be ids or (heads, tails), got tuple"),
        ({"candidates": (SETS, torch.ones(1))}, TypeError, "candidates[1] must be EntitySets, got Tensor"),
        ({"candidates": (SETS, SETS[:1])}, ValueError, "candidates[1] must have a row for each of 2 relations and entities below 3, got 1 rows and entities below 2"),
        ({"candidates": (EntitySets.from_lists([[0], [3]]), SETS)}, ValueError, "candidates[0] must have a row for each of 2 relations and entities below 3, got 2 rows and entities below 4"),
        ({"num_threads": -1}, ValueError, "num_threads must be a positive integer, got -1"),
    ],
)  # fmt: skip
def test_errors_of_rank(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {
        "entities": TABLE,
        "relations": KINDS,
        "triples": TRIPLES,
        "known": INDEX,
        **options,
    }
    with pytest.raises(error, match=re.escape(f"tercet.transe_rank: {message}")):
        tercet.transe_rank(**arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norm": "l0"}, ValueError, "norm must be one of l1, l2, dot, got 'l0'"),
        ({"entities": torch.zeros(3, 3)}, ValueError, "queries and entities must be [batch, dim] and [num_entities, dim], got [2, 2] and [3, 3]"),
        ({"k": 0}, ValueError, "k must be an integer in 1..3, got 0"),
        ({"k": 4}, ValueError, "k must be an integer in 1..3, got 4"),
        ({"k": True}, ValueError, "k must be an integer in 1..3, got True"),
        ({"k": 1.0}, ValueError, "k must be an integer in 1..3, got 1.0"),
        ({"exclude": torch.tensor([0])}, ValueError, "exclude must be [batch] = [2], got [1]"),
        ({"exclude": torch.tensor([0, 3])}, ValueError, "exclude must be in 0..2, got 3"),
        ({"exclude": torch.tensor([0.0, 1.0])}, TypeError, "exclude must hold integers, got torch.float32"),
        ({"exclude": [0, 1]}, TypeError, "exclude must be EntitySets, got list"),
        ({"exclude": SETS[:1]}, ValueError, "exclude must have the batch of queries = 2 and entities below 3, got 1 and entities below 2"),
        ({"exclude": EntitySets.from_lists([[0], [3]])}, ValueError, "exclude must have the batch of queries = 2 and entities below 3, got 2 and entities below 4"),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
    ],
)  # fmt: skip
def test_errors_of_top(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"queries": KINDS, "entities": TABLE, "k": 2, "norm": "l1", **options}
    with pytest.raises(error, match=re.escape(f"tercet.transe_top: {message}")):
        tercet.transe_top(**arguments)


@pytest.mark.parametrize(
    ("triples", "error", "message"),
    [
        ([[0, 0, 0]], TypeError, "triples must be a torch.Tensor, got list"),
        (torch.zeros(1, 3), TypeError, "triples must hold integers, got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "triples must be [num_triples, 3], got [3]"),
        (torch.tensor([[0, 0, 1], [3, 0, 0]]), ValueError, "heads must be in 0..2, got 3 at position 1"),
        (torch.tensor([[0, 0, 1], [0, 0, -1]]), ValueError, "tails must be in 0..2, got -1 at position 1"),
        (torch.tensor([[0, 2, 1]]), ValueError, "relations must be in 0..1, got 2 at position 0"),
    ],
)  # fmt: skip
def test_errors_of_filter_index(triples: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"tercet.FilterIndex: {message}")):
        FilterIndex(triples, num_entities=3, num_relations=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: INDEX.tails(3, 0), "head must be in 0..2, got 3"),
        (lambda: INDEX.tails(0, 2), "relation must be in 0..1, got 2"),
        (lambda: INDEX.heads(-1, 0), "relation must be in 0..1, got -1"),
        (lambda: INDEX.heads(0, 3), "tail must be in 0..2, got 3"),
    ],
)
def test_errors_of_lookups(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"tercet.FilterIndex: {message}")):
        call()
