"""Operations on batches of weighted sets: `intersect`, `union`, `difference`, `count`, `top`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tercet.ops.reference import entity_sets as reference


if TYPE_CHECKING:
    from tercet.graph.entity_sets import EntitySets


def top(sets: EntitySets, k: int) -> EntitySets:
    """The k largest members of each row."""
    index, offsets = reference.top(sets.weights.detach(), sets.offsets, k)
    return sets.trusted(sets.weights[index], offsets, sets.entities[index], sets.num_entities)
