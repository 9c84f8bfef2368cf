"""Calibration and thresholds: against definitions, and the promise of a threshold on generated answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import (
    choose_threshold,
    expected_calibration_error,
    fit_temperature,
    precision_lower_bound,
)

seeds = st.integers(0, 2**32 - 1)


def loss(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double() / temperature, labels))


# ---- temperature


@given(seeds, st.integers(2, 6), st.sampled_from([1, 3, 40]), st.sampled_from([torch.float32, torch.float64]))
def test_no_temperature_fits_better(seed: int, num_classes: int, num_items: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(num_items, num_classes)) * 10 ** rng.uniform(-1, 1)).to(dtype)
    labels = torch.from_numpy(rng.integers(0, num_classes, num_items))
    found = fit_temperature(logits, labels)
    assert 0.01 <= found <= 100
    least = loss(logits, labels, found)
    for other in (*np.geomspace(0.01, 100, 101), found * 0.999, found * 1.001):
        if 0.01 <= other <= 100:
            assert least <= loss(logits, labels, float(other)) + 1e-12


@given(seeds, st.floats(0.3, 3))
def test_temperature_follows_the_scale_of_logits_and_not_their_origin(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = torch.from_numpy(rng.normal(size=(50, 3))), torch.from_numpy(rng.integers(0, 3, 50))
    logits[torch.arange(50), labels] += 0.7
    found = fit_temperature(logits, labels)
    if 0.1 < found < 10:
        assert fit_temperature(logits * factor, labels) == pytest.approx(found * factor, rel=1e-6)
        assert fit_temperature(logits + torch.from_numpy(rng.normal(size=(50, 1))), labels) == pytest.approx(found)


def test_one_logit_is_two_classes() -> None:
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=60))
    labels = torch.from_numpy(rng.random(60)) < (2 * logits).sigmoid()
    two = torch.stack([torch.zeros(60, dtype=torch.float64), logits], 1)
    assert fit_temperature(logits, labels) == fit_temperature(two, labels.long())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_of_generated_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(3 * rng.normal(size=(20_000, 4)))
    gumbel = torch.from_numpy(rng.gumbel(size=logits.shape))
    labels = (logits / temperature + gumbel).argmax(1)  # drawn from the softmax
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_temperatures_end_somewhere() -> None:
    logits, labels = torch.tensor([2.0, 1.0, -1.0]), torch.tensor([1, 1, 0])
    assert fit_temperature(logits, labels) == 0.01
    assert fit_temperature(-logits, labels) == 100
    assert fit_temperature(torch.zeros(3), labels) in (0.01, 100)  # all fit alike


# ---- calibration error


@given(seeds, st.sampled_from([1, 2, 50]), st.sampled_from([1, 2, 15]))
def test_calibration_error_is_its_definition(seed: int, num_items: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 31, num_items) / 30 if rng.random() < 0.5 else rng.random(num_items)
    correct = rng.random(num_items) < confidence
    expected = 0.0
    for number in range(bins):
        scaled = np.ceil(confidence * bins).clip(1)
        inside = scaled == number + 1
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    found = expected_calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), bins=bins)
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_lowers_the_error_of_generated_labels() -> None:
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(2 * rng.normal(size=(5_000, 3)))
    labels = (logits / 3 + torch.from_numpy(rng.gumbel(size=logits.shape))).argmax(1)

    def error(temperature: float) -> float:
        confidence, answer = (logits / temperature).softmax(1).max(1)
        return expected_calibration_error(confidence, answer == labels)

    assert error(fit_temperature(logits, labels)) < 0.02 < 0.2 < error(1.0)


# ---- the bound of a share


def at_least(correct: int, total: int, share: float) -> float:
    """P(at least `correct` of `total`), summed exactly."""
    p = Fraction(share)
    terms = (math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(correct, total + 1))
    return float(sum(terms, Fraction(0)))


@given(st.integers(1, 40), st.floats(0, 1), st.sampled_from([1e-6, 0.01, 0.05, 0.5]))
def test_bound_is_where_so_many_are_as_likely_as_alpha(total: int, part: float, alpha: float) -> None:
    correct = round(part * total)
    bound = precision_lower_bound(correct, total, alpha=alpha)
    assert 0 <= bound <= correct / total or alpha == 0.5
    if correct:
        assert at_least(correct, total, bound) == pytest.approx(alpha, rel=1e-9)
    else:
        assert bound == 0
    assert total == 1 or precision_lower_bound(total, total, alpha=alpha) == pytest.approx(alpha ** (1 / total))


@given(seeds)
def test_bound_is_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (extra `pykeen` brings it)")
    rng = np.random.default_rng(seed)
    total = 10 ** rng.uniform(0, 6)
    correct, alpha = total * rng.random() ** 0.3, 10 ** rng.uniform(-5, -0.5)
    if rng.random() < 0.5:
        total = math.ceil(total)
        correct = math.ceil(correct)
    expected = stats.beta.ppf(alpha, correct, total - correct + 1)
    assert precision_lower_bound(correct, total, alpha=alpha) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_bound_of_none() -> None:
    assert precision_lower_bound(0, 0) == precision_lower_bound(0, 100) == 0


# ---- thresholds


def answered(seed: int, num_items: int, levels: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Generated scores (of so many levels, or all different), which answers are correct, the dialogues of items."""
    rng = np.random.default_rng(seed)
    scores = rng.random(num_items) if levels is None else rng.integers(0, levels, num_items) / levels
    correct = rng.random(num_items) < 0.3 + 0.7 * scores
    return torch.from_numpy(scores), torch.from_numpy(correct), torch.from_numpy(rng.integers(0, 30, num_items))


sizes = st.sampled_from([0, 1, 7, 20, 63, 400])
levels = st.sampled_from([None, 1, 3, 10])


@given(seeds, sizes, levels, st.booleans())
def test_what_a_threshold_says_of_itself(seed: int, num_items: int, levels: int | None, grouped: bool) -> None:
    scores, correct, dialogues = answered(seed, num_items, levels)
    of = dialogues if grouped else None
    found = choose_threshold(scores, correct, min_precision=0.7, dialogues=of)
    trusted = scores >= found.threshold
    assert (found.items, found.accepted, found.correct) == (num_items, trusted.sum(), (trusted & correct).sum())
    assert found.coverage == (found.accepted / num_items if num_items else 0)
    if found.accepted:
        assert 0.7 <= found.bound <= found.precision == found.correct / found.accepted
        assert found.threshold == scores[trusted].min()
        assert grouped or found.bound <= precision_lower_bound(found.correct, found.accepted, alpha=0.05)
    else:
        assert (found.threshold, found.bound, found.precision) == (math.inf, 0, None)


@given(seeds, sizes, levels, st.booleans())
def test_more_is_asked_for_and_less_is_given(seed: int, num_items: int, levels: int | None, grouped: bool) -> None:
    scores, correct, dialogues = answered(seed, num_items, levels)
    of = dialogues if grouped else None
    by_precision = [choose_threshold(scores, correct, min_precision=p, dialogues=of) for p in (0.5, 0.7, 0.8, 0.9)]
    by_alpha = [choose_threshold(scores, correct, min_precision=0.7, alpha=a, dialogues=of) for a in (0.2, 0.05, 0.01)]
    for found in (by_precision, by_alpha):
        thresholds = [each.threshold for each in found]
        assert thresholds == sorted(thresholds)


@given(seeds, sizes, levels)
def test_neither_order_nor_scale_of_scores_counts(seed: int, num_items: int, levels: int | None) -> None:
    scores, correct, dialogues = answered(seed, num_items, levels)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(num_items))
    one = choose_threshold(scores, correct, min_precision=0.7, dialogues=dialogues)
    again = choose_threshold(scores[order] * 8 - 4, correct[order], min_precision=0.7, dialogues=dialogues[order] + 5)
    assert again.threshold == one.threshold * 8 - 4
    assert again.bound == pytest.approx(one.bound)
    assert replace(again, threshold=0, bound=0) == replace(one, threshold=0, bound=0)


@given(seeds, st.sampled_from([20, 400]), st.sampled_from([2, 5]))
def test_copies_of_items_in_a_dialogue_prove_nothing(seed: int, num_items: int, copies: int) -> None:
    scores, correct, _ = answered(seed, num_items)
    one = choose_threshold(scores, correct, min_precision=0.7)
    own = choose_threshold(scores, correct, min_precision=0.7, dialogues=torch.arange(num_items))
    each = torch.arange(num_items).repeat_interleave(copies)
    more = choose_threshold(scores[each], correct[each], min_precision=0.7, dialogues=each)
    for found in (own, more):
        assert (found.threshold, found.coverage, found.precision) == (one.threshold, one.coverage, one.precision)
        assert found.bound == pytest.approx(one.bound)


def test_all_or_none_correct() -> None:
    scores, yes = torch.rand(200, generator=torch.Generator().manual_seed(1)), torch.ones(200, dtype=torch.bool)
    found = choose_threshold(scores, yes, min_precision=0.9)
    assert (found.coverage, found.precision, found.threshold) == (1, 1, scores.double().min())
    assert math.isinf(choose_threshold(scores, ~yes, min_precision=0.1).threshold)
    assert math.isinf(choose_threshold(scores[:5], yes[:5], min_precision=0.9).threshold)  # too few to show it
    together = choose_threshold(scores, yes, min_precision=0.9, dialogues=torch.arange(200) // 20)
    assert math.isinf(together.threshold)  # ten dialogues are too few
    assert math.isinf(choose_threshold(scores[:0], yes[:0], min_precision=0.9).threshold)


# By score in 0..1: how often an answer is correct. The precision above a score crosses .75 at the second number.
CURVES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "rising": (lambda score: 0.3 + 0.6 * score, 0.5),
    "never enough": (lambda score: 0.7499 + 0 * score, 1.0),
    "two kinds": (lambda score: np.where(score > 0.6, 0.9, 0.5), 0.36),
}
RUNS = 300


def violations(curve: str, num_items: int, alpha: float, levels: int | None, together: int | None) -> tuple[int, float]:
    """In how many of RUNS sets of generated answers the precision was lower than promised, and the mean coverage."""
    rng = np.random.default_rng(5)
    rate, crossing = CURVES[curve]
    broken, covered = 0, 0.0
    for _ in range(RUNS):
        scores, luck = rng.random((2, num_items))
        dialogues = np.arange(num_items) // (together or 1)
        if together is not None:  # nine of ten items share the luck of their dialogue
            luck = np.where(rng.random(num_items) < 0.9, rng.random(num_items)[dialogues], luck)
        correct = luck < rate(scores)
        shown = scores if levels is None else np.floor(scores * levels) / levels
        found = choose_threshold(
            torch.from_numpy(shown),
            torch.from_numpy(correct),
            min_precision=0.75,
            alpha=alpha,
            dialogues=None if together is None else torch.from_numpy(dialogues),
        )
        broken += found.threshold < crossing - 1e-9
        covered += found.coverage / RUNS
    return broken, covered


def most_by_chance(alpha: float) -> float:
    """Violations that alpha explains, three standard errors above the mean."""
    return RUNS * alpha + 3 * math.sqrt(RUNS * alpha * (1 - alpha))


@pytest.mark.parametrize("levels", [None, 12])
@pytest.mark.parametrize("num_items", [60, 500])
@pytest.mark.parametrize("curve", CURVES)
def test_the_promise_is_kept(curve: str, num_items: int, levels: int | None) -> None:
    broken, covered = violations(curve, num_items, 0.1, levels, None)
    assert broken <= most_by_chance(0.1)
    if curve != "never enough" and num_items == 500:
        assert covered > 0.15  # and not by abstaining


@pytest.mark.parametrize("curve", CURVES)
def test_the_promise_is_kept_where_dialogues_hang_together(curve: str) -> None:
    broken, covered = violations(curve, 600, 0.1, None, together=10)
    assert broken <= most_by_chance(0.1)
    assert covered > 0.1 or curve == "never enough"


# ---- messages

THREE = torch.tensor([0.5, 0.6, 0.7])
YES = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: fit_temperature(torch.zeros(0), torch.zeros(0, dtype=torch.long)), ValueError, "fit_temperature: logits must be [num_items] or [num_items, num_classes] with items and classes, got [0]"),
        (lambda: fit_temperature(torch.zeros(2, 2, 2), torch.zeros(2, dtype=torch.long)), ValueError, "fit_temperature: logits must be [num_items] or [num_items, num_classes] with items and classes, got [2, 2, 2]"),
        (lambda: fit_temperature(THREE * math.nan, YES), ValueError, "fit_temperature: logits must be finite"),
        (lambda: fit_temperature(THREE, YES[:2]), ValueError, "fit_temperature: labels must be [num_items] = [3], got [2]"),
        (lambda: fit_temperature(THREE, torch.tensor([0, 1, 2])), ValueError, "fit_temperature: labels must be in 0..1, got 2"),
        (lambda: fit_temperature(THREE, THREE), TypeError, "fit_temperature: labels must hold integers, got torch.float32"),
        (lambda: fit_temperature([1.0], YES), TypeError, "fit_temperature: logits must be a torch.Tensor, got list"),
        (lambda: expected_calibration_error(THREE * 2, YES), ValueError, "expected_calibration_error: confidence must be of one item or more, in 0..1"),
        (lambda: expected_calibration_error(THREE[:0], YES[:0]), ValueError, "expected_calibration_error: confidence must be of one item or more, in 0..1"),
        (lambda: expected_calibration_error(THREE, torch.tensor([0, 1, 2])), ValueError, "expected_calibration_error: correct must be in 0..1, got 2"),
        (lambda: expected_calibration_error(THREE, YES, bins=0), ValueError, "expected_calibration_error: bins must be a positive integer, got 0"),
        (lambda: precision_lower_bound(3, 2), ValueError, "precision_lower_bound: correct must be in 0..total, got 3 of 2"),
        (lambda: precision_lower_bound(1, 2, alpha=1.0), ValueError, "precision_lower_bound: alpha must be between 0 and 1, got 1.0"),
        (lambda: choose_threshold(THREE, YES, min_precision=1.0), ValueError, "choose_threshold: min_precision must be between 0 and 1, got 1.0"),
        (lambda: choose_threshold(THREE, YES, min_precision=0.5, alpha=0.6), ValueError, "choose_threshold: alpha must be in 0..0.5 without 0, got 0.6"),
        (lambda: choose_threshold(THREE * math.nan, YES, min_precision=0.5), ValueError, "choose_threshold: scores must not be NaN"),
        (lambda: choose_threshold(THREE[None], YES, min_precision=0.5), ValueError, "choose_threshold: scores must be [num_items] = [3], got [1, 3]"),
        (lambda: choose_threshold(THREE, YES[:1], min_precision=0.5), ValueError, "choose_threshold: correct must be [num_items] = [3], got [1]"),
        (lambda: choose_threshold(THREE, YES, min_precision=0.5, dialogues=THREE), TypeError, "choose_threshold: dialogues must hold integers, got torch.float32"),
    ],
)  # fmt: skip
def test_messages(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == f"tercet.{message}"
