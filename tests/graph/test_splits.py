"""Splits from directories and graph files: ids, what is unseen, and every fault by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grids import grid, write
from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.graph.splits import Unseen, read_splits, split_graph


def directory(folder: Path, **texts: str) -> Path:
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(texts.get(split, "a\tr\tb\n"), encoding="utf-8")
    return folder


def test_ids_follow_first_appearance_over_train_valid_test(tmp_path: Path) -> None:
    folder = directory(
        tmp_path, train="b\tr\ta\na\ts\tb\n", valid="a\tq\tnew\n\nb\tr\ta\n", test="other\tr\tnew\nb\tp\ta\n"
    )
    splits = read_splits(folder)
    assert list(splits.vocabulary.entities) == ["b", "a", "new", "other"]
    assert list(splits.vocabulary.relations) == ["r", "s", "q", "p"]
    assert splits.train.tolist() == [[0, 0, 1], [1, 1, 0]]
    assert splits.valid.tolist() == [[1, 2, 2], [0, 0, 1]]
    assert splits.test.tolist() == [[3, 0, 2], [0, 3, 1]]
    assert {getattr(splits, split).dtype for split in ("train", "valid", "test")} == {torch.int64}
    assert (splits.num_entities, splits.num_relations) == (4, 4)
    assert splits.known.tolist() == [*splits.train.tolist(), *splits.valid.tolist(), *splits.test.tolist()]


def test_what_train_lacks_is_kept_and_counted(tmp_path: Path) -> None:
    folder = directory(
        tmp_path, train="a\tr\tb\n", valid="a\tr\tnew\nnew\tr\tb\na\tr\tb\n", test="x\tq\ty\nb\tq\ta\nx\tr\tb\n"
    )
    splits = read_splits(folder)
    assert splits.unseen("train") == Unseen(0, 0, 0)
    assert splits.unseen("valid") == Unseen(entities=1, relations=0, triples=2)
    assert splits.unseen("test") == Unseen(entities=2, relations=1, triples=3)
    assert (len(splits.valid), len(splits.test)) == (3, 3)


def test_the_fingerprint_tells_names_and_training_triples_apart(tmp_path: Path) -> None:
    first = read_splits(directory(tmp_path, test="b\tr\ta\n"))
    same = read_splits(directory(tmp_path, test="b\tr\tb\n"))
    assert first.fingerprint == same.fingerprint
    assert first.vocabulary.fingerprint == same.vocabulary.fingerprint
    other = read_splits(directory(tmp_path, train="a\tr\tb\nb\tr\ta\n"))
    assert other.fingerprint != first.fingerprint
    assert other.vocabulary.fingerprint == first.vocabulary.fingerprint
    assert read_splits(directory(tmp_path, valid="a\tr\tc\n")).vocabulary.fingerprint != first.vocabulary.fingerprint


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"valid": ""}, r"valid\.txt: expected triples, got an empty file"),
        ({"train": "\n\n"}, r"train\.txt: expected triples, got an empty file"),
        ({"test": "a\tr\tb\na\tr\n"}, r"test\.txt, line 2: expected 3 fields \(head, relation, tail\)"),
        ({"train": "a\tr\tb\na\t\tb\n"}, r"train\.txt, line 2: expected a relation, got an empty field"),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_splits(directory(tmp_path, **texts))


def test_missing_files_are_named(tmp_path: Path) -> None:
    (directory(tmp_path) / "valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid\.txt: there is no such file"):
        read_splits(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing: expected a directory with train\.txt"):
        read_splits(tmp_path / "nothing")
    (tmp_path / "text").write_text("a\tr\tb\n")
    with pytest.raises(ValueError, match="not a graph file"):
        read_splits(tmp_path / "text")


def graph(num_triples: int, *, named: bool = True) -> KnowledgeGraph:
    generator = torch.Generator().manual_seed(0)
    columns = (torch.randint(size, (num_triples,), generator=generator) for size in (30, 3, 30))
    names = {"entity_names": [f"e{i}" for i in range(30)], "relation_names": ["p", "q", "r"]} if named else {}
    return KnowledgeGraph.from_triples(*columns, num_entities=30, num_relations=3, **names)


def test_a_graph_is_divided_by_its_seed(tmp_path: Path) -> None:
    whole = graph(400)
    whole.save(tmp_path / "kb")
    splits = read_splits(tmp_path / "kb", seed=3)
    parts = [len(splits.train), len(splits.valid), len(splits.test)]
    assert sum(parts) == whole.num_edges
    assert parts[1] == parts[2] == whole.num_edges // 20
    assert len(splits.known.unique(dim=0)) == whole.num_edges
    again, other = read_splits(tmp_path / "kb", seed=3), read_splits(tmp_path / "kb", seed=4)
    assert torch.equal(again.test, splits.test)
    assert not torch.equal(other.test, splits.test)
    assert list(splits.vocabulary.entities) == [f"e{i}" for i in range(30)]
    subjects = torch.repeat_interleave(whole.row_offsets.diff()).tolist()
    edges = set(zip(subjects, whole.relations.tolist(), whole.objects.tolist(), strict=True))
    assert {tuple(triple) for triple in splits.known.tolist()} == edges


def test_inverses_of_a_graph_are_left_out() -> None:
    plain, doubled = split_graph(graph(200)), split_graph(graph(200).with_inverses())
    assert plain.num_relations == doubled.num_relations == 3
    assert list(doubled.vocabulary.relations) == ["p", "q", "r"]
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(plain, split), getattr(doubled, split))


def test_a_graph_without_names_is_named_by_its_ids() -> None:
    splits = split_graph(graph(100, named=False))
    assert list(splits.vocabulary.entities) == [str(i) for i in range(30)]
    assert list(splits.vocabulary.relations) == ["0", "1", "2"]


def test_a_graph_too_small_to_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="graph must have at least 3 edges to divide, got 2"):
        split_graph(KnowledgeGraph.from_triples([0, 1], [0, 0], [1, 0], num_entities=2, num_relations=1))
    assert len(split_graph(graph(3)).train) == 1


def test_written_splits_are_read_back(tmp_path: Path) -> None:
    splits = grid()
    write(tmp_path / "grid", splits)
    read = read_splits(tmp_path / "grid")
    for split in ("train", "valid", "test"):
        told = [
            [
                (data.vocabulary.entities[h], data.vocabulary.relations[r], data.vocabulary.entities[t])
                for h, r, t in getattr(data, split).tolist()
            ]
            for data in (splits, read)
        ]
        assert told[0] == told[1]


def test_real_splits_have_their_published_sizes(data: Path) -> None:
    umls = read_splits(data / "kge" / "UMLS")
    assert (umls.num_entities, umls.num_relations) == (135, 46)
    assert [len(umls.train), len(umls.valid), len(umls.test)] == [5216, 652, 661]
    assert umls.unseen("test") == Unseen(0, 0, 0)
    freebase = read_splits(data / "kge" / "FB15k-237")
    assert [len(freebase.train), len(freebase.valid), len(freebase.test)] == [272115, 17535, 20466]
    assert (freebase.unseen("valid").triples, freebase.unseen("test").triples) == (9, 28)
