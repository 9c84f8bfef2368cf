"""Metrics of ranks against their definitions, written out one rank at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.evaluation import RankingMetrics, link_prediction_metrics, metrics_by_relation
from tercet.ops.ranking import Ranks


def drawn(num_triples: int, most: int, seed: int) -> Ranks:
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.randint(1, most + 1, (num_triples, 2), generator=generator)
    first = (torch.rand(num_triples, 2, generator=generator) * candidates).long() + 1
    second = (torch.rand(num_triples, 2, generator=generator) * candidates).long() + 1
    return Ranks(torch.minimum(first, second), torch.maximum(first, second), candidates)


def by_definition(pairs: list[tuple[float, int]]) -> RankingMetrics:
    """Of (rank, number of candidates)."""
    count = len(pairs)
    ranks = [rank for rank, _ in pairs]
    mean_rank = math.fsum(ranks) / count
    expected = math.fsum((candidates + 1) / 2 for _, candidates in pairs) / count
    adjusted = 1 - (mean_rank - 1) / (expected - 1) if expected > 1 else 0.0
    hits = (sum(rank <= k for rank in ranks) / count for k in (1, 3, 10))
    return RankingMetrics(math.fsum(1 / rank for rank in ranks) / count, *hits, mean_rank, adjusted, count)


def pairs_of(ranks: Ranks, sides: tuple[int, ...], rows: list[int]) -> list[tuple[float, int]]:
    realistic = ranks.realistic
    return [(float(realistic[row, side]), int(ranks.num_candidates[row, side])) for row in rows for side in sides]


def assert_alike(got: RankingMetrics, wanted: RankingMetrics) -> None:
    assert got.count == wanted.count
    for name in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10", "mean_rank", "adjusted_mean_rank_index"):
        assert getattr(got, name) == pytest.approx(getattr(wanted, name), rel=1e-12, abs=1e-12), name


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32))
def test_metrics_are_those_of_the_definition(num_triples: int, most: int, seed: int) -> None:
    ranks = drawn(num_triples, most, seed)
    metrics, rows = link_prediction_metrics(ranks), list(range(num_triples))
    for got, sides in ((metrics.head, (0,)), (metrics.tail, (1,)), (metrics.both, (0, 1))):
        assert_alike(got, by_definition(pairs_of(ranks, sides, rows)))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_relations_are_measured_apart(num_triples: int, num_relations: int, seed: int) -> None:
    ranks = drawn(num_triples, 50, seed)
    relations = torch.randint(num_relations, (num_triples,), generator=torch.Generator().manual_seed(seed + 1))
    found = metrics_by_relation(ranks, relations)
    assert list(found) == sorted(set(relations.tolist()))
    for relation, metrics in found.items():
        rows = [row for row in range(num_triples) if relations[row] == relation]
        for got, sides in ((metrics.head, (0,)), (metrics.tail, (1,)), (metrics.both, (0, 1))):
            assert_alike(got, by_definition(pairs_of(ranks, sides, rows)))


def test_the_index_is_1_for_perfect_0_for_chance_and_0_where_nothing_competes() -> None:
    ones, tens = torch.ones(4, 2, dtype=torch.int64), torch.full((4, 2), 10)
    assert link_prediction_metrics(Ranks(ones, ones, tens)).both.adjusted_mean_rank_index == 1
    constant = link_prediction_metrics(Ranks(ones, tens, tens)).both  # all candidates score alike
    assert constant.adjusted_mean_rank_index == 0
    assert constant.mean_rank == 5.5
    alone = link_prediction_metrics(Ranks(ones, ones, ones)).both
    assert (alone.adjusted_mean_rank_index, alone.mrr) == (0, 1)


def test_the_dict_has_the_promised_keys() -> None:
    found = link_prediction_metrics(drawn(5, 9, 0)).to_dict()
    assert list(found) == ["head", "tail", "both"]
    for metrics in found.values():
        assert list(metrics) == [
            "mrr",
            "hits_at_1",
            "hits_at_3",
            "hits_at_10",
            "mean_rank",
            "adjusted_mean_rank_index",
        ]


def test_what_cannot_be_measured_is_refused() -> None:
    none = torch.zeros(0, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="ranks must be of at least one triple, got none"):
        link_prediction_metrics(Ranks(none, none, none))
    assert metrics_by_relation(Ranks(none, none, none), none[:, 0]) == {}
    with pytest.raises(ValueError, match=r"relations must be \[num_triples\] = \[5\], got \[4\]"):
        metrics_by_relation(drawn(5, 9, 0), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TypeError, match="relations must hold integers"):
        metrics_by_relation(drawn(5, 9, 0), torch.zeros(5))
