"""Translation scores in plain torch, higher is better.

l1, l2: minus the distance of head + relation to tail. dot: their inner product.

Bordes, Usunier, Garcia-Duran, Weston, Yakhnenko: Translating Embeddings for Modeling Multi-relational Data, NIPS 2013.
dot: Fisher, Mittal, Palfrey, Christodoulopoulos: Debiasing knowledge graph embeddings, EMNLP 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

NORMS = ("l1", "l2", "dot")


def compare(queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """Scores of vectors that broadcast: [..., dim] -> [...]."""
    if norm == "dot":
        return (queries * entities).sum(-1)
    distances: Tensor = (queries - entities).norm(p=1 if norm == "l1" else 2, dim=-1)
    return -distances


def transe_score(heads: Tensor, relations: Tensor, tails: Tensor, norm: str) -> Tensor:
    """Scores of triples: three times [batch, dim] -> [batch]."""
    return compare(heads + relations, tails, norm)


def transe_scores(queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """Scores of every entity for every query: [batch, dim], [num_entities, dim] -> [batch, num_entities]."""
    return compare(queries[:, None], entities[None], norm)


def direction(difference: Tensor, norm: str) -> Tensor:
    """The gradient of the score -|difference| to difference [..., dim]; 0 where it has none."""
    if norm == "l1":
        return -difference.sign()
    length = difference.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, -difference / length, 0)


def transe_score_backward(
    grad: Tensor, heads: Tensor, relations: Tensor, tails: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    """Gradients to the query head + relation and to tails [batch, dim], from grad [batch]."""
    if norm == "dot":
        return grad[:, None] * tails, grad[:, None] * (heads + relations)
    weighted = grad[:, None] * direction(heads + relations - tails, norm)
    return weighted, -weighted


def transe_scores_backward(grad: Tensor, queries: Tensor, entities: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Gradients to queries and entities, from grad [batch, num_entities]."""
    if norm == "dot":
        return grad @ entities, grad.T @ queries
    weighted = grad[..., None] * direction(queries[:, None] - entities[None], norm)
    return weighted.sum(1), -weighted.sum(0)
