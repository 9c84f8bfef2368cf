"""Vocabulary: the names of entities and relations, as models keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from tercet.graph.names import Names, ids_of
from tercet.graph.storage import digest


@dataclass(frozen=True)
class Vocabulary:
    """The names of the ids of entities and relations.

    Example:
        >>> vocabulary = Vocabulary.from_strings(["Rome", "Italy"], ["capital_of"])
        >>> vocabulary.entity("Italy"), vocabulary.relation("capital_of")
        (1, 0)
    """

    entities: Names
    relations: Names

    @classmethod
    def from_strings(cls, entities: Iterable[str], relations: Iterable[str]) -> Vocabulary:
        """From names in the order of their ids."""
        op = "Vocabulary"
        return cls(
            Names.from_strings(entities, op=op, argument="entities"),
            Names.from_strings(relations, op=op, argument="relations"),
        )

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over the names and their ids."""
        tensors = {name: tensor for name, tensor in self.tensors().items() if name.endswith((".blob", ".offsets"))}
        return digest(tensors, len(self.entities), len(self.relations))

    def entity(self, name: str) -> int:
        """The id of an entity; ValueError where none or several carry the name."""
        return _single("entity", self.entities, name)

    def relation(self, name: str) -> int:
        """The id of a relation; ValueError where none or several carry the name."""
        return _single("relation", self.relations, name)

    def tensors(self) -> dict[str, Tensor]:
        """All that the names are made of, for a file."""
        found: dict[str, Tensor] = {}
        for kind, names in (("entities", self.entities), ("relations", self.relations)):
            parts = {"blob": names.blob, "offsets": names.offsets, "slots": names.slots, "following": names.following}
            found |= {f"{kind}.{part}": tensor for part, tensor in parts.items() if tensor is not None}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Vocabulary:
        """What `tensors` gave, fully checked. KeyError: a part is missing. ValueError: the parts do not fit."""
        kinds = []
        for kind in ("entities", "relations"):
            blob, offsets, slots = (tensors[f"{kind}.{part}"] for part in ("blob", "offsets", "slots"))
            names = Names(blob, offsets, slots, tensors.get(f"{kind}.following"))
            fault = names.fault()
            if fault is not None:
                raise ValueError(f"the names of {kind}: {fault}")
            kinds.append(names)
        return cls(*kinds)


def _single(kind: str, names: Names, name: str) -> int:
    ids = ids_of("Vocabulary", kind, names, name)
    if len(ids) > 1:
        raise ValueError(f"tercet.Vocabulary: {len(ids)} {kind} ids are named {name!r}: {', '.join(map(str, ids))}")
    return ids[0]
