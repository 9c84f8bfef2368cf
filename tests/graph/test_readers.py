"""KnowledgeGraph.read: separated text, gzip, N-Triples, Parquet, and every way they can be wrong."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import KnowledgeGraph
from tercet.graph import readers

FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\t|\n\r"), min_size=1, max_size=8)
TRIPLES = st.lists(st.tuples(FIELD, FIELD, FIELD), max_size=80)
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def named(graph: KnowledgeGraph) -> set[tuple[str, str, str]]:
    return {
        (graph.entity_name(s), graph.relation_name(r), graph.entity_name(o))
        for s in range(graph.num_entities)
        for r, o in graph.neighbors(s)
    }


def first_seen(triples: list[tuple[str, str, str]]) -> list[str]:
    return list(dict.fromkeys(name for h, _, t in triples for name in (h, t)))


@relaxed
@given(TRIPLES, st.sampled_from("\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
def test_text(
    tmp_path: Path,
    triples: list[tuple[str, str, str]],
    separator: str,
    end: str,
    final_end: bool,
    bom: bool,
    zipped: bool,
) -> None:
    text = end.join(separator.join(triple) + end * (len(triple[0]) % 3 == 0) for triple in triples)
    data = b"\xef\xbb\xbf" * bom + (text + end * final_end).encode()
    path = tmp_path / ("kb.txt.gz" if zipped else "kb.txt")
    path.write_bytes(gzip.compress(data) if zipped else data)
    graph = KnowledgeGraph.read(path)
    assert list(graph.entity_names) == first_seen(triples)
    assert list(graph.relation_names) == list(dict.fromkeys(r for _, r, _ in triples))
    assert named(graph) == set(triples)
    graph.validate()


@relaxed
@given(TRIPLES, st.integers(1, 9))
def test_blocks_of_any_size_give_the_same(tmp_path: Path, triples: list[tuple[str, str, str]], block: int) -> None:
    path = tmp_path / "kb.txt"
    path.write_text("".join("\t".join(triple) + "\n" for triple in triples), encoding="utf-8", newline="")
    whole = KnowledgeGraph.read(path, keep_edge_ids=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        parts = KnowledgeGraph.read(path, keep_edge_ids=True)
    assert parts.fingerprint == whole.fingerprint
    assert parts.edge_ids.equal(whole.edge_ids)


def test_every_array_grows(tmp_path: Path) -> None:
    path = tmp_path / "kb.txt"
    count = 30_000
    path.write_text("".join(f"s{i}|r{i}|{'long ' * 20}{i}\n" for i in range(count)))
    seen: list[tuple[int, int]] = []
    graph = KnowledgeGraph.read(path, progress=lambda done, total: seen.append((done, total)))
    assert (graph.num_entities, graph.num_relations, graph.num_edges) == (2 * count, count, count)
    assert all(graph.find_entity(f"s{i}") == [2 * i] for i in range(0, count, 173))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    graph.validate()


def test_a_line_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_BLOCK", 64)
    path = tmp_path / "kb.txt"
    path.write_text(f"a\tr\tb\n{'x' * 500_000}\tr\ty\n")
    assert KnowledgeGraph.read(path).find_entity("x" * 500_000) == [2]


def test_names_are_shared_across_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\tr\ty")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"y|r|z\nx|s|z\n"))
    graph = KnowledgeGraph.read(tmp_path / "a.txt", str(tmp_path / "b.txt.gz"), keep_edge_ids=True)
    assert list(graph.entity_names) == ["x", "y", "z"]
    assert named(graph) == {("x", "r", "y"), ("y", "r", "z"), ("x", "s", "z")}
    assert graph.edge_ids.tolist() == [0, 2, 1]


LINES = {
    "two fields": ("a\tr\tb\na\tb\n", "line 2: expected 3 fields (head, relation, tail) separated by a tab, got 2"),
    "four fields": ("a|r|b\n\nc|r|d|e\n", "line 3: expected 3 fields (head, relation, tail) separated by '|', got 4"),
    "no separator": ("\n\nonly words\n", "line 3: expected head, relation and tail separated by tabs or '|'"),
    "another separator": (
        "a\tr\tb\na|r|b\n",
        "line 2: expected 3 fields (head, relation, tail) separated by a tab, got 1",
    ),
    "no head": ("a|r|b\n|r|b\n", "line 2: expected a head, got an empty field"),
    "no relation": ("a||b\n", "line 1: expected a relation, got an empty field"),
    "no tail": ("a\tr\t\r\n", "line 1: expected a tail, got an empty field"),
    "no tail at the end": ("a\tr\tb\na\tr\t", "line 2: expected a tail, got an empty field"),
    "one field first": ("a\tb\n", "line 1: expected 3 fields (head, relation, tail) separated by a tab, got 2"),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_wrong_line_is_named(tmp_path: Path, kind: str) -> None:
    text, message = LINES[kind]
    path = tmp_path / "kb.txt"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}, {message}")):
        KnowledgeGraph.read(path)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\xc3",
        b"\xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8",
        b"\x80",
        b"\xe2\x82",
    ],
)
@pytest.mark.parametrize("before", [0, 1, 7, 5000])
def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, bad: bytes, before: int) -> None:
    path = tmp_path / "kb.txt"
    path.write_bytes("ä\tr\tb\n".encode() * before + b"a\tr\tlong enough " + bad + b"\na\tr\tb\n")
    message = f"{path}, line {before + 1}: not UTF-8 (byte 17 of the line); save the file as UTF-8"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        KnowledgeGraph.read(path)


@relaxed
@given(st.binary(max_size=40))
def test_utf8_is_judged_as_python_judges_it(tmp_path: Path, data: bytes) -> None:
    data = data.translate(None, b"\t\n\r|") + b"."
    path = tmp_path / "kb.txt"
    path.write_bytes(b"a\tr\t" + data)
    try:
        expected = data.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(ValueError, match=re.escape(f"line 1: not UTF-8 (byte {error.start + 5} of the line)")):
            KnowledgeGraph.read(path)
    else:
        assert KnowledgeGraph.read(path).find_entity(expected) in ([0], [1])


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "kb.txt"
    path.write_bytes("a\tr\tb\n".encode("utf-16"))
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 1: not UTF-8")):
        KnowledgeGraph.read(path)
    zipped = tmp_path / "kb.txt.gz"
    for data in (b"no gzip at all", gzip.compress(b"a\tr\tb\n" * 1000)[:-9]):
        zipped.write_bytes(data)
        with pytest.raises(ValueError, match=re.escape(f"{zipped}: not a whole gzip file")):
            KnowledgeGraph.read(zipped)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'none'} is not a file")):
        KnowledgeGraph.read(path, tmp_path / "none")
    with pytest.raises(ValueError, match="paths must name at least one file"):
        KnowledgeGraph.read()


def test_an_empty_file_is_an_empty_graph(tmp_path: Path) -> None:
    path = tmp_path / "kb.txt"
    for data in (b"", b"\n\r\n\n", b"\xef\xbb\xbf"):
        path.write_bytes(data)
        graph = KnowledgeGraph.read(path)
        assert (graph.num_entities, graph.num_relations, graph.num_edges) == (0, 0, 0)


NT = """<http://x/a> <http://x/r> "Paris"@fr .
# a comment
_:b <http://x/r> <http://x/a> .
<http://x/a> <http://x/s> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .
"""


@pytest.mark.parametrize("suffix", [".nt", ".nt.gz"])
def test_n_triples(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyoxigraph")
    monkeypatch.setattr(readers, "_BATCH", 2)
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        path.write_bytes(gzip.compress(NT.encode()) if suffix.endswith("gz") else NT.encode())
    graph = KnowledgeGraph.read(*paths)
    integer = '"1"^^<http://www.w3.org/2001/XMLSchema#integer>'
    assert list(graph.entity_names) == ["http://x/a", '"Paris"@fr', "_:b", integer, "_:b@2"]
    assert named(graph) == {
        ("http://x/a", "http://x/r", '"Paris"@fr'),
        ("_:b", "http://x/r", "http://x/a"),
        ("http://x/a", "http://x/s", integer),
        ("_:b@2", "http://x/r", "http://x/a"),
    }


def test_broken_n_triples(tmp_path: Path) -> None:
    pytest.importorskip("pyoxigraph")
    path = tmp_path / "kb.nt"
    path.write_text(NT + "<http://x/a> <http://x/r> .\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 5: not N-Triples")):
        KnowledgeGraph.read(path)
    path.write_bytes(b'<http://x/a> <http://x/r> "\xff" .\n')
    with pytest.raises(ValueError, match=re.escape(str(path))):
        KnowledgeGraph.read(path)


@pytest.mark.parametrize(
    "columns", [("tail", "head", "relation"), ("object", "subject", "predicate"), ("c", "a", "b", "d")]
)
def test_parquet(tmp_path: Path, columns: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(readers, "_BATCH", 3)
    triples = [(f"h{i % 4}", f"r{i % 2}", f"ö{i % 3}") for i in range(11)]
    heads, relations, tails = map(list, zip(*triples, strict=True))
    columns_of = {"head": heads, "relation": relations, "tail": tails, "subject": heads, "predicate": relations}
    columns_of |= {"object": tails, "c": heads, "a": relations, "b": tails, "d": list(range(11))}
    data = {name: columns_of[name] for name in columns}
    data[columns[0]] = pyarrow.array(data[columns[0]]).dictionary_encode()
    path = tmp_path / "kb.parquet"
    parquet.write_table(pyarrow.table(data), path)
    graph = KnowledgeGraph.read(path)
    assert list(graph.entity_names) == first_seen(triples)
    assert named(graph) == set(triples)
    parquet.write_table(pyarrow.table({"head": [7], "relation": [1], "tail": [9]}), path)
    assert named(KnowledgeGraph.read(path)) == {("7", "1", "9")}
    parquet.write_table(pyarrow.table({"head": pyarrow.array([], "string"), "r": ["x"] * 0, "t": ["x"] * 0}), path)
    assert KnowledgeGraph.read(path).num_edges == 0


def test_broken_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "kb.parquet"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a Parquet file")):
        KnowledgeGraph.read(path)
    for table, message in (
        ({"head": ["a"], "tail": ["b"]}, "expected the columns head, relation, tail"),
        ({"head": ["a", None], "relation": ["r", "r"], "tail": ["b", "b"]}, ", row 2: the head is empty"),
        ({"head": ["a"], "relation": ["r"], "tail": [""]}, ", row 1: the tail is empty"),
        ({"head": [["a"]], "relation": ["r"], "tail": ["b"]}, ": the head column must hold text, got list"),
    ):
        parquet.write_table(pyarrow.table(table), path)
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
            KnowledgeGraph.read(path)


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".nt", "pyoxigraph", "rdf"), (".parquet", "pyarrow", "parquet")]
)
def test_a_missing_extra_is_named(
    tmp_path: Path, suffix: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"kb{suffix}"
    path.touch()
    with pytest.raises(ImportError, match=re.escape(f"reading {path} needs {module}: pip install 'tercet[{extra}]'")):
        KnowledgeGraph.read(path)
