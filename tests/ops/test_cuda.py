"""CUDA: the traversal kernels against the CPU where there is a device; without one, what surrounds them.

The kernels' own steps run on the host in tests/cpp/driver_cuda_steps.cpp.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import TOLERANCE, Hop, dtypes, hops, large_hops, random_graph, random_hop, random_sets, seeds
from tercet import EntitySets, KnowledgeGraph
from tercet.ops import _native, _traversal_cuda, entity_sets, traversal
from tercet.ops.reference import entity_sets as sets_reference
from tercet.ops.reference import traversal as reference

HOW = ("intersection", "union", "difference")
NOBODY = 10_000  # the index of a device that does not exist


# Without a device: the module loads, says what is missing, and the reference takes its place.


def calls(module: ModuleType, dtype: int) -> list[tuple[str, tuple[object, ...]]]:
    queue, graph, sets, part, none3 = (NOBODY, 0), (0, 0, 0, 0, 0), (0, 0, 0), (0, 0, 0, 0, 0, 0), (0, 0, 0)
    sides = (sets, sets, 0, 0)
    return [
        ("follow_visits_workspace", (queue, 1)),
        ("follow_visits", (queue, graph, sets, none3, 0)),
        ("follow_workspace", (queue, dtype, graph, part)),
        ("follow_count", (queue, dtype, graph, sets, none3, sets, none3, part, 0, 0, 0)),
        ("follow_fill", (queue, dtype, graph, part, 0, 0, 0, 0)),
        ("follow_backward_workspace", (queue, dtype, graph, part)),
        ("follow_backward", (queue, dtype, graph, sets, none3, sets, 0, none3, part, 0, 0, 0)),
        ("follow_backward_edges_workspace", (queue, dtype, 0, part)),
        ("follow_backward_edges", (queue, dtype, graph, 0, sets, none3, sets, 0, none3, part, 0, 0)),
        ("merge_workspace", (queue, sides, 0)),
        ("merge_count", (queue, sides, 0, 0, 0)),
        ("merge_fill", (queue, sides, 0, 0, 0, 0, 0)),
    ]


@pytest.mark.parametrize("dtype", [0, 1])
def test_without_the_device_every_function_names_what_failed(module: ModuleType, dtype: int) -> None:
    named = {name for name in dir(module) if name.startswith(("follow", "merge"))} - {"follow_visit_bytes"}
    assert named == {name for name, _ in calls(module, dtype)}
    for name, args in calls(module, dtype):
        with pytest.raises(RuntimeError, match=r"^tercet: CUDA: cuda(Get|Set)Device: \w+"):
            getattr(module, name)(*args)


def test_unknown_codes_are_errors(module: ModuleType) -> None:
    for name, args in calls(module, 2):
        if len(args) > 1 and args[1] == 2:
            with pytest.raises(ValueError, match="dtype must be 0"):
                getattr(module, name)(*args)
    with pytest.raises(ValueError, match="how must be 0"):
        module.merge_workspace((NOBODY, 0), ((0, 0, 0), (0, 0, 0), 0, 0), 3)


@given(hops())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_reference_runs_in_a_kernels_place(monkeypatch: pytest.MonkeyPatch, hop: Hop) -> None:
    monkeypatch.setattr(_native, "cuda_kernel", lambda name: None)
    tensors = hop.tensors()
    got = traversal._follow_cuda(*tensors, None, None, None, None, 0, 1)
    assert all(map(torch.equal, got, reference.follow(*tensors)))
    grad, with_edges = torch.ones_like(got[0]), hop.edge_weights is not None
    backward = grad, *got[1:], *tensors[:8], with_edges
    assert all(map(torch.equal, traversal._follow_backward_cuda(*backward, 0, 1), reference.follow_backward(*backward)))
    sets = hop.sets.offsets, hop.sets.entities
    for how in HOW:
        merged = entity_sets._merge_cuda(*sets, *got[1:], how, hop.graph.num_entities, 0)
        assert all(map(torch.equal, merged, sets_reference.merge(*sets, *got[1:], how, hop.graph.num_entities)))


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 60))
def test_parts_cover_the_rows_within_the_budget(costs: list[int], budget: int) -> None:
    sums = [0, *np.cumsum(costs).tolist()]
    parts = _traversal_cuda.row_parts(sums, budget)
    assert [row for first, last in parts for row in range(first, last)] == list(range(len(costs)))
    for first, last in parts:
        assert last - first == 1 or sums[last] - sums[first] <= budget
    for (first, last), (_, after) in pairwise(parts):  # as few as possible
        assert last == after or sums[last + 1] - sums[first] > budget


# With a device.


def on_cuda(hop: Hop) -> Hop:
    exclude = None if hop.exclude is None else hop.exclude.to("cuda")
    edge_weights = None if hop.edge_weights is None else hop.edge_weights.cuda()
    return Hop(hop.graph.to("cuda"), hop.sets.to("cuda"), hop.relation_weights.cuda(), edge_weights, exclude)


def outcome(hop: Hop, **options: object) -> list[Tensor]:
    """Offsets, entities, weights and the gradients to x, w and, where there is, c; on the CPU."""
    x, w = hop.sets.weights.clone().requires_grad_(), hop.relation_weights.clone().requires_grad_()
    c = None if hop.edge_weights is None else hop.edge_weights.clone().requires_grad_()
    y = tercet.follow(hop.graph, hop.sets.with_weights(x), w, edge_weights=c, exclude=hop.exclude, **options)
    generator = torch.Generator().manual_seed(0)
    y.weights.backward(torch.randn(y.weights.shape, dtype=x.dtype, generator=generator).to(x.device))
    grads = [x.grad, w.grad] if c is None else [x.grad, w.grad, c.grad]
    return [t.detach().cpu() for t in (y.offsets, y.entities, y.weights, *grads) if t is not None]


def assert_agree(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    for a, b in zip(got[2:], want[2:], strict=True):
        scale = float(b.abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=max(scale, 1.0) * 4 * TOLERANCE[b.dtype])


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    assert all(map(torch.equal, got, want))


cuda_settings = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.cuda
@given(st.one_of(hops(), large_hops()))
@cuda_settings
def test_follow_agrees_with_the_cpu(kernels: ModuleType, hop: Hop) -> None:
    want, there = outcome(hop), on_cuda(hop)
    got = outcome(there)
    assert_agree(got, want)
    for budget in (1, 100_000, 256 << 20):  # again, and in parts: the same bits
        assert_same(outcome(there, scratch_bytes=budget), got)


@pytest.mark.cuda
@given(seeds, dtypes)
@cuda_settings
def test_sums_of_few_terms_are_the_bits_of_the_cpu(kernels: ModuleType, seed: int, dtype: torch.dtype) -> None:
    hop = random_hop(np.random.default_rng(seed), dtype, batch=9, num_entities=200, num_relations=3, num_triples=250,
                     hubs=0, density=0.5, edge_weights=True, exclude=True)  # fmt: skip
    got, want = outcome(on_cuda(hop)), outcome(hop)
    assert_same(got[:3], want[:3])
    assert torch.equal(got[-1], want[-1])


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_visits_than_a_grid_has_threads(kernels: ModuleType, dtype: torch.dtype) -> None:
    # 8192 blocks of 256 threads: 2.1 million; each of 24 rows walks about 110,000 edges, through and into hubs.
    hop = random_hop(np.random.default_rng(0), dtype, batch=24, num_entities=20_000, num_relations=4, num_triples=40_000,
                     hubs=2, density=1.0, edge_weights=True, exclude=True)  # fmt: skip
    got = outcome(on_cuda(hop))
    assert hop.graph.num_edges * 23 > 8192 * 256
    assert_agree(got, outcome(hop))
    assert_same(outcome(on_cuda(hop)), got)


@pytest.mark.cuda
def test_more_members_than_a_grid_has_threads(kernels: ModuleType) -> None:
    rng = np.random.default_rng(1)
    a, b = (random_sets(rng, 3, 2_000_000, density, torch.float32) for density in (0.6, 0.5))
    assert len(a.entities) > 8192 * 256
    for how in HOW:
        assert_merges_agree(a, b, how)


def assert_merges_agree(a: EntitySets, b: EntitySets, how: str) -> None:
    args = a.offsets, a.entities, b.offsets, b.entities
    size = max(a.num_entities, b.num_entities)
    got = entity_sets._merge(*(t.cuda() for t in args), how, size, 0)
    assert_same([t.cpu() for t in got], list(entity_sets._merge(*args, how, size, 0)))


@pytest.mark.cuda
@given(seeds, st.integers(0, 300), st.sampled_from([0.0, 0.1, 0.9]), st.sampled_from(HOW))
@cuda_settings
def test_merge_agrees_with_the_cpu(kernels: ModuleType, seed: int, batch: int, density: float, how: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = (random_sets(rng, batch, 40, d, torch.float32) for d in (density, 0.4))
    assert_merges_agree(a, b, how)
    assert_merges_agree(b, a, how)


@pytest.mark.cuda
def test_streams(kernels: ModuleType) -> None:
    hop = on_cuda(random_hop(np.random.default_rng(2), torch.float32, batch=19, num_entities=5000, num_relations=4,
                             num_triples=40_000, hubs=1, density=0.3, edge_weights=True, exclude=True))  # fmt: skip
    want = outcome(hop)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what runs on another stream would be done before
        weights = hop.sets.weights * 2
        doubled = Hop(
            hop.graph, hop.sets.with_weights(weights / 2), hop.relation_weights, hop.edge_weights, hop.exclude
        )
        got = outcome(doubled)
    assert_same(got, want)


@pytest.mark.cuda
def test_gradcheck(kernels: ModuleType) -> None:
    hop = on_cuda(random_hop(np.random.default_rng(3), torch.float64, batch=3, num_entities=8, num_relations=3,
                             num_triples=30, hubs=1, density=0.5, edge_weights=True, exclude=True))  # fmt: skip

    def run(x: Tensor, w: Tensor, c: Tensor) -> Tensor:
        return tercet.follow(hop.graph, hop.sets.with_weights(x), w, edge_weights=c, exclude=hop.exclude).weights

    assert hop.edge_weights is not None
    inputs = hop.sets.weights, hop.relation_weights, hop.edge_weights
    assert torch.autograd.gradcheck(run, [t.clone().requires_grad_() for t in inputs])


@pytest.mark.cuda
def test_deterministic_algorithms_are_obeyed(kernels: ModuleType) -> None:
    hop = on_cuda(random_hop(np.random.default_rng(4), torch.float32, batch=5, num_entities=300, num_relations=2,
                             num_triples=3000, hubs=1, density=0.5, edge_weights=True, exclude=False))  # fmt: skip
    want = outcome(hop)
    torch.use_deterministic_algorithms(True)
    try:
        assert_same(outcome(hop), want)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.cuda
def test_the_current_device_stays(kernels: ModuleType) -> None:
    graph: KnowledgeGraph = random_graph(np.random.default_rng(5), 50, 2, 200)
    last = torch.cuda.device_count() - 1
    device = f"cuda:{last}"
    before = torch.cuda.current_device()
    sets = EntitySets.one_hot([0, 1]).to(device)
    reached = tercet.follow(graph.to(device), sets, torch.ones(2, 2, device=device))
    assert reached.weights.device.index == last
    assert torch.cuda.current_device() == before
    assert torch.empty(1, device="cuda").device.index == before
