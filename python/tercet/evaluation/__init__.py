"""Metrics that more than one system uses."""

from tercet.evaluation.ranking import (
    LinkPredictionMetrics,
    RankingMetrics,
    link_prediction_metrics,
    metrics_by_relation,
)
from tercet.evaluation.sets import f1, f1_by_threshold, hits_at_1

__all__ = [
    "LinkPredictionMetrics",
    "RankingMetrics",
    "f1",
    "f1_by_threshold",
    "hits_at_1",
    "link_prediction_metrics",
    "metrics_by_relation",
]
