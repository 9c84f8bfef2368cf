"""transe_scores and the ways in which others compute a matrix of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import tercet
from tercet.ops.reference import translation as reference


def plain(queries: Tensor, entities: Tensor, norm: str) -> Tensor:
    """As one writes it in torch: products as a GEMM; l2 by |q|^2 - 2 <q, e> + |e|^2; l1 by all differences."""
    if norm == "l1":
        return -(queries[:, None] - entities).abs().sum(-1)
    products = queries @ entities.T
    if norm == "dot":
        return products
    squares = (x.square().sum(1) for x in (queries, entities))
    of_queries, of_entities = squares
    return -(of_queries[:, None] + of_entities - 2 * products).clamp(min=1e-30).sqrt()


@dataclass(frozen=True)
class Scorer:
    """One way to score every entity for every query: score(queries, entities, norm).

    `differences`: it lays out how many floats for each query, entity and dimension, forward and with gradients, with
    the norms `of_differences`.
    """

    score: Callable[[Tensor, Tensor, str], Tensor]
    norms: tuple[str, ...] = ("l1", "l2", "dot")
    differences: tuple[int, int] = (0, 0)
    of_differences: tuple[str, ...] = ("l1", "l2", "dot")

    def memory(self, norm: str, batch: int, num_entities: int, dim: int, with_gradient: bool) -> int:
        """About how many bytes it takes."""
        differences = self.differences[with_gradient] if norm in self.of_differences else 0
        return 4 * batch * num_entities * (8 + differences * dim)


SCORERS = {
    "tercet": Scorer(lambda q, e, norm: tercet.transe_scores(q, e, norm=norm)),
    "tercet.cdist": Scorer(lambda q, e, norm: -tercet.cdist(q, e, p=int(norm[1])), ("l1", "l2")),
    "torch.cdist": Scorer(lambda q, e, norm: -torch.cdist(q, e, p=int(norm[1])), ("l1", "l2")),
    "plain torch": Scorer(plain, differences=(2, 4), of_differences=("l1",)),
    "reference": Scorer(reference.transe_scores, differences=(2, 4)),
}
