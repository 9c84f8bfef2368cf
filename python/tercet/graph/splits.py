"""Triples in three splits: to learn from, to validate on and to test on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.graph.names import Names
from tercet.graph.readers import TripleReader
from tercet.graph.storage import digest
from tercet.graph.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")
_HELD_OUT = 20  # one in so many triples of a graph, for valid and for test each


@dataclass(frozen=True)
class Unseen:
    """What a split holds that training triples do not: how many entities and relations, and triples with any."""

    entities: int
    relations: int
    triples: int


@dataclass(frozen=True)
class Splits:
    """Triples (head, relation, tail) in three splits, and the names of their ids.

    Attributes:
        train, valid, test: int64 [num_triples, 3].
        vocabulary: the names.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    vocabulary: Vocabulary

    @property
    def num_entities(self) -> int:
        """How many entities there are, in all splits."""
        return len(self.vocabulary.entities)

    @property
    def num_relations(self) -> int:
        """How many relations there are, in all splits."""
        return len(self.vocabulary.relations)

    @property
    def known(self) -> Tensor:
        """The triples of all splits, int64 [num_triples, 3]."""
        return torch.cat([self.train, self.valid, self.test])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over the training triples and the names."""
        return digest({"train": self.train}, self.vocabulary.fingerprint)

    def unseen(self, split: str) -> Unseen:
        """What `split` ("valid" or "test") holds that no training triple does; such triples are kept."""
        triples: Tensor = getattr(self, split)
        new = torch.zeros_like(triples, dtype=torch.bool)
        counts = []
        for columns, size in (([0, 2], self.num_entities), ([1], self.num_relations)):
            seen = torch.zeros(size, dtype=torch.bool)
            seen[self.train[:, columns].ravel()] = True
            new[:, columns] = ~seen[triples[:, columns]]
            counts.append(len(triples[:, columns][new[:, columns]].unique()))
        return Unseen(counts[0], counts[1], int(new.any(1).sum()))


def read_splits(path: str | os.PathLike[str], *, seed: int = 0) -> Splits:
    """Splits from a directory with train.txt, valid.txt and test.txt, or from a graph file.

    A line of a file is `head TAB relation TAB tail` (or with `|` between). Ids follow first appearance: in train, then
    valid, then test, the head before the tail. Triples with entities or relations that train lacks are kept; see
    `Splits.unseen`.

    The edges of a graph file, inverses left out, are divided at random: a twentieth to valid, a twentieth to test, the
    rest to train. Ids stay the graph's.

    Args:
        path: the directory, or the file that `tercet graph build` wrote.
        seed: of the division of a graph's edges.

    Raises:
        FileNotFoundError: there is no such path, or a file of the directory is missing.
        ValueError: a file cannot be read (names file and line), or a split is empty.
    """
    path = Path(path)
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a directory with train.txt, valid.txt and test.txt, or a graph file")
    return split_graph(KnowledgeGraph.load(path), seed=seed)


def split_graph(graph: KnowledgeGraph, *, seed: int = 0) -> Splits:
    """A graph's edges, inverses left out, divided at random by `seed`: 90 % train, 5 % valid, 5 % test.

    Raises:
        ValueError: there are fewer than three edges.
    """
    graph = graph.to("cpu")
    num_relations = graph.num_relations // 2 if graph.has_inverses else graph.num_relations
    subjects = torch.repeat_interleave(graph.row_offsets.diff())
    triples = torch.stack([subjects, graph.relations.long(), graph.objects.long()], dim=1)
    triples = triples[triples[:, 1] < num_relations]
    if len(triples) < len(SPLITS):
        raise ValueError(f"tercet.split_graph: graph must have at least 3 edges to divide, got {len(triples)}")
    held_out = max(1, len(triples) // _HELD_OUT)
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(seed))
    # The graph's own order within a split: neighbours in memory stay neighbours.
    parts = [triples[rows.sort().values] for rows in order.tensor_split([held_out, 2 * held_out])]
    names = [
        Names.from_strings(map(str, range(size))) if given is None else given
        for given, size in ((graph.entity_names, graph.num_entities), (graph.relation_names, graph.num_relations))
    ]
    if graph.has_inverses:
        names[1] = Names.from_strings(names[1][:num_relations])
    return Splits(parts[2], parts[0], parts[1], Vocabulary(*names))


def _read_directory(folder: Path) -> Splits:
    paths = [folder / f"{split}.txt" for split in SPLITS]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file; a directory of splits holds train, valid and test")
    reader = TripleReader(paths)
    reader.read_all()
    sizes = torch.tensor([0, *reader.ends]).diff().tolist()
    for path, size in zip(paths, sizes, strict=True):
        if not size:
            raise ValueError(f"{path}: expected triples, got an empty file")
    triples = torch.stack(reader.triples(), dim=1).long()
    train, valid, test = triples.split(sizes)
    return Splits(train, valid, test, Vocabulary(reader.entities.finish(), reader.relations.finish()))
