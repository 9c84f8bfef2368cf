"""`FilterIndex`: known triples by head and by tail, for filtered ranking and for negatives that are not known."""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.ops import _checks, _native, graph_build
from tercet.ops.graph_build import Csr


class FilterIndex:
    """Known triples, by head and relation and by tail and relation, for filtered ranking; made once, used often.

    Memory: 16 bytes a triple and 16 an entity. Immutable.

    Args:
        triples: integers [num_triples, 3], (head, relation, tail) each; repeated ones count once.
        num_entities, num_relations: ids are below them.
        num_threads: CPU threads, default torch's.

    Raises:
        TypeError, ValueError: triples are not integers of that shape, or an id is out of range.

    Example:
        >>> known = FilterIndex(torch.tensor([[0, 0, 1], [0, 0, 2]]), num_entities=3, num_relations=1)
        >>> len(known), known.tails(0, 0).tolist(), known.heads(0, 2).tolist()
        (2, [1, 2], [0])
    """

    __slots__ = ("by_head", "by_tail", "num_entities", "num_relations")

    def __init__(
        self, triples: Tensor, *, num_entities: int, num_relations: int, num_threads: int | None = None
    ) -> None:
        check_triples("FilterIndex", "triples", triples)
        self.num_entities, self.num_relations = num_entities, num_relations
        self.by_head, self.by_tail = (
            by_end("FilterIndex", triples, (num_entities, num_relations), num_threads, tails=tails)
            for tails in (True, False)
        )

    @property
    def device(self) -> torch.device:
        """Where the index lies."""
        return self.by_head.objects.device

    def __len__(self) -> int:
        return len(self.by_head.objects)

    def __repr__(self) -> str:
        return f"FilterIndex({len(self)} triples, num_entities={self.num_entities}, num_relations={self.num_relations})"

    def to(self, device: str | torch.device) -> FilterIndex:
        """The index on a device."""
        moved = object.__new__(FilterIndex)
        moved.num_entities, moved.num_relations = self.num_entities, self.num_relations
        moved.by_head, moved.by_tail = _moved(self.by_head, device), _moved(self.by_tail, device)
        return moved

    def tails(self, head: int, relation: int) -> Tensor:
        """The known tails of a head and a relation, ascending."""
        return self._entities(head, relation, tails=True)

    def heads(self, relation: int, tail: int) -> Tensor:
        """The known heads of a relation and a tail, ascending."""
        return self._entities(tail, relation, tails=False)

    def _entities(self, anchor: int, relation: int, *, tails: bool) -> Tensor:
        _checks.in_range("FilterIndex", "tail" if not tails else "head", torch.tensor(anchor), self.num_entities)
        _checks.in_range("FilterIndex", "relation", torch.tensor(relation), self.num_relations)
        ids = torch.tensor([anchor, relation], dtype=torch.int32, device=self.device)
        ranges, entities = self.ranges(ids[:1], ids[1:], tails=tails)
        first, last = ranges[0].tolist()
        return entities[first:last].long()

    def ranges(self, anchors: Tensor, relations: Tensor, *, tails: bool) -> tuple[Tensor, Tensor]:
        """Where the known entities of queries stand: (int64 [num_queries, 2], int32 entities), rows ascending.

        Args:
            anchors: int32 [num_queries], heads (`tails`) or tails; trusted to be in range.
            relations: int32 [num_queries].
            tails: whether the tails of the heads are asked for, or the heads of the tails.
        """
        return ranges_of(self.by_head if tails else self.by_tail, self.num_relations, anchors, relations)


def ranges_of(csr: Csr, num_relations: int, subjects: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges of each (subject, relation) stand, int64 [num_queries, 2], and the objects of all edges."""
    if subjects.device.type == "cpu":
        found = torch.empty(len(subjects), 2, dtype=torch.int64)
        subjects, relations = subjects.contiguous(), relations.contiguous()
        args = graph_build.graph_args(csr, num_relations)
        _native.cpu.known_ranges(args, subjects.data_ptr(), relations.data_ptr(), len(subjects), found.data_ptr())
        return found, csr.objects
    keys = torch.repeat_interleave(csr.row_offsets.diff()) * num_relations + csr.relations
    wanted = subjects.long() * num_relations + relations
    return torch.stack([torch.searchsorted(keys, wanted + side) for side in (0, 1)], dim=1), csr.objects


def by_end(op: str, triples: Tensor, sizes: tuple[int, int], num_threads: int | None, *, tails: bool) -> Csr:
    """Triples by (head, relation), or by (tail, relation), on their device."""
    heads, relations, objects = triples.unbind(1)
    ends = (heads, relations, objects) if tails else (objects, relations, heads)
    csr = graph_build.build(op, *ends, *sizes, num_threads=num_threads)
    return _moved(csr, triples.device)


def _moved(csr: Csr, device: str | torch.device) -> Csr:
    return Csr(*(None if t is None else t.to(device) for t in csr))  # type: ignore[arg-type]


def check_triples(op: str, name: str, triples: Tensor) -> None:
    """Integers [num_triples, 3]."""
    _checks.integers(op, name, triples)
    if triples.ndim != 2 or triples.shape[1] != 3:
        raise ValueError(f"tercet.{op}: {name} must be [num_triples, 3], got {list(triples.shape)}")
