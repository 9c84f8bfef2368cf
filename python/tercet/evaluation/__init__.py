"""Metrics that more than one system uses."""

from tercet.evaluation.sets import f1, f1_by_threshold, hits_at_1

__all__ = ["f1", "f1_by_threshold", "hits_at_1"]
