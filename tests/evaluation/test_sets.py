"""Set metrics against brute force, and the laws they keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet import EntitySets
from tercet.evaluation import f1, f1_by_threshold, hits_at_1

_SIZE = 12
rows = st.lists(
    st.dictionaries(st.integers(0, _SIZE - 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=8), max_size=6
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[dict[int, float]], list[set[int]], list[int]]:
    scores = draw(rows)
    answers = [draw(st.sets(st.integers(0, _SIZE - 1), max_size=5)) for _ in scores]
    return scores, answers, [draw(st.integers(0, 2)) for _ in scores]


def sets_of(scores: list[dict[int, float]], answers: list[set[int]]) -> tuple[EntitySets, EntitySets]:
    return EntitySets.from_lists(scores), EntitySets.from_lists(answers)


def brute_hits(scores: dict[int, float], answers: set[int]) -> float:
    best = max(scores.values(), default=0.0)
    tied = [entity for entity, weight in scores.items() if weight == best and best > 0]
    return sum(entity in answers for entity in tied) / len(tied) if tied else 0.0


def brute_f1(predicted: set[int], answers: set[int], absent: int) -> float:
    right = len(predicted & answers)
    precision = right / len(predicted) if predicted else 0.0
    recall = right / (len(answers) + absent) if answers or absent else 0.0
    if not predicted and not answers and not absent:
        return 1.0
    return 2 * precision * recall / (precision + recall) if right else 0.0


@given(batches())
def test_hits_at_1_is_the_expectation_over_ties(
    batch: tuple[list[dict[int, float]], list[set[int]], list[int]],
) -> None:
    scores, answers, _ = batch
    found = hits_at_1(*sets_of(scores, answers))
    assert found.tolist() == pytest.approx([brute_hits(*pair) for pair in zip(scores, answers, strict=True)])


@given(batches(), st.integers(0, 2**32 - 1))
def test_hits_at_1_does_not_depend_on_ids(
    batch: tuple[list[dict[int, float]], list[set[int]], list[int]], seed: int
) -> None:
    scores, answers, _ = batch
    renamed = np.random.default_rng(seed).permutation(_SIZE).tolist()
    other = [{renamed[e]: w for e, w in row.items()} for row in scores], [{renamed[e] for e in row} for row in answers]
    assert hits_at_1(*sets_of(*other)).tolist() == hits_at_1(*sets_of(scores, answers)).tolist()


def test_hits_at_1_ties_what_only_rounding_parts() -> None:
    best = 0.1 + 0.2 + 0.3
    scores = EntitySets.from_lists([{0: best, 1: 0.3 + 0.2 + 0.1, 2: best * (1 - 1e-3)}], dtype=torch.float64)
    answers = EntitySets.from_lists([{1}])
    assert hits_at_1(scores, answers).tolist() == [0.5]
    assert hits_at_1(scores, answers, tolerance=0.01).tolist() == pytest.approx([1 / 3])
    assert hits_at_1(scores, answers, tolerance=0.0).tolist() == [0.0]


@given(batches())
def test_f1_matches_brute_force(batch: tuple[list[dict[int, float]], list[set[int]], list[int]]) -> None:
    scores, answers, absent = batch
    wanted = [brute_f1(set(s), a, n) for s, a, n in zip(scores, answers, absent, strict=True)]
    found = f1(*sets_of(scores, answers), absent=torch.tensor(absent, dtype=torch.int64))
    assert found.tolist() == pytest.approx(wanted)


@given(batches())
def test_f1_by_threshold_is_f1_of_what_passes(
    batch: tuple[list[dict[int, float]], list[set[int]], list[int]],
) -> None:
    scores, answers, absent = batch
    missing = torch.tensor(absent, dtype=torch.int64)
    thresholds = torch.tensor([0.1, 0.25, 0.4, 1.0])
    found = f1_by_threshold(*sets_of(scores, answers), thresholds, absent=missing)
    for column, threshold in enumerate(thresholds.tolist()):
        passing = EntitySets.from_lists([{e for e, w in row.items() if w >= threshold} for row in scores])
        wanted = f1(passing, EntitySets.from_lists(answers), absent=missing)
        assert found[:, column].tolist() == pytest.approx(wanted.tolist())


def test_errors_name_the_argument() -> None:
    one, two = EntitySets.from_lists([{1}]), EntitySets.from_lists([{1}, {2}])
    with pytest.raises(ValueError, match=r"tercet.hits_at_1: scores and answers must have one batch size, got 1 and 2"):
        hits_at_1(one, two)
    with pytest.raises(ValueError, match=r"tercet.f1: predicted and answers must have one batch size, got 2 and 1"):
        f1(two, one)
    with pytest.raises(ValueError, match=r"tercet.hits_at_1: tolerance must be in 0..1, got 2"):
        hits_at_1(one, one, tolerance=2)
    with pytest.raises(ValueError, match=r"tercet.f1_by_threshold: thresholds must ascend"):
        f1_by_threshold(one, one, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"tercet.f1: absent must be \[batch\] = \[1\], got \[2\]"):
        f1(one, one, absent=torch.tensor([1, 2]))
