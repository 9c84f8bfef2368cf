"""KnowledgeGraph against plain numpy: building, inverses, incoming, updates, checks, conversions."""

from __future__ import annotations

import copy
import os
import pickle
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from graph_strategies import Case, assert_same, cases, edges_of, graph_of, plain, small, with_inverses
from tercet import KnowledgeGraph

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[3] / "shared" / "data"))


@settings(deadline=None, max_examples=60)
@given(cases(), st.sampled_from([1, 2, 7]))
def test_build_matches_numpy(case: Case, num_threads: int) -> None:
    graph = graph_of(case, keep_edge_ids=True, num_threads=num_threads)
    row_offsets, edges, first = plain(case)
    assert np.array_equal(graph.row_offsets, row_offsets)
    assert np.array_equal(edges_of(graph), edges)
    assert np.array_equal(graph.edge_ids, first)
    assert graph.row_offsets.dtype == torch.int64
    assert graph.relations.dtype == graph.objects.dtype == torch.int32
    assert graph.max_degree == max(np.diff(row_offsets), default=0)
    assert_same(graph.validate(), graph_of(case, keep_edge_ids=True, num_threads=1))
    without = graph_of(case, num_threads=num_threads)
    assert without.edge_ids is None
    assert torch.equal(without.objects, graph.objects)


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from([1, 2, 7]))
def test_inverses_match_rebuilding(case: Case, num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        graph = graph_of(case, keep_edge_ids=True).with_inverses()
    finally:
        torch.set_num_threads(before)
    _, edges, first = plain(with_inverses(case))
    assert np.array_equal(edges_of(graph), edges)
    assert np.array_equal(graph.edge_ids, first % max(len(case.heads), 1))
    assert graph.has_inverses
    assert graph.num_relations == 2 * case.num_relations
    graph.validate()
    with pytest.raises(ValueError, match=r"tercet.with_inverses: the graph must have no inverses yet, and it has"):
        graph.with_inverses()


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from([1, 2, 7]), st.booleans())
def test_incoming_is_a_stable_sort_by_object(case: Case, num_threads: int, edges_first: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        graph = graph_of(case)
        short, full = (graph.incoming(edges=flag) for flag in (edges_first, True))
    finally:
        torch.set_num_threads(before)
    edges = edges_of(graph)
    order = np.argsort(edges[:, 2], kind="stable")
    counts = np.bincount(edges[:, 2], minlength=case.num_entities)
    assert (short.edges is None) == (not edges_first)
    for incoming in (short, full, graph.incoming()):
        assert np.array_equal(incoming.offsets, np.concatenate([[0], np.cumsum(counts)]))
        assert np.array_equal(incoming.subjects, edges[order, 0])
        assert np.array_equal(incoming.relations, edges[order, 1])
    assert np.array_equal(full.edges, order)
    assert graph.incoming(edges=True) is graph.incoming(edges=True)
    assert graph.incoming().edges is None


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(0, 2**32 - 1), st.booleans())
def test_updated_matches_rebuilding(case: Case, seed: int, inverses: bool) -> None:
    rng = np.random.default_rng(seed)
    size = 50
    sizes = case.num_entities, case.num_relations, case.num_entities
    fresh = np.stack([rng.integers(0, s, size) for s in sizes], 1)
    rows = case.rows.astype(np.int64)
    known = rows[rng.integers(0, len(rows), size)] if len(rows) else rows
    add, remove = np.concatenate([fresh[:25], known[:10]]), np.concatenate([known[5:], fresh[20:]])
    kept = set(map(tuple, rows.tolist())) - set(map(tuple, remove.tolist())) | set(map(tuple, add.tolist()))
    rebuilt = Case(*np.array(sorted(kept), dtype=np.int64).reshape(-1, 3).T, *case[3:])
    graph, wanted = graph_of(case), graph_of(rebuilt)
    if inverses:
        graph, wanted = graph.with_inverses(), wanted.with_inverses()
    assert_same(graph.updated(add, torch.from_numpy(remove)).validate(), wanted)
    assert_same(graph.updated(), graph)


def test_updated_keeps_and_continues_edge_ids() -> None:
    graph = KnowledgeGraph.from_triples(
        [0, 0, 1], [0, 0, 0], [1, 1, 0], num_entities=3, num_relations=1, keep_edge_ids=True
    )
    new = graph.updated(add=[(2, 0, 0), (1, 0, 0), (2, 0, 1)], remove=[(0, 0, 1)])
    assert edges_of(new).tolist() == [[1, 0, 0], [2, 0, 0], [2, 0, 1]]
    assert new.edge_ids.tolist() == [2, 3, 5]
    both = graph.with_inverses().updated(add=[(2, 0, 2)])
    assert [row for row, edge in zip(edges_of(both).tolist(), both.edge_ids, strict=True) if edge == 3] == [
        [2, 0, 2],
        [2, 1, 2],
    ]


def test_updated_takes_names_and_checks_its_input() -> None:
    graph = small()
    assert edges_of(graph.updated(add=[("Oslo", "year", 1)], remove=[(0, "actor", "Pacino")])).tolist() == [
        [0, 0, 2],
        [2, 0, 0],
        [3, 0, 1],
    ]
    for call, message in {
        lambda: graph.updated(add=[(4, 0, 0)]): "tercet.updated(add): heads must be in 0..3, got 4 at position 0",
        lambda: graph.updated(remove=[(0, 0, 0), (0, 2, 0)]): (
            "tercet.updated(remove): relations must be in 0..1, got 2 at position 1"
        ),
        lambda: graph.with_inverses().updated(add=[(0, 2, 0)]): "relations must be in 0..1, got 2 at position 0",
        lambda: graph.updated(add=[("Heat", 0, 0)]): "2 entities are named 'Heat'; pass one of the ids [0, 2]",
        lambda: graph.updated(add=[(0, 0)]): "tercet.updated: add must hold triples (head, relation, tail)",
        lambda: graph.updated(remove=np.zeros((2, 2), int)): "tercet.updated: remove must be [count, 3], got [2, 2]",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heads": [0, 4]}, ValueError, "heads must be in 0..3, got 4 at position 1"),
        ({"heads": [-1, 0]}, ValueError, "heads must be in 0..3, got -1 at position 0"),
        ({"relations": [0, 2]}, ValueError, "relations must be in 0..1, got 2 at position 1"),
        ({"tails": [2**40, 0]}, ValueError, f"tails must be in 0..3, got {2**40} at position 0"),
        ({"tails": np.array([0, 2**64 - 1], np.uint64)}, ValueError, f"tails must be below 2^31, got {2**64 - 1}"),
        ({"heads": [0.0, 1.0]}, TypeError, "heads must hold integers, got float64"),
        ({"heads": torch.tensor([True, False])}, TypeError, "heads must hold integers, got bool"),
        ({"heads": [[0], [1]]}, ValueError, "heads must have one dimension, got shape [2, 1]"),
        ({"heads": [0]}, ValueError, "heads, relations and tails must be equally long, got [1, 2, 2]"),
        ({"num_entities": -1}, ValueError, f"num_entities must be in 0..{2**31 - 1}, got -1"),
        ({"num_relations": 2**31}, ValueError, f"num_relations must be in 0..{2**31 - 1}, got {2**31}"),
        ({"num_entities": 4.0}, TypeError, "num_entities must be an integer, got float"),
        ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
        ({"entity_names": ["a"]}, ValueError, "entity_names must have one name for each of 4 ids, got 1"),
        ({"entity_names": "abcd"}, TypeError, "entity_names must hold one str for each id, got one str"),
        ({"relation_names": ["a", 3]}, TypeError, "relation_names must hold str, got int at position 1"),
        ({"relation_names": ["a", "\ud800"]}, ValueError, "relation_names must be valid Unicode, got '\\ud800'"),
        ({"attributes": {"year": torch.ones(3)}}, ValueError, "attribute year must be [num_entities] = [4], got [3]"),
        ({"attributes": {"year": torch.ones(4).bool()}}, TypeError, "attribute year must hold numbers, got torch.bool"),
        ({"attributes": {"year": [1, 2, 3, 4]}}, TypeError, "attribute year must be a torch.Tensor, got list"),
    ],
)
def test_from_triples_checks_its_input(change: dict, error: type, message: str) -> None:
    good = {"heads": [0, 1], "relations": [0, 1], "tails": [3, 2], "num_entities": 4, "num_relations": 2}
    with pytest.raises(error, match="^" + re.escape(f"tercet.KnowledgeGraph.from_triples: {message}")):
        KnowledgeGraph.from_triples(**(good | change))


def test_inputs_of_every_dtype_and_stride_are_read_alike() -> None:
    rows = np.random.default_rng(0).integers(0, 100, (500, 3))
    wanted = graph_of(Case(*rows.T, 100, 100))
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        assert_same(graph_of(Case(*rows.astype(dtype).T, 100, 100)), wanted)
    frozen = rows.astype(np.int32)
    frozen.flags.writeable = False
    assert_same(graph_of(Case(*frozen[::-1].T, 100, 100)), wanted)
    assert_same(graph_of(Case(*(torch.from_numpy(rows)[:, i] for i in range(3)), 100, 100)), wanted)
    records = np.zeros(500, dtype=[("h", "<i8"), ("pad", "i1"), ("r", "<i4"), ("t", "<i8")])
    records["h"], records["r"], records["t"] = rows.T
    assert_same(graph_of(Case(records["h"], records["r"], records["t"], 100, 100)), wanted)


def test_empty_graphs() -> None:
    for num_entities in (0, 3):
        graph = KnowledgeGraph.from_triples([], [], [], num_entities=num_entities, num_relations=0).with_inverses()
        assert graph.row_offsets.tolist() == [0] * (num_entities + 1)
        assert graph.num_edges == graph.max_degree == len(graph.incoming(edges=True).edges) == 0
        graph.validate()


def test_names_neighbors_and_lookup() -> None:
    graph = small()
    assert graph.find_entity("Heat") == [0, 2]
    assert graph.find_relation("actor") == 1
    assert graph.entity_name(3) == "Oslo"
    assert graph.neighbors(0) == [(0, 2), (1, 1)]
    assert graph.neighbors("Pacino") == []
    assert graph.with_inverses().neighbors("Pacino") == [("actor⁻¹", "Heat")]
    nameless = graph_of(Case(np.array([0]), np.array([0]), np.array([1]), 2, 1))
    assert (nameless.entity_name(1), nameless.relation_name(0)) == ("1", "0")
    for call, message in {
        lambda: graph.find_entity("heat"): "tercet.find_entity: no entity is named 'heat'; near names: 'Heat'",
        lambda: graph.find_entity("Pacinoo"): "no entity is named 'Pacinoo'; near names: 'Pacino'",
        lambda: graph.find_entity("%%%%"): "no entity is named '%%%%'; no name is near",
        lambda: graph.find_relation("actors"): "no relation is named 'actors'; near names: 'actor'",
        lambda: graph.neighbors("Heat"): "2 entities are named 'Heat'; pass one of the ids [0, 2]",
        lambda: graph.neighbors(4): "tercet.neighbors: entity must be in 0..3, got 4",
        lambda: graph.neighbors(-1): "tercet.neighbors: entity must be in 0..3, got -1",
        lambda: graph.entity_name(4): "tercet.entity_name: entity must be in 0..3, got 4",
        lambda: graph.relation_name(-1): "tercet.relation_name: relation must be in 0..1, got -1",
        lambda: nameless.find_entity("a"): "tercet.find_entity: the graph has no entity names; use ids",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    with pytest.raises(TypeError, match=r"tercet.find_entity: name must be a str, got int"):
        graph.find_entity(3)


def test_a_graph_is_immutable_and_travels() -> None:
    graph = small(keep_edge_ids=True).with_attributes(year=torch.arange(4.0))
    for name in ("objects", "num_entities", "anything"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set, a graph is immutable"):
            setattr(graph, name, 3)
    with pytest.raises(TypeError):
        graph.attributes["year"] = torch.zeros(4)
    assert copy.deepcopy(graph) is graph
    assert repr(graph) == (
        "KnowledgeGraph(entities=4, relations=2, edges=3, inverses=False, named=True, attributes=['year'],"
        " device='cpu')"
    )
    leaves, spec = pytree.tree_flatten({"graph": graph})
    assert len(leaves) == 5
    again = pytree.tree_unflatten(leaves, spec)["graph"]
    for other in (again, pickle.loads(pickle.dumps(graph)), graph.to("cpu")):
        assert_same(other, graph)
        assert other.find_entity("Heat") == [0, 2]
        assert torch.equal(other.attributes["year"], torch.arange(4.0))
        assert other.fingerprint == graph.fingerprint
    meta = graph.to("meta")
    assert meta.device.type == meta.attributes["year"].device.type == "meta"


def test_a_graph_enters_a_compiled_function() -> None:
    graph = small()

    def degrees(given: KnowledgeGraph) -> torch.Tensor:
        return given.row_offsets.diff() + given.num_relations

    compiled = torch.compile(degrees, fullgraph=True, backend="eager")
    assert torch.equal(compiled(graph), degrees(graph))


def test_fingerprint_tells_graphs_apart() -> None:
    graph = small()
    others = [
        graph.with_inverses(),
        graph.updated(add=[(3, 0, 0)]),
        KnowledgeGraph(graph.row_offsets, graph.relations, graph.objects, 4, 3),
        KnowledgeGraph(graph.row_offsets, graph.relations, graph.objects, 4, 2, entity_names=graph.entity_names),
    ]
    assert len({graph.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert (
        graph.with_attributes(year=[1, 2, 3, 4]).fingerprint
        == small(keep_edge_ids=True).fingerprint
        == graph.fingerprint
    )


def test_from_pykeen_and_pyg() -> None:
    factory = SimpleNamespace(
        mapped_triples=torch.tensor([[0, 1, 2], [2, 0, 1]]),
        num_entities=3,
        num_relations=4,
        real_num_relations=2,
        entity_to_id={"a": 0, "c": 2, "b": 1},
        relation_to_id={"r": 0, "s": 1},
    )
    graph = KnowledgeGraph.from_pykeen(factory, keep_edge_ids=True)
    assert graph.neighbors("c") == [("r", "b")]
    assert (graph.num_relations, graph.edge_ids.tolist()) == (2, [0, 1])
    with pytest.raises(ValueError, match=r"from_pykeen: triples_factory must have mapped_triples"):
        KnowledgeGraph.from_pykeen(SimpleNamespace())
    data = SimpleNamespace(edge_index=torch.tensor([[0, 2], [2, 1]]), edge_type=torch.tensor([1, 0]), num_nodes=5)
    graph = KnowledgeGraph.from_pyg(data, relation_names=["r", "s", "t"])
    assert edges_of(graph).tolist() == [[0, 1, 2], [2, 0, 1]]
    assert (graph.num_entities, graph.num_relations) == (5, 3)
    assert KnowledgeGraph.from_pyg(data).num_relations == 2
    with pytest.raises(ValueError, match=r"from_pyg: data must have edge_index and edge_type"):
        KnowledgeGraph.from_pyg(SimpleNamespace(edge_index=data.edge_index))
    with pytest.raises(ValueError, match=re.escape("edge_index must be [2, num_triples], got [3]")):
        KnowledgeGraph.from_pyg(SimpleNamespace(edge_index=torch.zeros(3), edge_type=torch.zeros(3)))


@pytest.mark.filterwarnings("ignore")
def test_the_real_pyg_converts() -> None:
    pyg = pytest.importorskip("torch_geometric.data")
    data = pyg.Data(edge_index=torch.tensor([[0, 2], [2, 1]]), edge_type=torch.tensor([1, 0]), num_nodes=5)
    assert edges_of(KnowledgeGraph.from_pyg(data)).tolist() == [[0, 1, 2], [2, 0, 1]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inverses", [False, True])
def test_the_real_pykeen_converts(inverses: bool) -> None:
    triples = pytest.importorskip("pykeen.triples")
    rows = np.array([["a", "r", "b"], ["b", "s", "c"], ["a", "s", "c"]])
    factory = triples.TriplesFactory.from_labeled_triples(rows, create_inverse_triples=inverses)
    graph = KnowledgeGraph.from_pykeen(factory)
    assert (graph.num_entities, graph.num_relations, graph.num_edges) == (3, 2, 3)
    assert graph.neighbors("a") == [("r", "b"), ("s", "c")]


@pytest.mark.skipif(not (DATA / "kgqa/metaqa/kb.txt").exists(), reason=f"no MetaQA at {DATA}; set TERCET_DATA")
def test_metaqa() -> None:
    path = DATA / "kgqa/metaqa/kb.txt"
    graph = KnowledgeGraph.read(path)
    assert (graph.num_entities, graph.num_relations, graph.num_edges) == (43234, 9, 133582)
    triples = [tuple(line.split("|")) for line in path.read_text(encoding="utf-8").splitlines()]
    assert list(graph.entity_names) == list(dict.fromkeys(name for s, _, o in triples for name in (s, o)))
    subjects = Counter(s for s, _, _ in triples)
    assert graph.max_degree == max(subjects.values())
    expected = sorted((p, o) for s, p, o in set(triples) if s == "Kismet")
    assert sorted(graph.neighbors("Kismet")) == expected
    assert graph.with_inverses().num_edges == 2 * 133582
    ids = {name: i for i, name in enumerate(graph.entity_names)}
    assert all(graph.find_entity(name) == [ids[name]] for name in list(ids)[::50])
