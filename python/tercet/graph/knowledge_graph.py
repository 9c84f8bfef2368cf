"""KnowledgeGraph: triples as CSR by subject."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class KnowledgeGraph:
    """Placeholder built with numpy until the native builder lands; the tensor fields are final."""

    def __init__(self, row_offsets: Tensor, relations: Tensor, objects: Tensor, num_entities: int, num_relations: int):
        self.row_offsets, self.relations, self.objects = row_offsets, relations, objects
        self.num_entities, self.num_relations = num_entities, num_relations
        self._incoming: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def max_degree(self) -> int:
        return int(self.row_offsets.diff().max()) if self.num_entities else 0

    @property
    def num_edges(self) -> int:
        return len(self.objects)

    @classmethod
    def from_triples(
        cls,
        heads: Any,
        relations: Any,
        tails: Any,
        *,
        num_entities: int,
        num_relations: int,
        entity_names: Any = None,
        relation_names: Any = None,
    ) -> KnowledgeGraph:
        rows = np.unique(np.stack([np.asarray(heads), np.asarray(relations), np.asarray(tails)], 1), axis=0)
        counts = np.bincount(rows[:, 0], minlength=num_entities)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return cls(
            torch.from_numpy(offsets),
            torch.from_numpy(rows[:, 1].astype(np.int32)),
            torch.from_numpy(rows[:, 2].astype(np.int32)),
            num_entities,
            num_relations,
        )

    def with_inverses(self) -> KnowledgeGraph:
        heads = np.repeat(np.arange(self.num_entities), self.row_offsets.diff().numpy())
        r, t = self.relations.numpy(), self.objects.numpy()
        return KnowledgeGraph.from_triples(
            np.concatenate([heads, t]),
            np.concatenate([r, r + self.num_relations]),
            np.concatenate([t, heads]),
            num_entities=self.num_entities,
            num_relations=2 * self.num_relations,
        )

    def incoming(self, *, edges: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The edges by object, for the dense pull.

        Returns (offsets int64 [N+1], subjects int32 [E], relations int32 [E], edges int64 [E]).

        Within an object they keep the order of the graph's edges, so sums round as the sparse push rounds them.
        """
        if self._incoming is None:
            order = torch.argsort(self.objects, stable=True)
            offsets = torch.zeros(self.num_entities + 1, dtype=torch.int64)
            offsets[1:] = torch.bincount(self.objects.long(), minlength=self.num_entities).cumsum(0)
            subjects = torch.repeat_interleave(torch.arange(self.num_entities), self.row_offsets.diff()).int()
            self._incoming = offsets, subjects[order], self.relations[order], order
        return self._incoming
