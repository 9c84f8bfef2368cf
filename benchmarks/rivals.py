"""tercet.follow and the ways in which others compute it, behind one interface.

Each rival keeps its state and weights in the layout that suits it best ([num_entities, batch] where it is dense), and
gets its sparse matrices and orders of edges prebuilt; neither is timed.
"""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any, Protocol

import torch
from torch import Tensor

import tercet
from tercet import EntitySets, KnowledgeGraph
from tercet.ops.reference import traversal as reference


class Engine(Protocol):
    """One way to follow relations."""

    def __init__(self, graph: KnowledgeGraph) -> None: ...
    @classmethod
    def memory(cls, graph: KnowledgeGraph, batch: int, frontier_edges: int) -> int:
        """About how many bytes forward and backward take."""

    def start(self, sets: EntitySets) -> Any:
        """The sets as this engine holds them."""

    def weights(self, relation_weights: Tensor) -> Tensor:
        """[batch, num_relations] as this engine takes it, a leaf."""

    def follow(self, state: Any, weights: Tensor) -> Any:
        """One hop."""

    def values(self, state: Any) -> Tensor:
        """What a loss may sum: every membership that is not 0."""

    def dense(self, state: Any) -> Tensor:
        """[batch, num_entities], for comparison."""

    def weights_grad(self, weights: Tensor) -> Tensor:
        """[batch, num_relations], for comparison."""


class Tercet:
    """Ours."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.graph = graph

    @classmethod
    def memory(cls, graph: KnowledgeGraph, batch: int, frontier_edges: int) -> int:
        return 24 * min(frontier_edges, batch * graph.num_entities)

    def start(self, sets: EntitySets) -> EntitySets:
        return sets

    def weights(self, relation_weights: Tensor) -> Tensor:
        return relation_weights

    def follow(self, state: EntitySets, weights: Tensor) -> EntitySets:
        return tercet.follow(self.graph, state, weights)

    def values(self, state: EntitySets) -> Tensor:
        return state.weights

    def dense(self, state: EntitySets) -> Tensor:
        return state.detach().to_dense(self.graph.num_entities)

    def weights_grad(self, weights: Tensor) -> Tensor:
        assert weights.grad is not None
        return weights.grad


class Reference(Tercet):
    """The sparse frontier expanded, sorted and summed by torch operations (tercet.ops.reference)."""

    @classmethod
    def memory(cls, graph: KnowledgeGraph, batch: int, frontier_edges: int) -> int:
        return 120 * frontier_edges

    def follow(self, state: EntitySets, weights: Tensor) -> EntitySets:
        graph = self.graph
        reached = reference.follow(
            state.weights, state.offsets, state.entities, weights, graph.row_offsets, graph.relations, graph.objects
        )
        return EntitySets.trusted(*reached, graph.num_entities)


class _Dense:
    """What the dense rivals share: memberships [num_entities, batch], weights [num_relations, batch]."""

    floats_of_an_edge = 5  # for each row of the batch, as autograd keeps them

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.num_entities, self.num_relations, self.num_edges = graph.num_entities, graph.num_relations, graph.num_edges
        subjects = torch.repeat_interleave(torch.arange(graph.num_entities), graph.row_offsets.diff())
        by_object = torch.sort(graph.objects, stable=True).indices  # better placed in memory than by subject
        self.subjects = subjects[by_object]
        self.relations, self.objects = graph.relations[by_object].long(), graph.objects[by_object].long()

    @classmethod
    def memory(cls, graph: KnowledgeGraph, batch: int, frontier_edges: int) -> int:
        return 4 * batch * (cls.floats_of_an_edge * graph.num_edges + 4 * graph.num_entities)

    def start(self, sets: EntitySets) -> Tensor:
        dense = torch.zeros(self.num_entities, len(sets))
        return dense.index_put_((sets.entities.long(), sets.rows()), sets.weights)

    def weights(self, relation_weights: Tensor) -> Tensor:
        return relation_weights.T.contiguous()

    def values(self, state: Tensor) -> Tensor:
        return state

    def dense(self, state: Tensor) -> Tensor:
        return state.detach().T

    def weights_grad(self, weights: Tensor) -> Tensor:
        assert weights.grad is not None
        return weights.grad.T

    def messages(self, state: Tensor, weights: Tensor) -> Tensor:
        """What each edge carries, [num_edges, batch]."""
        return state.index_select(0, self.subjects) * weights.index_select(0, self.relations)

    def incidence(self, ids: Tensor, size: int) -> Tensor:
        """CSR [num_edges, size] with a one where an edge has this id."""
        return _csr(torch.arange(self.num_edges + 1), ids, (self.num_edges, size))

    def incoming(self) -> Tensor:
        """CSR [num_entities, num_edges] with a one where an edge enters the entity."""
        offsets = torch.searchsorted(self.objects, torch.arange(self.num_entities + 1))
        return _csr(offsets, torch.arange(self.num_edges), (self.num_entities, self.num_edges))


class Reified(_Dense):
    """The reified knowledge base: three products of torch.sparse CSR and dense matrices (Cohen et al., ICLR 2020)."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        super().__init__(graph)
        self.subject_of = self.incidence(self.subjects, self.num_entities)
        self.relation_of = self.incidence(self.relations, self.num_relations)
        self.enters = self.incoming()

    def follow(self, state: Tensor, weights: Tensor) -> Tensor:
        return self.enters @ ((self.subject_of @ state) * (self.relation_of @ weights))


class IndexAdd(_Dense):
    """Gather along every edge, then index_add to its object."""

    def follow(self, state: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros_like(state).index_add(0, self.objects, self.messages(state, weights))


class DensePull(_Dense):
    """Gather along the edges by object, then sum them with a product of torch.sparse CSR (torch's fastest)."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        super().__init__(graph)
        self.enters = self.incoming()

    def follow(self, state: Tensor, weights: Tensor) -> Tensor:
        return self.enters @ self.messages(state, weights)


class LateMixing(_Dense):
    """One product of torch.sparse CSR for each relation, weighted and summed (the `mix` of the grid protocol)."""

    floats_of_an_edge = 1

    def __init__(self, graph: KnowledgeGraph) -> None:
        super().__init__(graph)
        order = torch.sort(self.relations, stable=True).indices
        starts = torch.searchsorted(self.relations[order], torch.arange(self.num_relations + 1)).tolist()
        self.matrices = []
        for start, stop in itertools.pairwise(starts):
            edges = order[start:stop]
            offsets = torch.searchsorted(self.objects[edges], torch.arange(self.num_entities + 1))
            self.matrices.append(_csr(offsets, self.subjects[edges], (self.num_entities, self.num_entities)))

    def follow(self, state: Tensor, weights: Tensor) -> Tensor:
        mixture = torch.zeros_like(state)
        for relation, matrix in enumerate(self.matrices):
            mixture = mixture + (matrix @ state) * weights[relation]
        return mixture


class Rspmm(_Dense):
    """The generalized rspmm of ULTRA, mul and add; edges sorted beforehand, as its wrapper does at every call."""

    floats_of_an_edge = 1

    def __init__(self, graph: KnowledgeGraph) -> None:
        from ultra.rspmm.rspmm import RSPMMAddMulFunction  # type: ignore[import-not-found]

        super().__init__(graph)
        self.function = RSPMMAddMulFunction
        self.edge_index, self.ones = torch.stack([self.objects, self.subjects]), torch.ones(self.num_edges)

    def follow(self, state: Tensor, weights: Tensor) -> Tensor:
        reached: Tensor = self.function.apply(self.edge_index, self.relations, self.ones, weights, state)
        return reached


def has_rspmm() -> bool:
    """Whether ULTRA's package is found (its checkout on PYTHONPATH)."""
    return importlib.util.find_spec("ultra") is not None and importlib.util.find_spec("ultra.rspmm") is not None


def _csr(offsets: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(offsets, columns, torch.ones(len(columns)), shape)
