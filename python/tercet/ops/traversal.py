"""`follow`: weighted traversal of a knowledge graph by one hop.

The op takes tensors only. Its sparse push reads the frontier's edges; given the graph's incoming edges it runs the
dense pull instead. Both sum in the order of the graph's edges, so they give the same bits, as does any number of
threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tercet.ops import _checks, _native, _traversal_cpu, _traversal_cuda
from tercet.ops._library import below_autograd, define
from tercet.ops.reference import traversal as reference

if TYPE_CHECKING:
    from tercet.graph.entity_sets import EntitySets
    from tercet.graph.knowledge_graph import KnowledgeGraph

# The pull wins where the push would follow more than about this many edges for each edge of the graph and block of 16
# rows: on MetaQA with 128 rows, at 6.0 the push takes 24 ms and the pull 28 ms.
_PULL_COST = 7.0
_LAYOUTS = ("auto", "sparse", "dense")
_NO_INCOMING = (None, None, None, None)


def follow(
    graph: KnowledgeGraph,
    sets: EntitySets,
    relation_weights: Tensor,
    *,
    edge_weights: Tensor | None = None,
    exclude: Tensor | EntitySets | None = None,
    clamp: bool = False,
    layout: str = "auto",
    num_threads: int | None = None,
    scratch_bytes: int = 256 << 20,
) -> EntitySets:
    """Follow weighted relations from every set of a batch to the objects they reach.

    y[b, o] = sum over edges (s, p, o) of x[b, s] w[b, p] c_e. Each object that an edge of the frontier reaches is a
    member of the result, also with weight 0. Differentiable once in x, w and c; the gradients read the frontier's edges
    only.

    Args:
        graph: the knowledge graph.
        sets: the batch of frontiers x, of the dtype of relation_weights.
        relation_weights: w, float32 or float64 [batch, num_relations].
        edge_weights: c, the same dtype [num_edges], in the order of the graph's edges; default 1.
        exclude: what the result must not hold: one entity for each row, integers [batch], or EntitySets of the batch.
        clamp: limit memberships to 1, with gradient g / max(y, 1).
        layout: "sparse" pushes along the frontier's edges, "dense" pulls along every edge with the batch as the vector
            dimension, "auto" predicts which costs less; the result is the same, bit for bit. The push always runs under
            torch.compile, on other devices than the CPU, with weights that are not finite, and where the pull would
            exceed scratch_bytes.
        num_threads: CPU threads, default torch's; the result does not depend on it.
        scratch_bytes: about how much memory to use beside inputs and result; large batches are worked through in parts.

    Returns:
        EntitySets [batch] of the dtype of sets.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or range.

    Source:
        Cohen, Sun, Hofer, Siegler: Scalable Neural Methods for Reasoning With a Symbolic Knowledge Base, ICLR 2020.

    Example:
        >>> graph = KnowledgeGraph.from_triples([0, 0, 1], [0, 1, 0], [1, 2, 2], num_entities=3, num_relations=2)
        >>> reached = follow(graph, EntitySets.one_hot([0]), torch.tensor([[1.0, 0.25]]))
        >>> reached.to_lists()
        [{1: 1.0, 2: 0.25}]
    """
    threads = 0 if num_threads is None else _checks.threads("follow", num_threads)
    _check(graph, sets, relation_weights, edge_weights, layout, scratch_bytes)
    exclude_offsets, exclude_entities = (None, None) if exclude is None else _excluded(graph, sets, exclude)
    tracing = torch.compiler.is_compiling()
    incoming = _NO_INCOMING if tracing else _incoming(graph, sets, edge_weights is not None, layout)
    arguments = (
        sets.weights,
        sets.offsets,
        sets.entities,
        relation_weights,
        graph.row_offsets,
        graph.relations,
        graph.objects,
        edge_weights,
        exclude_offsets,
        exclude_entities,
        *incoming,
        threads,
        scratch_bytes,
    )
    if tracing or _wants_gradient(sets.weights, relation_weights, edge_weights):
        weights, offsets, entities = _follow(*arguments)
    else:
        with below_autograd():
            weights, offsets, entities = _follow(*arguments)
    if clamp:
        weights = weights / weights.detach().clamp(min=1)
    return sets.trusted(weights, offsets, entities, graph.num_entities)


def _check(
    graph: KnowledgeGraph,
    sets: EntitySets,
    relation_weights: Tensor,
    edge_weights: Tensor | None,
    layout: str,
    scratch_bytes: int,
) -> None:
    # A small hop is fast enough to feel each test: the usual case passes in one, the others find out what is wrong.
    if (
        layout in _LAYOUTS
        and edge_weights is None
        and isinstance(relation_weights, Tensor)
        and type(scratch_bytes) is int
        and scratch_bytes > 0
        and hasattr(graph, "row_offsets")
        and hasattr(sets, "entities")
        and sets.weights.dtype == relation_weights.dtype
        and relation_weights.dtype in _checks.VALUE_DTYPES
        and relation_weights.device == sets.weights.device == graph.objects.device
        and relation_weights.shape == (len(sets), graph.num_relations)
        and sets.num_entities <= graph.num_entities
    ):
        return
    op = "follow"
    if not hasattr(graph, "row_offsets"):
        raise TypeError(f"tercet.{op}: graph must be a KnowledgeGraph, got {type(graph).__name__}")
    _checks.entity_sets(op, "sets", sets)
    _checks.choice(op, "layout", layout, _LAYOUTS)
    _checks.floating(op, "relation_weights", relation_weights)
    _checks.same(op, "relation_weights", relation_weights, "sets", sets.weights)
    _checks.same(op, "sets", sets.weights, "graph", graph.objects, dtype=False)
    _checks.shape(op, "relation_weights", relation_weights, (len(sets), graph.num_relations), "[batch, num_relations]")
    if edge_weights is not None:
        _checks.floating(op, "edge_weights", edge_weights)
        _checks.same(op, "edge_weights", edge_weights, "sets", sets.weights)
        _checks.shape(op, "edge_weights", edge_weights, (graph.num_edges,), "[num_edges]")
    _check_entities("sets", sets, graph)
    if isinstance(scratch_bytes, bool) or not isinstance(scratch_bytes, int) or scratch_bytes < 1:
        raise ValueError(f"tercet.{op}: scratch_bytes must be a positive integer, got {scratch_bytes!r}")


def _check_entities(name: str, sets: EntitySets, graph: KnowledgeGraph) -> None:
    if sets.num_entities > graph.num_entities:
        raise ValueError(
            f"tercet.follow: {name} must hold entities of the graph (0..{graph.num_entities - 1}), got sets over"
            f" {sets.num_entities} entities"
        )


def _excluded(graph: KnowledgeGraph, sets: EntitySets, exclude: Tensor | EntitySets) -> tuple[Tensor, Tensor]:
    """(offsets, entities) of what to exclude."""
    if isinstance(exclude, Tensor):
        _checks.integers("follow", "exclude", exclude)
        _checks.same("follow", "exclude", exclude, "sets", sets.weights, dtype=False)
        _checks.shape("follow", "exclude", exclude, (len(sets),), "[batch]")
        _checks.in_range("follow", "exclude", exclude, graph.num_entities)
        return torch.arange(len(sets) + 1, device=exclude.device), exclude.int()
    if not hasattr(exclude, "entities"):
        raise TypeError(f"tercet.follow: exclude must be a torch.Tensor or EntitySets, got {type(exclude).__name__}")
    _checks.same("follow", "exclude", exclude.weights, "sets", sets.weights, dtype=False)
    if len(exclude) != len(sets):
        raise ValueError(f"tercet.follow: exclude must have the batch of sets = {len(sets)}, got {len(exclude)}")
    _check_entities("exclude", exclude, graph)
    return exclude.offsets, exclude.entities


def _incoming(
    graph: KnowledgeGraph, sets: EntitySets, with_edges: bool, layout: str
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The graph's edges by object where the dense pull is to run, else nothing."""
    if layout == "sparse" or graph.objects.device.type != "cpu":
        return _NO_INCOMING
    if layout == "auto":
        # What the pull costs, in edges of a push: it reads every edge for each block of 16 rows.
        pull = _PULL_COST * graph.num_edges * -(-len(sets) // 16)
        if sets.entities.numel() * graph.max_degree <= pull:  # a bound of the frontier's edges that reads none
            return _NO_INCOMING
        if _traversal_cpu.frontier_edges(graph.row_offsets, sets.offsets, sets.entities) <= pull:
            return _NO_INCOMING
    offsets, subjects, relations, edges = graph.incoming(edges=with_edges)
    return offsets, subjects, relations, edges


def _wants_gradient(weights: Tensor, relation_weights: Tensor, edge_weights: Tensor | None) -> bool:
    if not torch.is_grad_enabled():
        return False
    return (
        relation_weights.requires_grad
        or weights.requires_grad
        or (edge_weights is not None and edge_weights.requires_grad)
    )


def _follow_cuda(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    native = _native.cuda_kernel("follow")
    if native is None:
        return reference.follow(*args[:10])
    return _traversal_cuda.follow(native, *(*args[:10], args[15]))


def _follow_fake(weights: Tensor, offsets: Tensor, entities: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return weights.new_empty(size), torch.empty_like(offsets), entities.new_empty(size)


def _follow_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], *inputs[:8])
    ctx.options = inputs[14:]


def _follow_gradients(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    with_edges = ctx.needs_input_grad[7]
    grad_weights, grad_relations, grad_edges = _follow_backward(grad, *ctx.saved_tensors, with_edges, *ctx.options)
    return (grad_weights, None, None, grad_relations, None, None, None, grad_edges if with_edges else None, *[None] * 8)


def _follow_backward_cuda(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    native = _native.cuda_kernel("follow")
    if native is None:
        return reference.follow_backward(*args[:12])
    return _traversal_cuda.follow_backward(native, *(*args[:12], args[13]))


def _follow_backward_fake(
    grad: Tensor, out_offsets: Tensor, out_entities: Tensor, weights: Tensor, offsets: Tensor, entities: Tensor,
    relation_weights: Tensor, row_offsets: Tensor, relations: Tensor, objects: Tensor, edge_weights: Tensor | None,
    with_edges: bool, num_threads: int, scratch_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    edges = weights.new_empty(len(objects) if with_edges else 0)
    return torch.empty_like(weights), torch.empty_like(relation_weights), edges


def _no_second_gradient(ctx: Any, *grads: Any) -> Any:
    raise NotImplementedError("tercet.follow is differentiable once; its gradient has no gradient")


_WEIGHTS_AND_GRAPH = (
    "Tensor weights, Tensor offsets, Tensor entities, Tensor relation_weights,"
    " Tensor row_offsets, Tensor relations, Tensor objects, Tensor? edge_weights"
)
_follow = define(
    f"follow({_WEIGHTS_AND_GRAPH}, Tensor? exclude_offsets, Tensor? exclude_entities, Tensor? in_offsets,"
    " Tensor? in_subjects, Tensor? in_relations, Tensor? in_edges, int num_threads, int scratch_bytes)"
    " -> (Tensor, Tensor, Tensor)",
    cpu=_traversal_cpu.follow,
    cuda=_follow_cuda,
    fake=_follow_fake,
    setup_context=_follow_setup,
    backward=_follow_gradients,
)
_follow_backward = define(
    f"follow_backward(Tensor grad, Tensor out_offsets, Tensor out_entities, {_WEIGHTS_AND_GRAPH}, bool with_edges,"
    " int num_threads, int scratch_bytes) -> (Tensor, Tensor, Tensor)",
    cpu=_traversal_cpu.follow_backward,
    cuda=_follow_backward_cuda,
    fake=_follow_backward_fake,
    setup_context=lambda ctx, inputs, output: None,
    backward=_no_second_gradient,
)
