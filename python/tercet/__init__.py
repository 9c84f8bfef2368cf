"""tercet: knowledge-graph traversal, translation and gating on native kernels."""

from importlib.metadata import version

from tercet import nn
from tercet.graph.entity_sets import EntitySets
from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.ops._scratch import release_scratch
from tercet.ops.annotators import DawidSkene, dawid_skene
from tercet.ops.cdist import cdist
from tercet.ops.entity_sets import count, difference, intersect, top, union
from tercet.ops.filter_index import FilterIndex
from tercet.ops.gating import arbiter_logits, kept_attention
from tercet.ops.ranking import Ranks, transe_rank, transe_top
from tercet.ops.translation import transe_score, transe_scores
from tercet.ops.traversal import follow

__version__ = version("tercet")

__all__ = [
    "DawidSkene",
    "EntitySets",
    "FilterIndex",
    "KnowledgeGraph",
    "Ranks",
    "__version__",
    "arbiter_logits",
    "cdist",
    "count",
    "dawid_skene",
    "difference",
    "follow",
    "intersect",
    "kept_attention",
    "nn",
    "release_scratch",
    "top",
    "transe_rank",
    "transe_score",
    "transe_scores",
    "transe_top",
    "union",
]
