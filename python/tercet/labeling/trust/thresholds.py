"""How far a model's labels can be trusted: calibrated confidence, and the threshold above which they are precise.

Everything here is computed in float64, without random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from tercet.ops import _checks

_TEMPERATURES = 0.01, 100.0
_STEPS = 20  # thresholds are tried that accept so many equal parts of the items,
_STARTS = 2, 4, 8, 16  # and these first parts get alpha of their own
_TINY = 1e-300


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T at which logits / T fit the labels of held-out items best.

    It minimises the mean negative log-likelihood, which is convex in 1 / T, by bisection of its derivative. T lies in
    0.01..100: it reaches the lower end where every label has the highest logit, the upper end where logits that are
    closer together always fit better.

    Args:
        logits: floats, [num_items, num_classes]; or [num_items], of the class 1 against the class 0.
        labels: integers or bool [num_items], the true classes.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape, there are no items, a logit is not finite, or a
            label is no class.

    Source:
        Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, 2017.

    Example:
        >>> fit_temperature(torch.tensor([4.0, 4.0, 4.0, -4.0]), torch.tensor([1, 1, 0, 0]))  # three of four are right
        3.64...
    """
    op = "fit_temperature"
    _checks.real(op, "logits", logits)
    if logits.ndim not in (1, 2) or not logits.numel():
        raise ValueError(
            f"tercet.{op}: logits must be [num_items] or [num_items, num_classes] with items and classes,"
            f" got {list(logits.shape)}"
        )
    logits = logits.detach().cpu().double()
    if not logits.isfinite().all():
        raise ValueError(f"tercet.{op}: logits must be finite")
    if logits.ndim == 1:
        logits = torch.stack([torch.zeros_like(logits), logits], 1)
    labels = _flags(op, "labels", labels, "[num_items]", len(logits)).long()
    _checks.in_range(op, "labels", labels, logits.shape[1])
    true = logits.gather(1, labels[:, None]).squeeze(1)

    def slope(temperature: float) -> float:
        """Of the loss, by 1 / T: the mean logit that the model expects, less that of the labels."""
        return float(((logits / temperature).softmax(1).mul(logits).sum(1) - true).mean())

    low, high = _TEMPERATURES
    if slope(low) <= 0:
        return low
    if slope(high) >= 0:
        return high
    while high / low > 1 + 1e-14:  # as T grows, 1 / T falls, and the slope with it
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


def expected_calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = 15) -> float:
    """How far confidence is from the share of correct answers: the mean over items, in bins of equal width.

        sum over bins b of |items in b| / |items| * |mean confidence of b - share correct in b|

    Args:
        confidence: floats in 0..1 [num_items]; a bin holds its upper edge, the first one 0 too.
        correct: bool or 0 and 1 [num_items].
        bins: how many.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range, or there are no items.

    Source:
        Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.

    Example:
        >>> round(expected_calibration_error(torch.tensor([0.9, 0.9, 0.6]), torch.tensor([True, False, True])), 3)
        0.4
    """
    op = "expected_calibration_error"
    confidence = _scores(op, "confidence", confidence)
    if not len(confidence) or confidence.min() < 0 or confidence.max() > 1:
        raise ValueError(f"tercet.{op}: confidence must be of one item or more, in 0..1")
    right = _outcomes(op, correct, len(confidence))
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"tercet.{op}: bins must be a positive integer, got {bins!r}")
    place = (confidence * bins).ceil().long().sub(1).clamp(min=0)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence - right)
    return float(gaps.abs().sum() / len(confidence))


def precision_lower_bound(correct: float, total: float, *, alpha: float = 0.05) -> float:
    """Clopper and Pearson's exact, one-sided lower bound of a share: above the true one with probability alpha at most.

    The p at which `correct` or more of `total` are as likely as alpha: alpha = I_p(correct, total - correct + 1), with
    the regularised incomplete beta function I, which also takes counts that are not whole. 0 for none correct.

    Raises:
        ValueError: not 0 <= correct <= total, or alpha is not between 0 and 1.

    Source:
        Clopper, Pearson: The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, 1934.

    Example:
        >>> round(precision_lower_bound(95, 100), 4)
        0.8977
    """
    op = "precision_lower_bound"
    if not 0 <= correct <= total < math.inf:
        raise ValueError(f"tercet.{op}: correct must be in 0..total, got {correct} of {total}")
    _check_share(op, "alpha", alpha)
    low, high = 0.0, 1.0
    if correct == 0:
        return low
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _tail(correct, total, middle) <= alpha else (low, middle)
    return low


@dataclass(frozen=True)
class Threshold:
    """What `choose_threshold` found: labels whose score is `threshold` or more are trusted, from the others abstain.

    Attributes:
        threshold: infinity where no threshold keeps the promise: abstain always.
        items: how many it was chosen on.
        accepted: how many of them reach it; 0 with infinity.
        correct: how many of those are correct.
        bound: lower bound of the precision at the threshold, at least the wanted precision; 0 with infinity.
        min_precision: the wanted precision.
        alpha: the probability that the precision is below it nevertheless.
    """

    threshold: float
    items: int
    accepted: int
    correct: int
    bound: float
    min_precision: float
    alpha: float

    @property
    def coverage(self) -> float:
        """The share of items that reach the threshold; 0 of no items."""
        return self.accepted / self.items if self.items else 0.0

    @property
    def precision(self) -> float | None:
        """The share of correct among the accepted ones; None where all are abstained from."""
        return self.correct / self.accepted if self.accepted else None


def choose_threshold(
    scores: Tensor,
    correct: Tensor,
    *,
    min_precision: float,
    alpha: float = 0.05,
    dialogues: Tensor | None = None,
) -> Threshold:
    """The lowest threshold of scores at which the precision is at least `min_precision`, but for probability alpha.

    Thresholds are tried that accept 10 %, 15 %, 20 % ... of the items, from the highest down; equal scores stay
    together. One passes where the exact (Clopper-Pearson) lower bound of its precision does, at a part of alpha, since
    many are tried on the same items: a fourth of alpha enters the search at each of 10, 20, 40 and 80 %, and a
    threshold that passes hands all that it had to the next one; what one that fails had is lost (the fallback
    procedure). So the error of the whole search stays at alpha:

        P(precision at the threshold < min_precision) <= alpha

    for items drawn independently, from a population in which a higher score is correct at least as often. Without the
    latter it holds of the mean precision at the scores that were given.

    Items of one dialogue are not independent. With `dialogues`, counts are divided by the design effect: the variance
    of the precision between dialogues over that of as many independent items, never below 1; without any error the
    dialogues count in place of the items. The bound is then approximate, and better with more dialogues.

    Args:
        scores: floats [num_items], without NaN: the confidence in each label. Temperature and model must come from
            other items.
        correct: bool or 0 and 1 [num_items]: whether that label is correct.
        min_precision: wanted, between 0 and 1.
        alpha: between 0 and 0.5.
        dialogues: integers [num_items], the dialogue of each item; None: the items are independent.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range.

    Source:
        Wiens: A Fixed Sequence Bonferroni Procedure for Testing Multiple Endpoints, 2003. Angelopoulos, Bates, Candès,
        Jordan, Lei: Learn then Test, 2021. Korn, Graubard: Confidence Intervals for Proportions with Small Expected
        Number of Positive Counts Estimated from Survey Data, 1998 (design effect).

    Example:
        >>> scores = torch.linspace(1, 0, 1000)
        >>> found = choose_threshold(scores, scores > 0.25, min_precision=0.9)
        >>> round(found.threshold, 2), found.coverage, round(found.precision, 3), round(found.bound, 3)
        (0.2, 0.8, 0.938, 0.922)
        >>> choose_threshold(scores, scores > 1, min_precision=0.9).threshold
        inf
    """
    op = "choose_threshold"
    scores = _scores(op, "scores", scores)
    right = _outcomes(op, correct, len(scores))
    _check_share(op, "min_precision", min_precision)
    if not 0 < alpha <= 0.5:
        raise ValueError(f"tercet.{op}: alpha must be in 0..0.5 without 0, got {alpha}")
    if dialogues is not None:
        dialogues = _flags(op, "dialogues", dialogues, "[num_items]", len(scores)).unique(return_inverse=True)[1]
    order = scores.argsort(descending=True, stable=True)
    passed, level = None, 0.0
    for size, entering in _parts(scores[order]).items():
        level += alpha * entering
        accepted = order[:size]
        hits, total = _effective(right[accepted], None if dialogues is None else dialogues[accepted])
        if not level or _tail(hits, total, min_precision) > level:
            level = 0.0
            continue
        passed = size, level, hits, total
    if passed is None:
        return Threshold(math.inf, len(scores), 0, 0, 0.0, min_precision, alpha)
    size, level, hits, total = passed
    bound = max(min_precision, precision_lower_bound(hits, total, alpha=level))  # no lower but for rounding
    threshold, num_correct = float(scores[order[size - 1]]), int(right[order[:size]].sum())
    return Threshold(threshold, len(scores), size, num_correct, bound, min_precision, alpha)


def _parts(descending: Tensor) -> dict[int, float]:
    """How many items each threshold accepts, ascending, and the part of alpha that enters there."""
    parts: dict[int, float] = {}
    lowest_first = descending.flip(0)
    for step in range(_STARTS[0], _STEPS + 1) if len(descending) else ():
        last = descending[math.ceil(len(descending) * step / _STEPS) - 1]
        size = len(descending) - int(torch.searchsorted(lowest_first, last))
        parts[size] = parts.get(size, 0.0) + (step in _STARTS) / len(_STARTS)
    return parts


def _effective(correct: Tensor, dialogues: Tensor | None) -> tuple[float, float]:
    """Correct ones and all, as many as they are worth if independent."""
    total, hits = len(correct), float(correct.sum())
    if dialogues is None:
        return hits, total
    sizes, precision = dialogues.bincount(), hits / total
    if hits in (0, total):
        effective = float(sizes.count_nonzero())
    else:
        residuals = dialogues.bincount(correct) - precision * sizes
        effective = min(
            total, total * total * precision * (1 - precision) / max(float(residuals.square().sum()), _TINY)
        )
    return precision * effective, effective


def _tail(correct: float, total: float, share: float) -> float:
    """P(at least `correct` of `total`) where each is correct with probability `share`: I_share(correct, rest + 1)."""
    if correct <= 0:
        return 1.0
    if share <= 0 or share >= 1:
        return float(share >= 1)
    a, b = correct, total - correct + 1
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(share) + b * math.log1p(-share)
    )
    if share < (a + 1) / (a + b + 2):
        return min(1.0, front * _fraction(a, b, share) / a)
    return max(0.0, 1 - front * _fraction(b, a, 1 - share) / b)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method, in O(sqrt(a + b))."""
    value = c = 1.0
    d = 0.0
    for step in count(1):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d or _TINY)
        c = 1 + term / c or _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return 1 / value


def _scores(op: str, name: str, value: Tensor) -> Tensor:
    """float64 [num_items], without NaN."""
    value = _checks.real(op, name, value).detach().cpu().double()
    _checks.shape(op, name, value, (value.numel(),), "[num_items]")
    if value.isnan().any():
        raise ValueError(f"tercet.{op}: {name} must not be NaN")
    return value


def _flags(op: str, name: str, value: Tensor, meaning: str, size: int) -> Tensor:
    """Integers or bool, on the CPU."""
    if _checks.tensor(op, name, value).dtype != torch.bool:
        _checks.integers(op, name, value)
    _checks.shape(op, name, value, (size,), meaning)
    return value.detach().cpu()


def _outcomes(op: str, correct: Tensor, size: int) -> Tensor:
    """float64 0 and 1."""
    outcomes = _flags(op, "correct", correct, "[num_items]", size)
    _checks.in_range(op, "correct", outcomes.to(torch.uint8) if outcomes.dtype == torch.bool else outcomes, 2)
    return outcomes.double()


def _check_share(op: str, name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"tercet.{op}: {name} must be between 0 and 1, got {value}")
