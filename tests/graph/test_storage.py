"""Graph files: what is saved is loaded, and a file that is not whole, ours or sound is refused with a cure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from graph_strategies import Case, cases
from tercet import KnowledgeGraph
from tercet.graph import storage
from tercet.graph.names import Names


def good_graph() -> KnowledgeGraph:
    return KnowledgeGraph.from_triples(
        [0, 0, 2],
        [1, 0, 0],
        [1, 2, 0],
        num_entities=4,
        num_relations=2,
        keep_edge_ids=True,
        entity_names=["Heat", "Pacino", "Heat", "Oslo"],
        relation_names=["year", "actor"],
        attributes={"year": torch.tensor([1, 2, 3, 4])},
    )


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.booleans(), st.booleans(), st.booleans())
def test_round_trip(tmp_path: Path, case: Case, inverses: bool, keep_edge_ids: bool, named: bool) -> None:
    names = [f"e{i % 2000}" for i in range(case.num_entities)] if named else None
    graph = KnowledgeGraph.from_triples(
        *case[:3],
        num_entities=case.num_entities,
        num_relations=case.num_relations,
        keep_edge_ids=keep_edge_ids,
        entity_names=names,
        attributes={"x": torch.arange(case.num_entities) / 2, "count": torch.arange(case.num_entities)},
    )
    graph = graph.with_inverses() if inverses else graph
    path = tmp_path / "kb"
    graph.save(path)
    loaded = KnowledgeGraph.load(path)
    for name in ("row_offsets", "relations", "objects", "edge_ids"):
        a, b = getattr(graph, name), getattr(loaded, name)
        assert (a is None and b is None) or torch.equal(a, b)
    assert set(loaded.attributes) == {"x", "count"}
    assert all(torch.equal(graph.attributes[name], value) for name, value in loaded.attributes.items())
    assert repr(loaded).split(", attributes")[0] == repr(graph).split(", attributes")[0]
    assert loaded.fingerprint == graph.fingerprint == storage.identity(loaded._fields())
    if named:
        assert list(loaded.entity_names) == names
        assert loaded.find_entity("e0") == graph.find_entity("e0")
    loaded.save(path)  # over the very file it is mapped from
    assert KnowledgeGraph.load(path).fingerprint == graph.fingerprint
    assert [file.name for file in tmp_path.iterdir()] == ["kb"]


def test_what_reading_made_is_saved_and_found(tmp_path: Path) -> None:
    text = tmp_path / "kb.txt"
    text.write_text("".join(f"a{i}|r|b{i % 70}\n" for i in range(5000)))
    KnowledgeGraph.read(text).with_inverses().save(tmp_path / "kb")
    graph = KnowledgeGraph.load(tmp_path / "kb")
    assert graph.neighbors("a4999") == [("r", "b29")]
    assert len(graph.neighbors("b29")) == 5000 // 70 + 1


def _resealed(change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Callable[[Path], None]:
    """Breaks a file and makes fingerprint and checksum fit again, as a faulty writer would."""

    def apply(path: Path) -> None:
        tensors, metadata = parts(path)
        change(tensors, metadata)
        sizes = json.loads(metadata["sizes"])
        fields = dict(zip(("num_entities", "num_relations", "has_inverses"), sizes, strict=True)) | tensors
        for kind in ("entity_names", "relation_names"):
            blob = tensors.get(f"{kind}.blob")
            fields[kind] = None if blob is None else Names(blob, tensors[f"{kind}.offsets"], blob, None)
        rest = {n: t for n, t in tensors.items() if n.startswith(("edge_ids", "attributes."))}
        rest |= {n: t for n, t in tensors.items() if n.endswith((".slots", ".following"))}
        metadata["fingerprint"], metadata["checksum"] = storage.identity(fields), storage.digest(rest)
        save_file(tensors, path, metadata)

    return apply


def _sizes(*values: object) -> Callable[[dict[str, Tensor], dict[str, str]], None]:
    return lambda tensors, metadata: metadata.__setitem__("sizes", json.dumps(values))


SEALED = {
    "an object out of range": (lambda t, m: t["objects"].__setitem__(0, 9), "objects must be in 0..3, got 9 at edge 0"),
    "a relation out of range": (lambda t, m: t["relations"].__setitem__(1, -1), "relations must be in 0..1, got -1"),
    "an unsorted row": (lambda t, m: t["relations"].__setitem__(0, 1), "edges must ascend by (relation, object)"),
    "falling offsets": (lambda t, m: t["row_offsets"].__setitem__(1, 9), "row_offsets must rise from 0 to 3"),
    "a dead name": (lambda t, m: t["entity_names.slots"].fill_(-1), "entity_names: the hash table does not lead to"),
    "a broken chain": (lambda t, m: t["entity_names.following"].fill_(-1), "entity_names: the chain of ids"),
    "a name that is no text": (
        lambda t, m: t["relation_names.blob"].fill_(0xFF),
        "relation_names: name 0 is not UTF-8",
    ),
    "names of another size": (_sizes(4, 3, False), "relation_names must have one name for each of 3 ids, got 2"),
    "entities of another number": (_sizes(5, 2, False), "one name for each of 5 ids, got 4"),
    "inverses that are none": (_sizes(4, 2, True), "relations 1..1 must hold the inverse of every edge"),
    "negative sizes": (_sizes(4, -2, False), "one name for each of -2 ids, got 2"),
    "a short attribute": (
        lambda t, m: t.__setitem__("attributes.year", t["attributes.year"][1:].clone()),
        "attribute year must be [num_entities] = [4], got [3]",
    ),
    "offsets of another type": (
        lambda t, m: t.__setitem__("entity_names.offsets", t["entity_names.offsets"].int()),
        "offsets must be torch.int64",
    ),
}


@pytest.mark.parametrize("kind", SEALED)
def test_a_sealed_file_that_is_unsound_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kb"
    good_graph().save(path)
    change, message = SEALED[kind]
    _resealed(lambda tensors, metadata: None)(path)
    KnowledgeGraph.load(path)
    _resealed(change)(path)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ") + ".*" + re.escape(message)) as caught:
        KnowledgeGraph.load(path)
    assert "build the graph again with `tercet graph build`" in str(caught.value)


def _rewritten(change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tensors, metadata = parts(path)
        change(tensors, metadata)
        save_file(tensors, path, metadata)

    return apply


DAMAGED = {
    "foreign tensors": (lambda p: save_file({"a": torch.zeros(3)}, p), "not a graph file of tercet (a foreign"),
    "no safetensors": (
        lambda p: p.write_bytes(b"PK\x03\x04 something else entirely"),
        "not a graph file, or cut short",
    ),
    "empty": (lambda p: p.write_bytes(b""), "not a graph file, or cut short"),
    "cut short": (lambda p: p.write_bytes(p.read_bytes()[:-1]), "not a graph file, or cut short"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "not a graph file, or cut short"),
    "a later version": (
        _rewritten(lambda t, m: m.update(version="2")),
        "graph format version 2, this tercet reads version 1",
    ),
    "no version": (_rewritten(lambda t, m: m.pop("version")), "graph format version None"),
    "no sizes": (_rewritten(lambda t, m: m.pop("sizes")), "its header lacks sizes, fingerprint or checksum"),
    "odd sizes": (
        _rewritten(lambda t, m: m.update(sizes="[1, 2, 3]")),
        "its sizes must be two integers and a truth value",
    ),
    "no objects": (_rewritten(lambda t, m: t.pop("objects")), "it must hold objects of torch.int32"),
    "wide objects": (
        _rewritten(lambda t, m: t.update(objects=t["objects"].long())),
        "it must hold objects of torch.int32",
    ),
    "no slots": (_rewritten(lambda t, m: t.pop("entity_names.slots")), "its entity_names lack a part"),
    "an attribute changed": (
        _rewritten(lambda t, m: t["attributes.year"].add_(1)),
        "its contents do not fit its fingerprint",
    ),
    "an edge id changed": (_rewritten(lambda t, m: t["edge_ids"].add_(1)), "its contents do not fit its fingerprint"),
    "sizes changed": (
        _rewritten(lambda t, m: m.update(sizes="[4, 3, false]")),
        "its contents do not fit its fingerprint",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kb"
    good_graph().save(path)
    change, message = DAMAGED[kind]
    change(path)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {message}")) as caught:
        KnowledgeGraph.load(path)
    assert "tercet graph build" in str(caught.value)


def test_every_tampered_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "kb"
    good_graph().save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in range(header, len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="its contents do not fit its fingerprint: it was changed or damaged"):
            KnowledgeGraph.load(path)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kb"
    good_graph().save(path)
    before = path.read_bytes()

    def fail(tensors: object, name: Path, metadata: object) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(storage, "save_file", fail)
    with pytest.raises(OSError, match="the disk is full"):
        good_graph().with_inverses().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'kb'}: there is no such graph file")):
        KnowledgeGraph.load(tmp_path / "kb")
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'a' / 'kb'}: its folder does not exist")):
        good_graph().save(tmp_path / "a" / "kb")
