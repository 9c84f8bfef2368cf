"""Explanations: for an answer, the chain of edges that carries the most weight to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.graph.knowledge_graph import KnowledgeGraph


@dataclass(frozen=True)
class Step:
    """One edge of a path, as it was walked.

    Attributes:
        subject, relation, object: names; the walk goes from subject to object.
        inverse: the graph's triple is (object, relation, subject), walked against its direction.
        weight: the relation weight that the model gave this hop.
    """

    subject: str
    relation: str
    object: str
    inverse: bool
    weight: float

    def __str__(self) -> str:
        arrow = f"←{self.relation}—" if self.inverse else f"—{self.relation}→"
        return f"{self.subject} {arrow} {self.object}"


@dataclass(frozen=True)
class Path:
    """A chain of edges from a question's entity to an answer.

    Attributes:
        steps: the edges in order.
        weight: the product of their relation weights and the weight of this number of hops.
    """

    steps: tuple[Step, ...]
    weight: float

    def __str__(self) -> str:
        words = self.steps[0].subject
        for step in self.steps:
            words += str(step).removeprefix(step.subject)
        return words


@dataclass
class _Hop:
    """The best way to each entity that a hop reaches; sorted by entity."""

    entities: Tensor
    weights: Tensor
    parents: Tensor
    relations: Tensor


def best_paths(
    graph: KnowledgeGraph, seeds: Sequence[int], relations: Sequence[Tensor], hops: Tensor, targets: Sequence[int],
    *, exclude_seed: bool = False,
) -> list[Path | None]:  # fmt: skip
    """For each target the path of the largest product of weights from a seed, None where no path leads there.

    Among equal paths the shortest, then the one through the smallest ids. Cost: the edges of the frontiers, once.

    Args:
        graph: with the relations of the model; on the CPU.
        seeds: where paths begin.
        relations: the relation weights [num_relations] of each hop.
        hops: the weight of each number of hops [num_hops].
        targets: the entities to explain.
        exclude_seed: paths do not come back to a seed.
    """
    start = torch.tensor(sorted(seeds))
    none = torch.empty(0, dtype=torch.int64)
    layers = [_Hop(start, torch.ones(len(start), dtype=torch.float64), none, none)]
    for number, weights in enumerate(relations):
        layers.append(_expand(graph, layers[-1], weights.double(), start if exclude_seed and number > 0 else none))
    paths = []
    for target in targets:
        best: tuple[float, int, int] | None = None
        for hop, layer in enumerate(layers[1:], 1):
            position = int(torch.searchsorted(layer.entities, target))
            if position < len(layer.entities) and int(layer.entities[position]) == target:
                weight = float(hops[hop - 1]) * float(layer.weights[position])
                if best is None or weight > best[0]:
                    best = weight, hop, position
        paths.append(_trace(graph, layers, relations, *best) if best is not None else None)
    return paths


def _expand(graph: KnowledgeGraph, layer: _Hop, weights: Tensor, excluded: Tensor) -> _Hop:
    """The best single edge into each entity that the layer's edges reach."""
    starts = graph.row_offsets[layer.entities]
    degrees = graph.row_offsets[layer.entities + 1] - starts
    parents = torch.repeat_interleave(torch.arange(len(starts)), degrees)
    edges = torch.arange(len(parents)) - (degrees.cumsum(0) - degrees)[parents] + starts[parents]
    relations, objects = graph.relations[edges].long(), graph.objects[edges].long()
    products = layer.weights[parents] * weights[relations]
    order = torch.sort(products, descending=True, stable=True).indices
    order = order[torch.sort(objects[order], stable=True).indices]
    ordered = objects[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    first &= ~torch.isin(ordered, excluded)
    order = order[first]
    return _Hop(objects[order], products[order], parents[order], relations[order])


def _trace(
    graph: KnowledgeGraph, layers: list[_Hop], relations: Sequence[Tensor], weight: float, hop: int, position: int
) -> Path:
    """The path back from an entity of layer `hop`."""
    steps: list[Step] = []
    for number in range(hop, 0, -1):
        layer, before = layers[number], layers[number - 1]
        parent, relation = int(layer.parents[position]), int(layer.relations[position])
        subject, target = int(before.entities[parent]), int(layer.entities[position])
        inverse = graph.has_inverses and relation >= graph.num_relations // 2
        name = graph.relation_name(relation - graph.num_relations // 2 if inverse else relation)
        weight_of_step = float(relations[number - 1][relation])
        steps.append(Step(graph.entity_name(subject), name, graph.entity_name(target), inverse, weight_of_step))
        position = parent
    return Path(tuple(reversed(steps)), weight)
