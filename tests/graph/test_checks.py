"""Each broken invariant of a graph gets exactly its error."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_strategies import Case, cases, graph_of, small
from tercet import KnowledgeGraph

# One broken invariant each: (what changes in the fields of a good graph, the error).
BROKEN = {
    "first offset": (
        lambda f: f["row_offsets"].__setitem__(0, 1),
        ValueError,
        "row_offsets must rise from 0 to 6, got 1",
    ),
    "last offset": (lambda f: f["row_offsets"].__setitem__(-1, 7), ValueError, "to 6, got 7 at position 4"),
    "falling offsets": (lambda f: f["row_offsets"].__setitem__(1, 5), ValueError, "row_offsets must rise from 0 to 6"),
    "relation below": (
        lambda f: f["relations"].__setitem__(2, -1),
        ValueError,
        "relations must be in 0..3, got -1 at edge 2",
    ),
    "relation above": (
        lambda f: f["relations"].__setitem__(5, 4),
        ValueError,
        "relations must be in 0..3, got 4 at edge 5",
    ),
    "object below": (
        lambda f: f["objects"].__setitem__(0, -7),
        ValueError,
        "objects must be in 0..3, got -7 at edge 0",
    ),
    "object above": (lambda f: f["objects"].__setitem__(3, 4), ValueError, "objects must be in 0..3, got 4 at edge 3"),
    "unsorted row": (
        lambda f: f["relations"].__setitem__(slice(0, 2), f["relations"][:2].flip(0)),
        ValueError,
        "edges must ascend by (relation, object) within a subject, each once; edge 1 does not",
    ),
    "the same edge twice": (
        lambda f: [f[name].__setitem__(1, f[name][0].clone()) for name in ("relations", "objects")],
        ValueError,
        "edges must ascend by (relation, object) within a subject, each once; edge 1 does not",
    ),
    "an inverse of nothing": (
        lambda f: f["objects"].__setitem__(5, 1),
        ValueError,
        "relations 2..3 must hold the inverse of every edge, and do not",
    ),
    "int32 offsets": (
        lambda f: f.__setitem__("row_offsets", f["row_offsets"].int()),
        TypeError,
        "row_offsets must be torch.int64",
    ),
    "int64 objects": (
        lambda f: f.__setitem__("objects", f["objects"].long()),
        TypeError,
        "objects must be torch.int32, got torch.int64",
    ),
    "short relations": (
        lambda f: f.__setitem__("relations", f["relations"][1:]),
        ValueError,
        "relations must be [num_edges] = [6], got [5]",
    ),
    "two dimensions": (
        lambda f: f.__setitem__("objects", f["objects"][None]),
        ValueError,
        "objects must have one dimension, got shape",
    ),
    "another device": (
        lambda f: f.__setitem__("relations", f["relations"].to("meta")),
        ValueError,
        "must be on one device, got meta and cpu",
    ),
    "wrong size": (
        lambda f: f.__setitem__("num_entities", 5),
        ValueError,
        "row_offsets must be [num_entities + 1] = [6]",
    ),
    "no tensor": (lambda f: f.__setitem__("relations", [0]), TypeError, "relations must be a torch.Tensor, got list"),
    "short edge_ids": (
        lambda f: f.__setitem__("edge_ids", torch.zeros(2).long()),
        ValueError,
        "edge_ids must be [num_edges] = [6], got [2]",
    ),
    "odd relations": (
        lambda f: f.__setitem__("num_relations", 5),
        ValueError,
        "relations 2..4 must hold the inverse of every edge",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_invariant_gets_its_error(kind: str) -> None:
    good = small().with_inverses()
    names = ("row_offsets", "relations", "objects", "edge_ids", "num_entities", "num_relations", "has_inverses")
    fields = {n: v.clone() if isinstance(v := getattr(good, n), torch.Tensor) else v for n in names}
    KnowledgeGraph(**fields)
    change, error, message = BROKEN[kind]
    change(fields)
    with pytest.raises(error, match=re.escape(message)):
        KnowledgeGraph(**fields)


@settings(deadline=None, max_examples=40)
@given(cases(min_edges=2), st.data())
def test_validate_finds_the_first_fault(case: Case, data: st.DataObject) -> None:
    graph = graph_of(case)
    if graph.num_edges == 0:
        return
    at = data.draw(st.integers(0, graph.num_edges - 1))
    column, size = data.draw(st.sampled_from([("relations", case.num_relations), ("objects", case.num_entities)]))
    bad = data.draw(st.sampled_from([-1, -(2**31), size, 2**31 - 1]))
    broken = getattr(graph, column).clone()
    broken[at:] = bad  # every one after it too: the first is named, at any number of threads
    fields = {"relations": graph.relations, "objects": graph.objects} | {column: broken}
    with pytest.raises(ValueError, match=re.escape(f"{column} must be in 0..{size - 1}, got {bad} at edge {at}")):
        KnowledgeGraph(graph.row_offsets, fields["relations"], fields["objects"], *case[3:])
