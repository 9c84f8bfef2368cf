"""follow: against the reference, its laws, its gradients, its checks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import (
    TOLERANCE,
    Hop,
    deviation,
    hops,
    instruction_set,
    large_hops,
    random_graph,
    random_hop,
    seeds,
)
from tercet import EntitySets, KnowledgeGraph
from tercet.ops import _native, traversal
from tercet.ops.reference import traversal as reference

LAYOUTS = ("sparse", "dense", "auto")


def in_float64(hop: Hop) -> list[Tensor | None]:
    return [t.double() if t is not None and t.is_floating_point() else t for t in hop.tensors()]


def assert_same(a: EntitySets, b: EntitySets) -> None:
    """Equal bit for bit."""
    assert torch.equal(a.offsets, b.offsets)
    assert torch.equal(a.entities, b.entities)
    assert torch.equal(a.weights, b.weights)


def equals_reference(hop: Hop, layout: str) -> None:
    got = tercet.follow(hop.graph, hop.sets, hop.relation_weights, layout=layout, **hop.options())
    weights, offsets, entities = reference.follow(*in_float64(hop))
    assert got.weights.dtype == hop.sets.weights.dtype
    assert torch.equal(got.offsets, offsets)
    assert torch.equal(got.entities, entities)
    # Sums of signed terms cancel: compare with the sum of their sizes.
    sizes = reference.follow(*(t.abs() if t is not None and t.is_floating_point() else t for t in in_float64(hop)))[0]
    if len(sizes):
        assert ((got.weights.double() - weights).abs() <= TOLERANCE[got.weights.dtype] * sizes.clamp(min=1e-30)).all()


@given(hops(), st.sampled_from(LAYOUTS))
def test_equals_reference(hop: Hop, layout: str) -> None:
    equals_reference(hop, layout)


@given(large_hops(), st.sampled_from(LAYOUTS))
@settings(max_examples=15)
def test_equals_reference_large(hop: Hop, layout: str) -> None:
    equals_reference(hop, layout)


@given(st.one_of(hops(), large_hops()))
@settings(max_examples=30)
def test_same_bits_for_threads_layouts_budgets_and_batches(hop: Hop) -> None:
    def run(rows: slice = slice(None), **options: object) -> EntitySets:
        exclude = None if hop.exclude is None else hop.exclude[rows]
        return tercet.follow(hop.graph, hop.sets[rows], hop.relation_weights[rows], edge_weights=hop.edge_weights,
                             exclude=exclude, **options)  # fmt: skip

    want = run(layout="sparse", num_threads=1)
    for threads in (1, 2, 7):
        for layout in LAYOUTS:
            assert_same(run(layout=layout, num_threads=threads), want)
        for budget in (1, 100_000, 1_000_000):
            assert_same(run(layout="sparse", num_threads=threads, scratch_bytes=budget), want)
            assert_same(run(layout="dense", num_threads=threads, scratch_bytes=budget), want)
    if len(hop.sets) > 1:
        parts = [run(slice(row, row + 1), layout=LAYOUTS[row % 3]) for row in range(len(hop.sets))]
        assert_same(EntitySets.cat(parts), want)


def test_same_bits_for_many_rows_of_few_edges_on_many_threads() -> None:
    """Rows of few edges are sorted, each worker in its own scratch: only a large batch of them wakes several."""
    hop = random_hop(np.random.default_rng(5), torch.float32, batch=300, num_entities=400, num_relations=4,
                     num_triples=1200, hubs=0, density=0.3, edge_weights=True, exclude=True)  # fmt: skip
    one, many = (
        tercet.follow(hop.graph, hop.sets, hop.relation_weights, layout="sparse", num_threads=threads, **hop.options())
        for threads in (1, 7)
    )
    assert_same(many, one)


@given(hops(max_entities=60))
def test_same_bits_at_every_isa(hop: Hop) -> None:
    want = [
        tercet.follow(hop.graph, hop.sets, hop.relation_weights, layout=layout, **hop.options()) for layout in LAYOUTS
    ]
    for isa in _native.available_isas():
        with instruction_set(isa):
            for layout, result in zip(LAYOUTS, want, strict=True):
                assert_same(
                    tercet.follow(hop.graph, hop.sets, hop.relation_weights, layout=layout, **hop.options()), result
                )


@given(hops(dtype=torch.float64), st.floats(0.1, 3), seeds)
def test_linear_in_each_argument(hop: Hop, factor: float, seed: int) -> None:
    other = torch.from_numpy(np.random.default_rng(seed).standard_normal(hop.relation_weights.shape))

    def run(weights: Tensor, sets: EntitySets = hop.sets) -> Tensor:
        return tercet.follow(hop.graph, sets, weights, **hop.options()).weights

    w, x = hop.relation_weights, hop.sets
    assert torch.allclose(run(w + factor * other), run(w) + factor * run(other), atol=1e-12)
    assert torch.allclose(run(w, x.scale(factor)), factor * run(w), atol=1e-12)


@given(hops(max_batch=8), seeds)
def test_rows_do_not_depend_on_each_other(hop: Hop, seed: int) -> None:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(hop.sets)))
    if not len(order):
        return
    want = tercet.follow(hop.graph, hop.sets, hop.relation_weights, **hop.options())
    shuffled = tercet.follow(
        hop.graph,
        EntitySets.cat([hop.sets[int(row)] for row in order]),
        hop.relation_weights[order],
        edge_weights=hop.edge_weights,
        exclude=None if hop.exclude is None else EntitySets.cat([hop.exclude[int(row)] for row in order]),
    )
    assert_same(shuffled, EntitySets.cat([want[int(row)] for row in order]))


@given(hops(max_batch=4, max_entities=8, dtype=torch.float64))
@settings(max_examples=15)
def test_gradcheck(hop: Hop) -> None:
    def run(x: Tensor, w: Tensor, c: Tensor | None) -> Tensor:
        return tercet.follow(hop.graph, hop.sets.with_weights(x), w, edge_weights=c, exclude=hop.exclude).weights

    x, w = hop.sets.weights.clone().requires_grad_(), hop.relation_weights.clone().requires_grad_()
    c = None if hop.edge_weights is None else hop.edge_weights.clone().requires_grad_()
    if len(tercet.follow(hop.graph, hop.sets, w, exclude=hop.exclude).weights):
        assert torch.autograd.gradcheck(run, (x, w, c))


@given(st.one_of(hops(dtype=torch.float64), large_hops()))
@settings(max_examples=30)
def test_gradients_equal_reference_at_any_thread_count(hop: Hop) -> None:
    weights, relation_weights = (
        hop.sets.weights.double().requires_grad_(),
        hop.relation_weights.double().requires_grad_(),
    )
    edge_weights = None if hop.edge_weights is None else hop.edge_weights.double().requires_grad_()
    leaves = [t for t in (weights, relation_weights, edge_weights) if t is not None]
    arguments = list(hop.tensors())
    arguments[0], arguments[3], arguments[7] = weights, relation_weights, edge_weights
    want_out = reference.follow(*arguments)[0]
    probe = torch.rand(len(want_out), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = torch.autograd.grad(want_out, leaves, probe, allow_unused=True, materialize_grads=True)

    def run(threads: int, budget: int) -> tuple[Tensor, ...]:
        out = tercet.follow(hop.graph, hop.sets.with_weights(weights), relation_weights, edge_weights=edge_weights,
                            exclude=hop.exclude, num_threads=threads, scratch_bytes=budget)  # fmt: skip
        return torch.autograd.grad(out.weights, leaves, probe, allow_unused=True, materialize_grads=True)

    first = run(1, 1 << 28)
    for got, wanted in zip(first, want, strict=True):
        assert deviation(got, wanted) < 1e-11
    for threads, budget in ((2, 1 << 28), (7, 1 << 28), (2, 1)):
        for again, once in zip(run(threads, budget), first, strict=True):
            assert torch.equal(again, once)


def test_a_hub_ends_where_the_next_subject_begins() -> None:
    objects = list(range(2, 102))
    graph = KnowledgeGraph.from_triples(
        [0] * 100 + [1] * 100, [0] * 200, objects * 2, num_entities=102, num_relations=1
    )
    x = torch.tensor([2.0], requires_grad=True)
    w = torch.tensor([[3.0]], requires_grad=True)
    tercet.follow(graph, EntitySets.one_hot([0], weights=x), w).weights.sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.tolist(), w.grad.tolist()) == ([300.0], [[200.0]])


def test_clamp_limits_and_divides_the_gradient() -> None:
    graph = KnowledgeGraph.from_triples([0, 1, 1], [0, 0, 0], [2, 2, 3], num_entities=4, num_relations=1)
    x = torch.tensor([1.5, 0.5], requires_grad=True)
    sets = EntitySets(x, torch.tensor([0, 2]), torch.tensor([0, 1], dtype=torch.int32), num_entities=4)
    reached = tercet.follow(graph, sets, torch.ones(1, 1), clamp=True)
    assert reached.to_lists() == [{2: 1.0, 3: 0.5}]
    (grad,) = torch.autograd.grad(reached.weights, x, torch.tensor([1.0, 10.0]))
    assert grad.tolist() == [0.5, 10.5]  # 1 / max(2, 1), and that plus 10 / max(0.5, 1)


def test_members_of_weight_zero_are_followed_and_pass_gradients() -> None:
    graph = KnowledgeGraph.from_triples([0, 1], [0, 1], [1, 2], num_entities=3, num_relations=2)
    w = torch.tensor([[0.0, 1.0]], requires_grad=True)
    once = tercet.follow(graph, EntitySets.one_hot([0]), w)
    assert once.to_lists() == [{1: 0.0}]
    twice = tercet.follow(graph, once, torch.tensor([[0.0, 1.0]]))
    assert twice.to_lists() == [{2: 0.0}]
    assert torch.autograd.grad(twice.weights.sum(), w)[0].tolist() == [[1.0, 0.0]]


def test_negative_zero_is_a_member() -> None:
    graph = KnowledgeGraph.from_triples([0], [0], [1], num_entities=2, num_relations=1)
    for layout in LAYOUTS:
        for budget in (1, 1 << 28):
            reached = tercet.follow(
                graph, EntitySets.one_hot([0]), torch.tensor([[-0.0]]), layout=layout, scratch_bytes=budget
            )
            assert reached.to_lists() == [{1: 0.0}]


def test_not_a_number_stays_in_its_row_and_with_its_relation() -> None:
    graph = random_graph(np.random.default_rng(0), 600, 3, 3000, hubs=2)
    w = torch.rand(3, 3)
    sets = EntitySets.from_lists([range(0, 600, 3)] * 3)
    clean = tercet.follow(graph, sets, w)
    for bad in (torch.nan, torch.inf):
        w[1] = torch.tensor([bad, 0.5, 0.5])
        only = w.clone()
        only[1] = torch.tensor([1.0, 0.0, 0.0])
        touched = tercet.follow(graph, sets, only)[1].weights > 0  # what relation 0 reaches
        for layout in LAYOUTS:
            got = tercet.follow(graph, sets, w, layout=layout)
            assert torch.equal(got.entities, clean.entities)
            assert torch.equal(~got[1].weights.isfinite(), touched)
            assert_same(got[0], clean[0])
            assert_same(got[2], clean[2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_inputs(layout: str) -> None:
    no_edges = KnowledgeGraph.from_triples([], [], [], num_entities=5, num_relations=2)
    reached = tercet.follow(no_edges, EntitySets.one_hot([1, 4]), torch.rand(2, 2), layout=layout)
    assert reached.to_lists() == [{}, {}]
    graph = KnowledgeGraph.from_triples([0], [0], [1], num_entities=2, num_relations=1)
    assert len(tercet.follow(graph, EntitySets.from_lists([]), torch.rand(0, 1), layout=layout)) == 0
    assert tercet.follow(graph, EntitySets.from_lists([[]]), torch.rand(1, 1), layout=layout).to_lists() == [{}]
    w = torch.rand(1, 1, requires_grad=True)
    tercet.follow(graph, EntitySets.from_lists([[]]), w, layout=layout).weights.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [[0.0]]


def test_exclude_takes_one_id_for_each_row_or_sets() -> None:
    graph = KnowledgeGraph.from_triples([0, 0, 1], [0, 0, 0], [1, 2, 0], num_entities=3, num_relations=1)
    sets, w = EntitySets.one_hot([0, 1]), torch.ones(2, 1)
    by_id = tercet.follow(graph, sets, w, exclude=torch.tensor([2, 0]))
    assert by_id.to_lists() == [{1: 1.0}, {}]
    assert_same(by_id, tercet.follow(graph, sets, w, exclude=EntitySets.one_hot([2, 0], weights=torch.zeros(2))))


def test_scratch_is_clean_between_graphs_and_after_release() -> None:
    rng = np.random.default_rng(1)
    calls = [random_hop(rng, torch.float32, batch=4, num_entities=size, num_relations=3, num_triples=9000, hubs=2,
                        density=0.4, edge_weights=True, exclude=True) for size in (5000, 9000)]  # fmt: skip

    def run(hop: Hop) -> EntitySets:
        w = hop.relation_weights.clone().requires_grad_()
        reached = tercet.follow(hop.graph, hop.sets, w, layout="sparse", **hop.options())
        reached.weights.sum().backward()
        return reached.detach()

    first = [run(hop) for hop in calls]
    for _ in range(2):
        for hop, want in zip(calls, first, strict=True):
            assert_same(run(hop), want)
        tercet.release_scratch()


def test_strided_and_expanded_arguments() -> None:
    hop = random_hop(np.random.default_rng(2), torch.float32, batch=6, num_entities=300, num_relations=4,
                     num_triples=2000, hubs=1, density=0.3, edge_weights=True, exclude=False)  # fmt: skip
    w = hop.relation_weights
    want = tercet.follow(hop.graph, hop.sets, w, edge_weights=hop.edge_weights)
    strided = torch.stack([w, w], -1)[..., 0]
    doubled = torch.stack([hop.edge_weights, hop.edge_weights], -1)[..., 1]
    assert_same(tercet.follow(hop.graph, hop.sets, strided, edge_weights=doubled), want)
    one = w[:1].expand(6, 4)
    assert_same(tercet.follow(hop.graph, hop.sets, one), tercet.follow(hop.graph, hop.sets, one.contiguous()))


def test_opcheck() -> None:
    hop = random_hop(np.random.default_rng(3), torch.float64, batch=3, num_entities=20, num_relations=3, num_triples=60,
                     hubs=1, density=0.4, edge_weights=True, exclude=True)  # fmt: skip
    arguments = [t.requires_grad_() if t is not None and t.is_floating_point() else t for t in hop.tensors()]
    torch.library.opcheck(traversal._follow, (*arguments, None, None, None, None, 2, 1 << 20))
    incoming = hop.graph.incoming(edges=True)
    torch.library.opcheck(traversal._follow, (*arguments, *incoming, 2, 1 << 20))
    out = tercet.follow(hop.graph, hop.sets.detach(), hop.relation_weights.detach())
    grad = torch.rand_like(out.weights)
    backward = (
        grad,
        out.offsets,
        out.entities,
        *[None if t is None else t.detach() for t in arguments[:8]],
        True,
        2,
        1 << 20,
    )
    torch.library.opcheck(traversal._follow_backward, backward)


def test_two_hops_compile_in_one_graph() -> None:
    hop = random_hop(np.random.default_rng(4), torch.float64, batch=4, num_entities=40, num_relations=3,
                     num_triples=150, hubs=1, density=0.2, edge_weights=False, exclude=False)  # fmt: skip

    def two_hops(w: Tensor) -> Tensor:
        once = tercet.follow(hop.graph, hop.sets, w)
        twice = tercet.intersect(tercet.follow(hop.graph, once, w, clamp=True), once)
        return tercet.count(tercet.union(twice, once, how="sum"))

    w = hop.relation_weights.abs().requires_grad_()
    compiled = torch.compile(two_hops, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):  # older torch asks for it
        want, got = two_hops(w), compiled(w)
    assert torch.allclose(got, want)
    gradients = [torch.autograd.grad(out.sum(), w)[0] for out in (want, got)]
    assert torch.allclose(*gradients)


def test_a_second_gradient_is_refused() -> None:
    graph = KnowledgeGraph.from_triples([0], [0], [1], num_entities=2, num_relations=1)
    w = torch.ones(1, 1, requires_grad=True)
    (grad,) = torch.autograd.grad(tercet.follow(graph, EntitySets.one_hot([0]), w).weights.sum(), w, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(grad.sum(), w)


GRAPH = KnowledgeGraph.from_triples([0, 1], [0, 1], [1, 2], num_entities=3, num_relations=2)
SETS = EntitySets.one_hot([0, 1])
GOOD = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"relation_weights": torch.ones(2, 3)}, ValueError,
         "tercet.follow: relation_weights must be [batch, num_relations] = [2, 2], got [2, 3]"),
        ({"relation_weights": torch.ones(2)}, ValueError, "must be [batch, num_relations] = [2, 2], got [2]"),
        ({"relation_weights": [[1.0]]}, TypeError, "relation_weights must be a torch.Tensor, got list"),
        ({"relation_weights": torch.ones(2, 2, dtype=torch.int64)}, TypeError, "must be float32 or float64, got torch.int64"),
        ({"relation_weights": torch.ones(2, 2).double()}, TypeError, "relation_weights and sets must have one dtype"),
        ({"relation_weights": torch.ones(2, 2, device="meta")}, ValueError, "must be on one device, got meta and cpu"),
        ({"edge_weights": torch.ones(3)}, ValueError, "edge_weights must be [num_edges] = [2], got [3]"),
        ({"edge_weights": torch.ones(2).double()}, TypeError, "edge_weights and sets must have one dtype"),
        ({"exclude": torch.tensor([0])}, ValueError, "exclude must be [batch] = [2], got [1]"),
        ({"exclude": torch.tensor([0.0, 1.0])}, TypeError, "exclude must hold integers, got torch.float32"),
        ({"exclude": torch.tensor([0, 3])}, ValueError, "exclude must be in 0..2, got 3"),
        ({"exclude": torch.tensor([-1, 0])}, ValueError, "exclude must be in 0..2, got -1"),
        ({"exclude": EntitySets.one_hot([0])}, ValueError, "exclude must have the batch of sets = 2, got 1"),
        ({"exclude": EntitySets.one_hot([0, 3])}, ValueError, "exclude must hold entities of the graph (0..2)"),
        ({"exclude": [0, 1]}, TypeError, "exclude must be a torch.Tensor or EntitySets, got list"),
        ({"layout": "columns"}, ValueError, "layout must be one of auto, sparse, dense, got 'columns'"),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
        ({"scratch_bytes": 0}, ValueError, "scratch_bytes must be a positive integer, got 0"),
        ({"sets": EntitySets.one_hot([0, 7])}, ValueError, "sets must hold entities of the graph (0..2)"),
        ({"sets": torch.ones(2)}, TypeError, "tercet.follow: sets must be EntitySets, got Tensor"),
        ({"graph": "graph"}, TypeError, "graph must be a KnowledgeGraph, got str"),
    ],
)  # fmt: skip
def test_errors(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"graph": GRAPH, "sets": SETS, "relation_weights": GOOD, **options}
    with pytest.raises(error, match=re.escape(message)):
        tercet.follow(**arguments)
