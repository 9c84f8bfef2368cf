"""Metrics of link prediction from ranks: MRR, Hits@k, mean rank and its chance-adjusted index."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from tercet.ops import _checks
from tercet.ops.ranking import Ranks

_HITS = (1, 3, 10)


@dataclass(frozen=True)
class RankingMetrics:
    """Means over `count` realistic ranks.

    Attributes:
        mrr: of 1 / rank.
        hits_at_1, hits_at_3, hits_at_10: of rank <= k, in 0..1.
        mean_rank: of the rank.
        adjusted_mean_rank_index: 1 - (mean rank - 1) / (expected mean rank - 1), where a random order is expected to
            rank the true one of n candidates at (n + 1) / 2: 1 is perfect, 0 is chance. Where every true entity is the
            only candidate there is nothing to order, and it is 0.
        count: how many ranks.
    """

    mrr: float
    hits_at_1: float
    hits_at_3: float
    hits_at_10: float
    mean_rank: float
    adjusted_mean_rank_index: float
    count: int


@dataclass(frozen=True)
class LinkPredictionMetrics:
    """Metrics of the ranks of true heads, of true tails, and of both together."""

    head: RankingMetrics
    tail: RankingMetrics
    both: RankingMetrics

    def to_dict(self) -> dict[str, dict[str, float]]:
        """`head`, `tail` and `both`, each as a dict of its metrics; `count` is left out."""
        sides = asdict(self)
        for metrics in sides.values():
            del metrics["count"]
        return sides


def link_prediction_metrics(ranks: Ranks) -> LinkPredictionMetrics:
    """Metrics of all ranks.

    Args:
        ranks: from `transe_rank`, [num_triples, 2]; realistic ranks are used (the mean of the optimistic and the
            pessimistic one), so a model that scores everything alike is ranked at chance.

    Raises:
        ValueError: there are no triples.

    Source:
        adjusted mean rank index: Berrendorf et al.: On the Ambiguity of Rank-Based Evaluation of Entity Alignment or
        Link Prediction Methods, arXiv 2002.06914, 2020.

    Example:
        >>> best, worst, of = torch.tensor([[1, 2]]), torch.tensor([[1, 4]]), torch.tensor([[5, 5]])
        >>> metrics = link_prediction_metrics(Ranks(best, worst, of))
        >>> metrics.tail.mean_rank, metrics.both.mrr, metrics.both.adjusted_mean_rank_index
        (3.0, 0.6666666666666666, 0.5)
    """
    if not len(ranks.optimistic):
        raise ValueError("tercet.link_prediction_metrics: ranks must be of at least one triple, got none")
    return _metrics_of_groups(ranks, np.zeros(len(ranks.optimistic), dtype=np.int64), 1)[0]


def metrics_by_relation(ranks: Ranks, relations: Tensor) -> dict[int, LinkPredictionMetrics]:
    """Metrics of the triples of each relation that has any, ascending.

    Args:
        ranks: from `transe_rank`, [num_triples, 2].
        relations: integers [num_triples], of the ranked triples.

    Raises:
        TypeError, ValueError: relations are not integers of that shape.

    Example:
        >>> ones = torch.ones(3, 2, dtype=torch.int64)
        >>> list(metrics_by_relation(Ranks(ones, ones, ones), torch.tensor([7, 2, 7])))
        [2, 7]
    """
    op = "metrics_by_relation"
    _checks.integers(op, "relations", relations)
    _checks.shape(op, "relations", relations, (len(ranks.optimistic),), "[num_triples]")
    distinct, groups = relations.unique(return_inverse=True)
    metrics = _metrics_of_groups(ranks, groups.cpu().numpy(), len(distinct))
    return dict(zip(distinct.tolist(), metrics, strict=True))


def _metrics_of_groups(ranks: Ranks, groups: np.ndarray, num_groups: int) -> list[LinkPredictionMetrics]:
    """Metrics of the triples of each group; every group has some. Sums run in the order of the triples."""
    realistic, candidates = ranks.realistic.cpu().numpy(), ranks.num_candidates.cpu().numpy()
    columns = [
        _means(realistic[:, side], candidates[:, side], groups, num_groups) for side in (slice(0, 1), slice(1, 2))
    ]
    columns.append(_means(realistic, candidates, groups, num_groups))
    return [LinkPredictionMetrics(*sides) for sides in zip(*columns, strict=True)]


def _means(realistic: np.ndarray, candidates: np.ndarray, groups: np.ndarray, num_groups: int) -> list[RankingMetrics]:
    """Metrics of each group over columns of ranks [num_triples, sides]."""
    group = np.repeat(groups, realistic.shape[1])
    rank = realistic.ravel()
    count = np.bincount(group, minlength=num_groups)

    def mean(values: np.ndarray) -> np.ndarray:
        means: np.ndarray = np.bincount(group, weights=values, minlength=num_groups) / count
        return means

    mean_rank, beyond = mean(rank), mean((candidates.ravel() - 1) / 2)
    adjusted = np.where(beyond > 0, 1 - (mean_rank - 1) / np.where(beyond > 0, beyond, 1), 0.0)
    hits = [mean(rank <= k) for k in _HITS]
    rows = zip(*(values.tolist() for values in (mean(1 / rank), *hits, mean_rank, adjusted, count)), strict=True)
    return [RankingMetrics(*row) for row in rows]
