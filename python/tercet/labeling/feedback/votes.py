"""Noisy votes on whether things went wrong, pooled by group: a latent-class model, fitted without gold or with some.

Things (turns) belong to groups (requests) and are wrong or not; voters (signals) say so, err each at its own rate, and
may be silent:

    rate[g] ~ Beta(a, b), on a grid                        how often things of group g are wrong
    wrong[i] ~ Bernoulli(rate[g(i)])
    vote[i, s] ~ Bernoulli(sensitivity[s]) if wrong[i], else Bernoulli(false alarm[s]); a silent voter says nothing
    gold: wrong[i] is known

Votes are independent, given what is wrong; silence is independent of it. A thing of weight w counts as w things. a, b
and the two rates of each voter are those of highest posterior density, by expectation-maximisation, in which each step
sums over what is wrong and over the grid, exactly; the density never falls. Things of the same group and the same votes
are one cell, and groups of one cell that are alike are one group, so that a step costs num_cells x _GRID.

What the votes can tell: three voters that speak of the same things, none of them by chance, fix all rates but for
swapping wrong and right (Kruskal 1977; Allman, Matias, Rhodes 2009). With two voters, or one, groups help, since the
spread of their rates shows up in how votes agree within a group; but then, and as long as there are few votes, rates
stand on their priors, and gold is what anchors them. Priors also say which side is wrong. A voter that has only ever
said one thing keeps its prior rates: what it says where it could say otherwise is not known.

Source: Dawid, Skene: Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979, with two
classes, missing answers, priors, and a prior of the classes for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_GRID = 50  # rates
_CHUNK = 200_000  # cells of which the grid is held at a time
_UNIFORM_GROUPS = 2.0  # groups of every rate that are added, so that a and b stay finite
GRID: Floats = (np.arange(_GRID) + 0.5) / _GRID
_STATISTICS = np.stack([np.log(GRID), np.log1p(-GRID)])


@dataclass(frozen=True, eq=False)
class Cells:
    """Votes, summed up.

    Attributes:
        groups, patterns: [num_cells], ids, ascending by group; weights: [num_cells], how many things.
        votes: int8 [num_patterns, num_voters]: 1 wrong, 0 right, -1 silent.
        gold: int8 [num_patterns]: 1 wrong, 0 right, -1 not known.
        num_groups: each of them has a cell.
    """

    groups: Ids
    patterns: Ids
    weights: Floats
    votes: npt.NDArray[np.int8]
    gold: npt.NDArray[np.int8]
    num_groups: int


@dataclass(frozen=True, eq=False)
class Votes:
    """The fitted model.

    Attributes:
        sensitivity, false_alarm: [num_voters], P(vote: wrong | wrong), P(vote: wrong | right).
        learnt: bool [num_voters]: whether it said both and so has rates of its own.
        a, b: of the groups' rates.
        groups: float32 [num_groups, _GRID], the posterior of each group's rate.
        history: log density at each step, up to a constant.
    """

    sensitivity: Floats
    false_alarm: Floats
    learnt: npt.NDArray[np.bool_]
    a: float
    b: float
    groups: npt.NDArray[np.float32]
    history: list[float]

    @cached_property
    def prior(self) -> Floats:
        """Of the rate of a group without votes, [_GRID]."""
        return np.asarray(np.exp(_log_prior(np.array([self.a, self.b]))))

    @cached_property
    def prior_moments(self) -> tuple[float, float]:
        """Mean and variance of the prior."""
        mean = float(self.prior @ GRID)
        return mean, float(self.prior @ np.square(GRID - mean))

    @cached_property
    def moments(self) -> tuple[Floats, Floats]:
        """Mean and variance of each group's rate, [num_groups]."""
        mean = self.groups @ GRID
        return mean, np.maximum(self.groups @ np.square(GRID) - np.square(mean), 0)

    def wrong(self, group: int | None, votes: npt.NDArray[np.int8], gold: npt.NDArray[np.int8]) -> Floats:
        """P(wrong) of things of one group with these votes, which the fit counted in, [num_patterns].

        Args:
            group: None: of no group of the fit; then it has its own votes alone.
            votes: [num_patterns, num_voters]. gold: [num_patterns]; as in `Cells`.
        """
        likelihood = _likelihood(self.sensitivity, self.false_alarm, votes, gold)
        if group is None:
            mean, _ = self.prior_moments
            return np.asarray(mean * likelihood[0] / (mean * likelihood[0] + (1 - mean) * likelihood[1]))
        return np.asarray(_wrong(likelihood) @ self.groups[group])

    def quantile(self, level: float) -> Floats:
        """What each group's rate is below with probability `level`, [num_groups]; linear within a step of the grid."""
        below = np.cumsum(self.groups, 1, dtype=np.float64)
        below /= below[:, -1:]
        step = np.minimum((below < level).sum(1), _GRID - 1)
        rows = np.arange(len(step))
        before = np.where(step > 0, below[rows, step - 1], 0.0)
        return np.asarray((step + (level - before) / np.maximum(below[rows, step] - before, 1e-300)) / _GRID)


def fit_votes(
    cells: Cells,
    sensitivity: Floats,
    false_alarm: Floats,
    *,
    strength: float = 20.0,
    iterations: int = 200,
    tolerance: float = 1e-7,
) -> Votes:
    """Fit the model of this module.

    Args:
        cells: the votes.
        sensitivity, false_alarm: [num_voters], in 0..1 without its ends: the prior means, where it starts.
        strength: how many things a prior counts for.
        iterations: the most steps.
        tolerance: stop when the log density of a thing rises by less.
    """
    said = [[bool(((cells.votes == value)[:, s])[cells.patterns].any()) for value in (0, 1)]
            for s in range(cells.votes.shape[1])]  # fmt: skip
    learnt = np.array([all(both) for both in said], bool)
    means = np.stack([sensitivity, false_alarm]).astype(np.float64)
    pseudo = np.stack([means, 1 - means]) * strength  # [said wrong or right, true, voter]
    rates, beta = means.copy(), np.array([1.0, 1.0])
    cells, counts, becomes = _distinct(cells)
    starts = np.searchsorted(cells.groups, np.arange(cells.num_groups))
    things = float((cells.weights * counts[cells.groups]).sum())
    history: list[float] = []
    while True:
        likelihood = _likelihood(rates[0], rates[1], cells.votes, cells.gold)
        density, groups, wrong = _expect(cells, starts, counts, likelihood, _log_prior(beta))
        density += float((pseudo * np.log(np.stack([rates, 1 - rates]))).sum())
        density += float(_log_prior(beta).mean()) * _UNIFORM_GROUPS
        rise = density - history[-1] if history else np.inf
        history.append(density)
        if len(history) > iterations or rise < tolerance * max(things, 1.0):
            return Votes(rates[0], rates[1], learnt, float(beta[0]), float(beta[1]), groups[becomes], history)
        rates = np.where(learnt, _rates(cells, counts, wrong, pseudo), means)
        beta = _fit_beta(counts @ groups + _UNIFORM_GROUPS / _GRID, beta)


def _likelihood(
    sensitivity: Floats, false_alarm: Floats, votes: npt.NDArray[np.int8], gold: npt.NDArray[np.int8]
) -> Floats:
    made = np.ones((2, len(votes)))
    for true, rate in enumerate((sensitivity, false_alarm)):
        said = np.where(votes == 1, rate, 1 - rate)
        made[true] = np.where(votes >= 0, said, 1.0).prod(1)
    made[0, gold == 0] = made[1, gold == 1] = 0.0
    return made


def _wrong(likelihood: Floats) -> Floats:
    """P(wrong | rate, votes), [num_patterns, _GRID]."""
    wrong, right = likelihood[0][:, None] * GRID, likelihood[1][:, None] * (1 - GRID)
    return np.asarray(wrong / (wrong + right))


def _distinct(cells: Cells) -> tuple[Cells, Floats, Ids]:
    """Groups of one cell that are alike as one: the cells, how many groups each stands for, and what each became."""
    alone = np.bincount(cells.groups)[cells.groups] == 1
    kinds = cells.groups + len(cells.groups)
    pairs = np.stack([cells.patterns[alone].astype(np.float64), cells.weights[alone]])
    kinds[alone] = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
    starts = np.searchsorted(cells.groups, np.arange(cells.num_groups))
    _, first, becomes, counts = np.unique(kinds[starts], return_index=True, return_inverse=True, return_counts=True)
    kept = np.isin(cells.groups, first)
    groups = becomes[cells.groups[kept]]
    order = groups.argsort(kind="stable")
    made = Cells(
        groups[order], cells.patterns[kept][order], cells.weights[kept][order], cells.votes, cells.gold, len(first)
    )
    return made, counts.astype(np.float64), becomes


def _expect(
    cells: Cells, starts: Ids, counts: Floats, likelihood: Floats, log_prior: Floats
) -> tuple[float, npt.NDArray[np.float32], Floats]:
    """Log likelihood; the posterior of each group's rate; P(wrong) of each cell."""
    fits = np.log(likelihood[0][:, None] * GRID + likelihood[1][:, None] * (1 - GRID))
    wrong_if = _wrong(likelihood)
    groups = np.empty((cells.num_groups, _GRID), np.float32)
    wrong = np.empty(len(cells.groups))
    density, first = 0.0, 0
    while first < cells.num_groups:
        last = max(int(np.searchsorted(starts, starts[first] + _CHUNK)), first + 1)
        end = int(starts[last]) if last < cells.num_groups else len(cells.groups)
        part = slice(int(starts[first]), end)
        terms = cells.weights[part, None] * fits[cells.patterns[part]]
        logs = np.add.reduceat(terms, starts[first:last] - starts[first], axis=0) + log_prior
        highest = logs.max(1, keepdims=True)
        posterior = np.exp(logs - highest)
        total = posterior.sum(1, keepdims=True)
        density += float(counts[first:last] @ (np.log(total) + highest)[:, 0])
        posterior /= total
        groups[first:last] = posterior
        wrong[part] = (posterior[cells.groups[part] - first] * wrong_if[cells.patterns[part]]).sum(1)
        first = last
    return density, groups, wrong


def _rates(cells: Cells, groups: Floats, wrong: Floats, pseudo: Floats) -> Floats:
    """[true, voter], from what each pattern counts for; each group stands for so many."""
    size, weights = len(cells.votes), cells.weights * groups[cells.groups]
    mass = np.stack([
        np.bincount(cells.patterns, weights * share, minlength=size) for share in (wrong, 1 - wrong)
    ])  # fmt: skip
    counts = np.stack([mass @ (cells.votes == 1), mass @ (cells.votes == 0)]) + pseudo
    return np.asarray(counts[0] / counts.sum(0))


def _log_prior(beta: Floats) -> Floats:
    logs = (beta - 1) @ _STATISTICS
    highest = logs.max()
    return np.asarray(logs - highest - np.log(np.exp(logs - highest).sum()))


def _fit_beta(counts: Floats, beta: Floats) -> Floats:
    """a and b of the highest likelihood of counts on the grid: Newton's method, which never steps below."""

    def value(at: Floats) -> float:
        return float(counts @ _log_prior(at))

    best = value(beta)
    for _ in range(20):
        shares = np.exp(_log_prior(beta))
        mean = _STATISTICS @ shares
        slope = _STATISTICS @ counts - counts.sum() * mean
        centred = _STATISTICS - mean[:, None]
        step = np.linalg.solve(counts.sum() * (centred * shares) @ centred.T + 1e-9 * np.eye(2), slope)
        size, gain = 1.0, 0.0
        while size > 1e-6 and (gain := value(beta + size * step) - best) < 0:
            size /= 2
        if gain <= 1e-12 * abs(best):
            break
        beta, best = beta + size * step, best + gain
    return beta


def entropy(share: npt.ArrayLike) -> Floats:
    """Of yes, with this probability, and no, in bits."""
    yes = np.clip(np.asarray(share, np.float64), 1e-300, 1)
    no = np.clip(1 - yes, 1e-300, 1)
    return np.asarray(-(yes * np.log2(yes) + no * np.log2(no)))
