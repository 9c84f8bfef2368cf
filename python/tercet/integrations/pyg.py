"""PyG's TransE on tercet's kernels, with filtered ranks of heads and tails."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.ops.filter_index import FilterIndex
from tercet.ops.ranking import Ranks, transe_rank
from tercet.ops.translation import transe_score

try:
    from torch_geometric.nn import kge
except ImportError as error:
    raise ImportError("tercet.integrations.pyg needs PyG: pip install 'tercet[pyg]'") from error

__all__ = ["TransE"]

_NORMS = {1.0: "l1", 2.0: "l2"}
Triplets = tuple[Tensor, Tensor, Tensor]  # head_index, rel_type, tail_index: [num_triplets] each


class TransE(kge.TransE):  # type: ignore[misc]
    """torch_geometric.nn.kge.TransE, scored and tested by tercet's kernels; p_norm 1 or 2.

    Arguments, weights, loss and loader are PyG's.

    Raises:
        ValueError: p_norm is another.

    Example:
        >>> model = TransE(num_nodes=3, num_relations=1, hidden_channels=8)
        >>> head_index, rel_type, tail_index = torch.tensor([[0, 1], [0, 0], [1, 2]])
        >>> known = model.filter_index((head_index, rel_type, tail_index))
        >>> mean_rank, mrr, hits = model.test(head_index, rel_type, tail_index, known=known)
        >>> model.ranks(head_index, rel_type, tail_index, known=known).num_candidates
        tensor([[3, 3],
                [3, 3]])
    """

    def __init__(
        self,
        num_nodes: int,
        num_relations: int,
        hidden_channels: int,
        margin: float = 1.0,
        p_norm: float = 1.0,
        sparse: bool = False,
    ) -> None:
        if p_norm not in _NORMS:
            raise ValueError(f"tercet.TransE: p_norm must be 1 or 2, got {p_norm!r}")
        super().__init__(num_nodes, num_relations, hidden_channels, margin, p_norm, sparse)

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """Scores of triplets: three times [num_triplets] -> [num_triplets]."""
        heads, tails = (F.normalize(self.node_emb(ids), p=self.p_norm, dim=-1) for ids in (head_index, tail_index))
        return transe_score(heads, self.rel_emb(rel_type), tails, norm=_NORMS[self.p_norm])

    def filter_index(self, *triplets: Triplets) -> FilterIndex:
        """An index of known triplets, for `test` and `ranks`: made once, used often.

        Args:
            triplets: (head_index, rel_type, tail_index) of each split; of PyG's data
                (data.edge_index[0], data.edge_type, data.edge_index[1]).
        """
        known = torch.cat([torch.stack(split, dim=1) for split in triplets])
        return FilterIndex(known, num_entities=self.num_nodes, num_relations=self.num_relations)

    @torch.no_grad()
    def ranks(
        self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor, known: FilterIndex | Tensor | None = None
    ) -> Ranks:
        """Ranks of the true heads and tails among all nodes, counted from 1.

        Args:
            head_index, rel_type, tail_index: [num_triplets].
            known: what `filter_index` gives, or triples [num_triples, 3] (head, relation, tail), which are no rivals;
                None: raw ranks.

        Raises:
            TypeError, ValueError: as `tercet.transe_rank`.
        """
        nodes = F.normalize(self.node_emb.weight, p=self.p_norm, dim=-1)
        triples = torch.stack([head_index, rel_type, tail_index], dim=1)
        return transe_rank(nodes, self.rel_emb.weight, triples, known=known, norm=_NORMS[self.p_norm])

    @torch.no_grad()
    def test(
        self,
        head_index: Tensor,
        rel_type: Tensor,
        tail_index: Tensor,
        batch_size: int | None = None,
        k: int = 10,
        log: bool = True,
        *,
        known: FilterIndex | Tensor | None = None,
        sides: Sequence[str] = ("tail",),
    ) -> tuple[float, float, float]:
        """Mean rank (counted from 0, as PyG does), MRR and Hits@k.

        Without `known` the figures are those of PyG's test, where scores differ; equal scores count with their mean
        rank, which PyG leaves to the order of a sort.

        Args:
            head_index, rel_type, tail_index: [num_triplets].
            batch_size, log: as PyG takes them; they do nothing.
            k: of Hits@k.
            known: as `ranks` takes it: filtered figures.
            sides: what is predicted: ("tail",) as PyG does, or ("head", "tail") as link prediction is reported.

        Raises:
            TypeError, ValueError: as `tercet.transe_rank`, or there are no triplets, or a side is unknown.
        """
        if not len(head_index):
            raise ValueError("tercet.TransE.test: head_index must hold triplets, got none")
        if not sides or not set(sides) <= {"head", "tail"}:
            raise ValueError(f"tercet.TransE.test: sides must be of 'head' and 'tail', got {sides!r}")
        ranks = self.ranks(head_index, rel_type, tail_index, known).realistic
        ranks = ranks[:, [("head", "tail").index(side) for side in sides]]
        return float(ranks.mean()) - 1, float(ranks.reciprocal().mean()), float((ranks <= k).double().mean())
