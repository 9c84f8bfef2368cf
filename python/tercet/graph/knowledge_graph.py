"""KnowledgeGraph: triples as CSR by subject, with names and attributes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tercet.graph import checks, convert, storage, update
from tercet.graph.names import Names, ids_of, name_of, names_for
from tercet.graph.readers import Progress, TripleReader, paths_of
from tercet.ops import graph_build
from tercet.ops.graph_build import Csr, Incoming

_TENSORS = ("row_offsets", "relations", "objects", "edge_ids")
_PLAIN = ("num_entities", "num_relations", "has_inverses", "entity_names", "relation_names")


class KnowledgeGraph:
    """Triples (subject, relation, object), each once, by subject. Immutable.

    The edges of subject s are `row_offsets[s]` .. `row_offsets[s + 1]`, sorted by (relation, object). Make one with
    `from_triples`, `read`, `from_pykeen`, `from_pyg` or `load`; the constructor takes finished tensors and checks them.

    Attributes:
        row_offsets: int64 [num_entities + 1].
        relations, objects: int32 [num_edges].
        edge_ids: int64 [num_edges] or None, the first input triple of each edge; an edge and its inverse share it.
        num_entities, num_relations, num_edges: sizes; relations count their inverses where the graph has them.
        has_inverses: whether relation r + num_relations / 2 is the inverse of relation r.
        entity_names, relation_names: `Names` or None; several entities may share a name.
        attributes: name -> numbers [num_entities], read-only.

    Raises:
        TypeError: a dtype is wrong. ValueError: a shape, device or value is wrong; the message names it.

    Example:
        >>> graph = KnowledgeGraph.from_triples([0, 0], [0, 1], [1, 2], num_entities=3, num_relations=2,
        ...     entity_names=["Heat", "Pacino", "1995"], relation_names=["actor", "year"])
        >>> graph.neighbors("Heat")
        [('actor', 'Pacino'), ('year', '1995')]
        >>> graph.with_inverses()
        KnowledgeGraph(entities=3, relations=4, edges=4, inverses=True, named=True, device='cpu')
    """

    __slots__ = ("_cache", "attributes", *_TENSORS, *_PLAIN)

    row_offsets: Tensor
    relations: Tensor
    objects: Tensor
    edge_ids: Tensor | None
    num_entities: int
    num_relations: int
    has_inverses: bool
    entity_names: Names | None
    relation_names: Names | None
    attributes: Mapping[str, Tensor]
    _cache: dict[Any, Any]

    def __init__(
        self,
        row_offsets: Tensor,
        relations: Tensor,
        objects: Tensor,
        num_entities: int,
        num_relations: int,
        *,
        edge_ids: Tensor | None = None,
        has_inverses: bool = False,
        entity_names: Names | Iterable[str] | None = None,
        relation_names: Names | Iterable[str] | None = None,
        attributes: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._set(
            row_offsets=row_offsets,
            relations=relations,
            objects=objects,
            edge_ids=edge_ids,
            num_entities=num_entities,
            num_relations=num_relations,
            has_inverses=has_inverses,
            entity_names=names_for("KnowledgeGraph", "entity_names", entity_names, num_entities),
            relation_names=names_for("KnowledgeGraph", "relation_names", relation_names, num_relations),
            attributes=attributes or {},
        )
        self.validate()

    def _set(self, **fields: Any) -> None:
        fields["attributes"] = MappingProxyType(dict(fields["attributes"]))
        for name, value in {"_cache": {}, **fields}.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"tercet.KnowledgeGraph: {name} cannot be set, a graph is immutable; see `updated`")

    @classmethod
    def trusted(cls, **fields: Any) -> KnowledgeGraph:
        """A graph whose invariants the caller vouches for: nothing is checked. Every field by its name."""
        graph = cls.__new__(cls)
        graph._set(**fields)
        return graph

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_TENSORS, *_PLAIN, "attributes")}

    def _csr(self) -> Csr:
        return Csr(*(None if t is None else t.cpu().contiguous() for t in map(self.__getattribute__, _TENSORS)))  # type: ignore[arg-type]

    def _with_csr(self, csr: Csr, **fields: Any) -> KnowledgeGraph:
        moved = {n: None if t is None else t.to(self.device) for n, t in zip(_TENSORS, csr, strict=True)}
        return self.trusted(**(self._fields() | moved | fields))

    @classmethod
    def from_triples(
        cls,
        heads: Any,
        relations: Any,
        tails: Any,
        *,
        num_entities: int,
        num_relations: int,
        entity_names: Names | Iterable[str] | None = None,
        relation_names: Names | Iterable[str] | None = None,
        attributes: Mapping[str, Tensor] | None = None,
        keep_edge_ids: bool = False,
        num_threads: int | None = None,
    ) -> KnowledgeGraph:
        """A graph from ids: tensors, arrays or sequences of integers [num_triples]; duplicates are merged.

        Takes time linear in triples and entities, and beside inputs and result only scratch for the largest row.
        `keep_edge_ids` keeps which input triple each edge came from, the first among duplicates. The result is the same
        for any `num_threads` (default: torch's setting).

        Raises:
            TypeError: ids are no integers. ValueError: lengths differ, or an id is out of range.
        """
        op = "KnowledgeGraph.from_triples"
        num_entities = checks.size(op, "num_entities", num_entities)
        num_relations = checks.size(op, "num_relations", num_relations)
        csr = graph_build.build(
            op,
            heads,
            relations,
            tails,
            num_entities,
            num_relations,
            keep_edge_ids=keep_edge_ids,
            num_threads=num_threads,
        )
        graph = cls.trusted(
            **csr._asdict(),
            num_entities=num_entities,
            num_relations=num_relations,
            has_inverses=False,
            entity_names=names_for(op, "entity_names", entity_names, num_entities),
            relation_names=names_for(op, "relation_names", relation_names, num_relations),
            attributes=attributes or {},
        )
        checks.check_attributes(op, graph)
        return graph

    @classmethod
    def read(
        cls, *paths: str | os.PathLike[str], keep_edge_ids: bool = False, progress: Progress | None = None
    ) -> KnowledgeGraph:
        """A graph with names from files; names mean the same entity in all of them. Ids follow first appearance.

        Text in UTF-8 has one triple a line, `head TAB relation TAB tail` or `head|relation|tail`, whichever the first
        line is; blank lines are skipped. `.gz` is decompressed on the way. `.nt` and `.nt.gz` are N-Triples (extra
        `rdf`): an IRI is named by itself, a literal by its N-Triples form. `.parquet` (extra `parquet`) has columns
        head, relation, tail or subject, predicate, object, else its first three are taken.

        Args:
            paths: one file or more.
            keep_edge_ids: keep which triple, counted over all files, each edge came from.
            progress: called with (bytes read, bytes in all).

        Raises:
            ValueError: a file cannot be read; the message has its name, the line, and what was expected.
            FileNotFoundError: there is no such file. ImportError: names the extra that is missing.
        """
        reader = TripleReader(paths_of(paths), progress)
        reader.read_all()
        entity_names, relation_names = reader.entities.finish(), reader.relations.finish()
        return cls.from_triples(
            *reader.triples(),
            num_entities=len(entity_names),
            num_relations=len(relation_names),
            entity_names=entity_names,
            relation_names=relation_names,
            keep_edge_ids=keep_edge_ids,
        )

    @classmethod
    def from_pykeen(cls, triples_factory: Any, *, keep_edge_ids: bool = False) -> KnowledgeGraph:
        """A graph from a PyKEEN triples factory, with its ids and, where it has labels, its names.

        Inverses that PyKEEN would create (2r and 2r + 1) are left out; `with_inverses` makes ours, r + R.
        """
        return cls.from_triples(**convert.pykeen(triples_factory), keep_edge_ids=keep_edge_ids)

    @classmethod
    def from_pyg(
        cls,
        data: Any,
        *,
        entity_names: Iterable[str] | None = None,
        relation_names: Iterable[str] | None = None,
        keep_edge_ids: bool = False,
    ) -> KnowledgeGraph:
        """A graph from PyTorch Geometric data with `edge_index` [2, num_triples] and `edge_type` [num_triples]."""
        return cls.from_triples(**convert.pyg(data, entity_names, relation_names), keep_edge_ids=keep_edge_ids)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> KnowledgeGraph:
        """A graph that `save` wrote, memory-mapped and fully checked.

        Raises:
            ValueError: the file is foreign, cut short, of another version, changed or inconsistent; names the cure.
        """
        fields = storage.load(path)
        fingerprint = fields.pop("fingerprint")
        try:
            graph = cls(**fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}; build the graph again with `tercet graph build`") from error
        graph._cache["fingerprint"] = fingerprint
        return graph.to(device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as one safetensors file, under a temporary name until it is whole."""
        storage.save(self._fields() | {"fingerprint": self.fingerprint}, path)

    def with_inverses(self) -> KnowledgeGraph:
        """The graph with an edge (o, r + num_relations, s) for each edge (s, r, o); linear.

        Inverse relations are named like `directed_by⁻¹`. ValueError where the graph has inverses already.
        """
        if self.has_inverses:
            raise ValueError("tercet.with_inverses: the graph must have no inverses yet, and it has")
        if 2 * self.num_relations > graph_build.LIMIT:
            raise ValueError(f"tercet.with_inverses: num_relations must be below 2^30, got {self.num_relations}")
        names = self.relation_names
        if names is not None:
            names = Names.from_strings([*names, *(f"{name}⁻¹" for name in names)])
        csr = graph_build.inverses(self._csr(), self.num_relations)
        return self._with_csr(csr, num_relations=2 * self.num_relations, relation_names=names, has_inverses=True)

    def updated(self, add: Any = None, remove: Any = None) -> KnowledgeGraph:
        """The graph without the triples `remove` and then with the triples `add`, in linear time; ids stay.

        Sets of edges: adding an edge that is there and removing one that is not change nothing, and what is in both is
        there afterwards. In a graph with inverses give forward triples; their inverses follow. Edge ids of added
        triples go on after the largest so far.

        Args:
            add, remove: integers [count, 3] or a sequence of (head, relation, tail), each an id or a name.

        Raises:
            ValueError: an id beyond the graph's sizes, or a name that no or several entities carry.
        """
        return self._with_csr(update.updated(self, self._csr(), add, remove))

    def with_attributes(self, **attributes: Tensor | np.ndarray | Sequence[float]) -> KnowledgeGraph:
        """The graph with these attributes set, numbers [num_entities] each, beside those it has."""
        tensors = {name: torch.as_tensor(value).to(self.device) for name, value in attributes.items()}
        graph = self.trusted(**(self._fields() | {"attributes": {**self.attributes, **tensors}}))
        checks.check_attributes("KnowledgeGraph.with_attributes", graph)
        return graph

    def to(self, device: str | torch.device) -> KnowledgeGraph:
        """The graph with its tensors on `device`; names stay in main memory, where they are looked up."""
        if self.device == torch.device(device):
            return self
        moved = {n: None if t is None else t.to(device) for n, t in zip(_TENSORS, self._raw(), strict=True)}
        attributes = {name: value.to(device) for name, value in self.attributes.items()}
        graph = self.trusted(**(self._fields() | moved | {"attributes": attributes}))
        graph._cache.update({k: v for k, v in self._cache.items() if k in ("fingerprint", "max_degree")})
        return graph

    def _raw(self) -> list[Tensor | None]:
        return [getattr(self, name) for name in _TENSORS]

    @property
    def num_edges(self) -> int:
        """The number of edges, those of inverses included."""
        return self.objects.numel()

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.objects.device

    @property
    def max_degree(self) -> int:
        """The largest number of edges that leave one entity; 0 without entities."""
        if "max_degree" not in self._cache:
            degrees = self.row_offsets.diff()
            self._cache["max_degree"] = int(degrees.max()) if len(degrees) else 0
        return int(self._cache["max_degree"])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over edges, sizes and names: two graphs that share them are the same to a model."""
        if "fingerprint" not in self._cache:
            self._cache["fingerprint"] = storage.identity(self._fields())
        return str(self._cache["fingerprint"])

    def incoming(self, edges: bool = False) -> Incoming:
        """The edges by object, built on first use and kept; `edges` also gives each one's place in the graph.

        Within an object they keep the order of the graph's edges, so sums round as those of a push along them.
        """
        if edges not in self._cache:
            if not edges and True in self._cache:
                return self._cache[True]._replace(edges=None)  # type: ignore[no-any-return]
            built = graph_build.incoming(self._csr(), self.num_relations, edges=edges)
            self._cache[edges] = Incoming(*(None if t is None else t.to(self.device) for t in built))  # type: ignore[arg-type]
            if edges:
                self._cache.pop(False, None)
        return self._cache[edges]  # type: ignore[no-any-return]

    def validate(self) -> KnowledgeGraph:
        """Check every invariant; raises ValueError or TypeError naming the first that fails, else returns the graph."""
        checks.check_graph(self)
        return self

    def find_entity(self, name: str) -> list[int]:
        """The ids of all entities of that name, ascending. ValueError suggests near names when there is none."""
        return ids_of("find_entity", "entity", self.entity_names, name)

    def find_relation(self, name: str) -> int:
        """The id of the relation of that name, the first where several share it. ValueError when there is none."""
        return ids_of("find_relation", "relation", self.relation_names, name)[0]

    def entity_name(self, entity: int) -> str:
        """The name of an entity; its id in digits where the graph has no names."""
        return name_of("entity_name", "entity", self.entity_names, int(entity), self.num_entities)

    def relation_name(self, relation: int) -> str:
        """The name of a relation; its id in digits where the graph has no names."""
        return name_of("relation_name", "relation", self.relation_names, int(relation), self.num_relations)

    def neighbors(self, entity: int | str) -> list[tuple[int, int]] | list[tuple[str, str]]:
        """The edges that leave an entity, as (relation, object): ids for an id, names for a name.

        ValueError where the id is out of range, or where no or several entities carry the name.
        """
        row = update.one_entity(self, entity) if isinstance(entity, str) else int(entity)
        if not 0 <= row < self.num_entities:
            raise ValueError(f"tercet.neighbors: entity must be in 0..{self.num_entities - 1}, got {row}")
        start, stop = self.row_offsets[row : row + 2].tolist()
        pairs = list(zip(self.relations[start:stop].tolist(), self.objects[start:stop].tolist(), strict=True))
        if isinstance(entity, str):
            return [(self.relation_name(relation), self.entity_name(other)) for relation, other in pairs]
        return pairs

    def __repr__(self) -> str:
        attributes = f", attributes={list(self.attributes)}" if self.attributes else ""
        return (
            f"KnowledgeGraph(entities={self.num_entities}, relations={self.num_relations}, edges={self.num_edges},"
            f" inverses={self.has_inverses}, named={self.entity_names is not None}{attributes}, device='{self.device}')"
        )

    def __copy__(self) -> KnowledgeGraph:
        return self

    def __deepcopy__(self, memo: object) -> KnowledgeGraph:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._fields() | {"attributes": dict(self.attributes)},)


def _restored(fields: dict[str, Any]) -> KnowledgeGraph:
    return KnowledgeGraph.trusted(**fields)


def _flatten(graph: KnowledgeGraph) -> tuple[list[Tensor], tuple[Any, ...]]:
    tensors = [getattr(graph, name) for name in _TENSORS[: 3 if graph.edge_ids is None else 4]]
    plain = tuple(getattr(graph, name) for name in _PLAIN)
    return [*tensors, *graph.attributes.values()], (graph.edge_ids is not None, tuple(graph.attributes), plain)


def _unflatten(children: Iterable[Tensor], context: tuple[Any, ...]) -> KnowledgeGraph:
    with_ids, attributes, plain = context
    tensors = list(children)
    count = 4 if with_ids else 3
    fields: dict[str, Any] = dict(zip(_TENSORS, [*tensors[:count], None], strict=False))
    fields["attributes"] = dict(zip(attributes, tensors[count:], strict=True))
    return KnowledgeGraph.trusted(**fields, **dict(zip(_PLAIN, plain, strict=True)))


pytree.register_pytree_node(KnowledgeGraph, _flatten, _unflatten, serialized_type_name="tercet.KnowledgeGraph")
