"""Noisy votes: against sums over everything that could be, the Beta posterior of gold, and rates that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import precision_lower_bound
from tercet.labeling.feedback.votes import GRID, Cells, Floats, Votes, fit_votes

seeds = st.integers(0, 2**32 - 1)


def cells_of(groups: np.ndarray, votes: np.ndarray, gold: np.ndarray, weights: np.ndarray | None = None) -> Cells:
    """Things as cells."""
    patterns, ids = np.unique(np.column_stack([votes, gold]), axis=0, return_inverse=True)
    keys, places = np.unique(groups * len(patterns) + ids.ravel(), return_inverse=True)
    summed = np.bincount(places, weights)
    table = patterns.astype(np.int8)
    return Cells(
        keys // len(patterns), keys % len(patterns), summed, table[:, :-1], table[:, -1], int(groups.max()) + 1
    )


def draw(seed: int, sizes: list[int], num_voters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups, votes and gold at random, some of them silent."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return groups, rng.integers(-1, 2, (len(groups), num_voters)), rng.choice([-1, -1, -1, 0, 1], len(groups))


def simulated(
    rng: np.random.Generator, num_groups: int, size: int, rates: Floats, seen: list[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Floats]:
    """Groups, votes, what is wrong, and the rates of groups; `rates` [wrong or right, voter]."""
    of_groups = rng.beta(1, 4, num_groups)
    groups = np.repeat(np.arange(num_groups), size)
    wrong = rng.random(len(groups)) < of_groups[groups]
    said = rng.random((len(groups), len(seen))) < np.where(wrong[:, None], rates[0], rates[1])
    return groups, np.where(rng.random(said.shape) < seen, said, -1), wrong, of_groups


def likelihood(votes: np.ndarray, gold: int, wrong: int, rates: Floats) -> float:
    if gold >= 0 and gold != wrong:
        return 0.0
    heard = [(vote, rate) for vote, rate in zip(votes, rates[0] if wrong else rates[1], strict=True) if vote >= 0]
    return math.prod(rate if vote else 1 - rate for vote, rate in heard)


@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 3))
def test_what_is_wrong_follows_from_all_that_could_be(seed: int, sizes: list[int], num_voters: int) -> None:
    groups, votes, gold = draw(seed, sizes, num_voters)
    rates = np.random.default_rng(seed + 1).uniform(0.05, 0.95, (2, num_voters))
    fitted = fit_votes(
        cells_of(groups, votes, gold), *rates, iterations=0
    )  # rates are their priors, those of groups even
    for group, size in enumerate(sizes):
        things = np.flatnonzero(groups == group)
        joint = np.zeros(len(GRID))
        shares = np.zeros(size)
        for truth in itertools.product((0, 1), repeat=size):
            terms = [
                likelihood(votes[thing], gold[thing], wrong, rates) for thing, wrong in zip(things, truth, strict=True)
            ]
            weight = math.prod(terms) * GRID ** sum(truth) * (1 - GRID) ** (size - sum(truth))
            joint += weight
            shares += np.array(truth) * weight.sum()
        np.testing.assert_allclose(fitted.groups[group], joint / joint.sum(), rtol=1e-5, atol=1e-7)
        got = [fitted.wrong(group, votes[[thing]].astype(np.int8), gold[[thing]])[0] for thing in things]
        np.testing.assert_allclose(got, shares / joint.sum(), rtol=1e-5, atol=1e-7)


@given(seeds, st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 3), st.floats(0.5, 50))
def test_the_density_never_falls(seed: int, sizes: list[int], num_voters: int, strength: float) -> None:
    groups, votes, gold = draw(seed, sizes, num_voters)
    weights = np.random.default_rng(seed).uniform(0.1, 1, len(groups))
    prior = np.full(num_voters, 0.6), np.full(num_voters, 0.3)
    fitted = fit_votes(cells_of(groups, votes, gold, weights), *prior, strength=strength, iterations=30, tolerance=0)
    assert len(fitted.history) <= 31
    assert np.diff(fitted.history).min() >= -1e-5 * len(groups)  # posteriors of groups are kept in float32
    assert np.isfinite(fitted.history).all()


@given(seeds, st.integers(0, 12), st.integers(0, 12))
def test_gold_alone_gives_the_beta_posterior(seed: int, wrong: int, right: int) -> None:
    if not wrong + right:
        return
    size = wrong + right
    gold = np.random.default_rng(seed).permutation([1] * wrong + [0] * right)
    none = np.empty((size, 0), np.int8)
    fitted = fit_votes(cells_of(np.zeros(size, np.int64), none, gold), np.empty(0), np.empty(0), iterations=0)
    assert (fitted.a, fitted.b) == (1.0, 1.0)
    assert fitted.moments[0][0] == pytest.approx((1 + wrong) / (2 + size), abs=1e-3)
    for alpha in (0.05, 0.5, 0.95):
        assert fitted.quantile(alpha)[0] == pytest.approx(
            precision_lower_bound(1 + wrong, 1 + size, alpha=alpha), abs=0.005
        )


RATES = np.array([[0.8, 0.4, 0.3], [0.05, 0.1, 0.02]])


def test_rates_are_found_without_gold() -> None:
    groups, votes, wrong, of_groups = simulated(np.random.default_rng(0), 1500, 30, RATES, [0.2, 0.9, 0.9])
    fitted = fit_votes(cells_of(groups, votes, np.full(len(groups), -1)), np.full(3, 0.5), np.full(3, 0.2))
    np.testing.assert_allclose(np.stack([fitted.sensitivity, fitted.false_alarm]), RATES, atol=0.04)
    assert fitted.prior_moments[0] == pytest.approx(wrong.mean(), abs=0.02)
    assert fitted.prior_moments[1] == pytest.approx(of_groups.var(), rel=0.25)
    below = (fitted.quantile(0.05) > of_groups).mean()
    assert 0.02 < below < 0.08  # the bound is too high as often as it says


def test_gold_anchors_a_single_voter() -> None:
    rng = np.random.default_rng(1)
    groups, votes, wrong, _ = simulated(rng, 2000, 2, RATES[:, :1], [1.0])
    prior = np.array([0.6]), np.array([0.3])
    alone = fit_votes(cells_of(groups, votes, np.full(len(groups), -1)), *prior)
    gold = np.where(rng.random(len(groups)) < 0.1, wrong, -1)
    anchored = fit_votes(cells_of(groups, votes, gold), *prior)

    def off(fitted: Votes) -> float:
        return float(abs(fitted.sensitivity - 0.8)[0] + abs(fitted.false_alarm - 0.05)[0])

    assert off(anchored) < 0.08 < off(alone)


@given(seeds)
def test_order_cells_and_silent_voters_do_not_matter(seed: int) -> None:
    groups, votes, gold = draw(seed, [3, 1, 7, 20], 2)
    prior = np.array([0.7, 0.5]), np.array([0.2, 0.1])
    first = fit_votes(cells_of(groups, votes, gold), *prior, iterations=10, tolerance=0)
    one = Cells(groups, np.arange(len(groups)), np.ones(len(groups)), votes.astype(np.int8), gold.astype(np.int8), 4)
    second = fit_votes(one, *prior, iterations=10, tolerance=0)
    more = np.column_stack([votes, np.full(len(groups), -1)])
    third = fit_votes(
        cells_of(groups, more, gold), *(np.append(each, 0.4) for each in prior), iterations=10, tolerance=0
    )
    for other in (second, third):
        np.testing.assert_allclose(first.groups, other.groups, atol=1e-5)
        np.testing.assert_allclose(first.sensitivity, other.sensitivity[:2], atol=1e-5)
    assert not third.learnt[2]
    assert (third.sensitivity[2], third.false_alarm[2]) == (0.4, 0.4)


@given(seeds, st.integers(2, 5))
def test_a_weight_is_a_number_of_things(seed: int, times: int) -> None:
    groups, votes, gold = draw(seed, [2, 5], 2)
    prior = np.array([0.7, 0.5]), np.array([0.2, 0.1])
    weighted = fit_votes(cells_of(groups, votes, gold, np.full(len(groups), float(times))), *prior)
    repeated = fit_votes(cells_of(*(np.repeat(each, times, axis=0) for each in (groups, votes, gold))), *prior)
    np.testing.assert_allclose(weighted.groups, repeated.groups, atol=1e-5)


def test_a_voter_that_only_says_one_thing_keeps_its_prior() -> None:
    votes = np.array([[1, 1], [1, 0], [1, 1], [-1, 0]])
    fitted = fit_votes(
        cells_of(np.array([0, 0, 1, 1]), votes, np.full(4, -1)), np.array([0.6, 0.6]), np.array([0.2, 0.2])
    )
    assert fitted.learnt.tolist() == [False, True]
    assert (fitted.sensitivity[0], fitted.false_alarm[0]) == (0.6, 0.2)


def test_many_groups_are_done_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = cells_of(*draw(0, [3, 9, 1, 40, 2], 2))
    prior = np.array([0.7, 0.5]), np.array([0.2, 0.1])
    whole = fit_votes(cells, *prior)
    monkeypatch.setattr("tercet.labeling.feedback.votes._CHUNK", 5)
    parts = fit_votes(cells, *prior)
    np.testing.assert_allclose(whole.groups, parts.groups, atol=1e-6)
    assert whole.history[-1] == pytest.approx(parts.history[-1])


@given(seeds, st.integers(1, 60))
def test_groups_that_are_alike_are_done_at_once(seed: int, num_groups: int) -> None:
    groups, votes, gold = draw(seed, [1] * num_groups, 2)
    prior = np.array([0.7, 0.5]), np.array([0.2, 0.1])
    together = fit_votes(cells_of(groups, votes, gold), *prior, iterations=10, tolerance=0)
    halves = Cells(
        np.repeat(groups, 2), np.repeat(np.arange(num_groups), 2), np.full(2 * num_groups, 0.5), votes.astype(np.int8),
        gold.astype(np.int8), num_groups,
    )  # fmt: skip
    apart = fit_votes(halves, *prior, iterations=10, tolerance=0)
    np.testing.assert_allclose(together.groups, apart.groups, atol=1e-5)
    np.testing.assert_allclose(together.history, apart.history, rtol=1e-5, atol=1e-5)
