"""EntitySets: a batch of weighted sets of entities, in memory that follows the members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tercet.ops import _checks
from tercet.ops.reference.traversal import offsets_of, rows_of

_LIMIT = 2**31 - 1


class EntitySets:
    """A batch of weighted sets of entities.

    Row b holds `entities[offsets[b]:offsets[b + 1]]`, ascending and each once, with `weights` beside them. A member may
    weigh 0: it was reached, and gradients flow to it. Entities that are no members weigh 0.

    Args:
        weights: float32 or float64 [num_members], finite and not negative; differentiable.
        offsets: int64 [batch + 1], from 0 to num_members.
        entities: int32 [num_members].
        num_entities: the entities are below it; default: the largest plus one.

    Raises:
        TypeError: a dtype is wrong. ValueError: a shape, device or value is wrong; the message names it.

    Example:
        >>> sets = EntitySets.from_lists([{3: 1.0, 1: 0.5}, {}])
        >>> sets
        EntitySets(batch=2, members=2, dtype=float32, device='cpu')
        >>> sets.to_dense(4)
        tensor([[0.0000, 0.5000, 0.0000, 1.0000],
                [0.0000, 0.0000, 0.0000, 0.0000]])
    """

    __slots__ = ("entities", "num_entities", "offsets", "weights")

    weights: Tensor
    offsets: Tensor
    entities: Tensor
    num_entities: int

    def __init__(
        self,
        weights: Tensor,
        offsets: Tensor,
        entities: Tensor,
        *,
        num_entities: int | None = None,
        _trusted: bool = False,
    ) -> None:
        self.weights, self.offsets, self.entities = weights, offsets, entities
        if num_entities is None:
            num_entities = int(entities.max()) + 1 if isinstance(entities, Tensor) and entities.numel() else 0
        self.num_entities = num_entities
        if not _trusted:
            self.validate()

    @classmethod
    def trusted(cls, weights: Tensor, offsets: Tensor, entities: Tensor, num_entities: int) -> EntitySets:
        """Sets whose invariants the caller vouches for: nothing is checked."""
        return cls(weights, offsets, entities, num_entities=num_entities, _trusted=True)

    @classmethod
    def one_hot(cls, ids: Tensor | Sequence[int], *, weights: Tensor | None = None) -> EntitySets:
        """One entity in each row: ids integers [batch]; weights [batch], default 1 (float32)."""
        ids = _ids("EntitySets.one_hot", ids)
        if weights is None:
            weights = torch.ones(len(ids), device=ids.device)
        _checks.shape("EntitySets.one_hot", "weights", weights, tuple(ids.shape), "[batch]")
        offsets = torch.arange(len(ids) + 1, device=ids.device)
        return cls(weights, offsets, ids.int())

    @classmethod
    def from_lists(
        cls, rows: Iterable[Iterable[int] | dict[int, float]], *, dtype: torch.dtype = torch.float32
    ) -> EntitySets:
        """One row for each collection of ids (weight 1) or dict of id -> weight."""
        entities: list[int] = []
        weights: list[float] = []
        offsets = [0]
        for row in rows:
            members = row if isinstance(row, dict) else dict.fromkeys(row, 1.0)
            for entity in sorted(members):
                entities.append(entity)
                weights.append(members[entity])
            offsets.append(len(entities))
        ids = _ids("EntitySets.from_lists", entities)
        return cls(torch.tensor(weights, dtype=dtype), torch.tensor(offsets), ids.int())

    @classmethod
    def from_dense(cls, dense: Tensor) -> EntitySets:
        """The entries of dense [batch, num_entities] that are not 0; differentiable."""
        _checks.floating("EntitySets.from_dense", "dense", dense)
        if dense.ndim != 2:
            raise ValueError(
                f"tercet.EntitySets.from_dense: dense must be [batch, num_entities], got {list(dense.shape)}"
            )
        rows, entities = (dense != 0).nonzero(as_tuple=True)
        offsets = offsets_of(rows, dense.shape[0])
        return cls(dense[rows, entities], offsets, entities.int(), num_entities=dense.shape[1])

    def to_dense(self, num_entities: int | None = None) -> Tensor:
        """[batch, num_entities], 0 where an entity is no member; differentiable."""
        size = self.num_entities if num_entities is None else num_entities
        if size < self.num_entities:
            raise ValueError(
                f"tercet.EntitySets.to_dense: num_entities must be at least {self.num_entities}, got {size}"
            )
        dense = self.weights.new_zeros(len(self), size)
        return dense.index_put((self.rows(), self.entities.long()), self.weights)

    def validate(self) -> EntitySets:
        """Check every invariant; raises ValueError or TypeError naming the first that fails, else returns the sets."""
        op = "EntitySets"
        _checks.floating(op, "weights", self.weights)
        for name, value, dtype in (("offsets", self.offsets, torch.int64), ("entities", self.entities, torch.int32)):
            if _checks.tensor(op, name, value).dtype != dtype:
                raise TypeError(f"tercet.{op}: {name} must be {dtype}, got {value.dtype}")
            _checks.same(op, name, value, "weights", self.weights, dtype=False)
        for name, value in (("weights", self.weights), ("offsets", self.offsets), ("entities", self.entities)):
            if value.ndim != 1:
                raise ValueError(f"tercet.{op}: {name} must have one dimension, got shape {list(value.shape)}")
        members = len(self.entities)
        _checks.shape(op, "weights", self.weights, (members,), "[num_members]")
        offsets = self.offsets
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != members or bool((offsets.diff() < 0).any()):
            raise ValueError(f"tercet.{op}: offsets must rise from 0 to num_members = {members}")
        if members:
            lowest, highest = int(self.entities.min()), int(self.entities.max())
            if lowest < 0 or highest >= self.num_entities:
                bad = lowest if lowest < 0 else highest
                raise ValueError(f"tercet.{op}: entities must be in 0..{self.num_entities - 1}, got {bad}")
            rows = self.rows()
            unsorted = (self.entities.diff() <= 0) & (rows.diff() == 0)
            if bool(unsorted.any()):
                row = int(rows[int(unsorted.nonzero()[0, 0])])
                raise ValueError(f"tercet.{op}: entities must ascend within a row, each once; row {row} does not")
            weights = self.weights.detach()
            wrong = ~((weights >= 0) & (weights < torch.inf))
            if bool(wrong.any()):
                at = int(wrong.nonzero()[0, 0])
                raise ValueError(
                    f"tercet.{op}: weights must be finite and not negative, got {float(weights[at])} in row"
                    f" {int(rows[at])}"
                )
        return self

    def __len__(self) -> int:
        """The number of rows."""
        return self.offsets.numel() - 1

    def sizes(self) -> Tensor:
        """The number of members of each row, int64 [batch]."""
        return self.offsets.diff()

    def rows(self) -> Tensor:
        """The row of each member, int64 [num_members]."""
        return rows_of(self.offsets)

    def __getitem__(self, rows: slice | int) -> EntitySets:
        """The rows of a slice of step 1, or one row as a batch of one."""
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"tercet.EntitySets: row {rows} of {len(self)}")
            rows = slice(rows % len(self), rows % len(self) + 1)
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"tercet.EntitySets: rows must be a slice of step 1, got step {step}")
        offsets = self.offsets[start : max(stop, start) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self.trusted(self.weights[first:last], offsets - first, self.entities[first:last], self.num_entities)

    @classmethod
    def cat(cls, batches: Sequence[EntitySets]) -> EntitySets:
        """The rows of all batches, one after another."""
        if not batches:
            raise ValueError("tercet.EntitySets.cat: batches must not be empty")
        sizes = torch.cat([sets.sizes() for sets in batches])
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        weights, entities = (torch.cat([getattr(s, name) for s in batches]) for name in ("weights", "entities"))
        return cls.trusted(weights, offsets, entities, max(sets.num_entities for sets in batches))

    def with_weights(self, weights: Tensor) -> EntitySets:
        """The same members with other weights [num_members]."""
        _checks.shape("EntitySets.with_weights", "weights", weights, tuple(self.weights.shape), "[num_members]")
        return self.trusted(weights, self.offsets, self.entities, self.num_entities)

    def scale(self, factors: Tensor | float) -> EntitySets:
        """Every weight times its row's factor: factors [batch] or one number."""
        if isinstance(factors, Tensor) and factors.ndim:
            _checks.shape("EntitySets.scale", "factors", factors, (len(self),), "[batch]")
            factors = factors.index_select(0, self.rows())  # its gradient sums in a fixed order
        return self.with_weights(self.weights * factors)

    def top(self, k: int) -> EntitySets:
        """The k largest members of each row; see `tercet.top`."""
        from tercet.ops.entity_sets import top

        return top(self, k)

    def detach(self) -> EntitySets:
        """The same sets without gradient history."""
        return self.with_weights(self.weights.detach())

    def to(self, *args: Any, **options: Any) -> EntitySets:
        """As `Tensor.to`: a device moves all, a dtype converts the weights."""
        weights = self.weights.to(*args, **options)
        offsets, entities = self.offsets.to(weights.device), self.entities.to(weights.device)
        return self.trusted(weights, offsets, entities, self.num_entities)

    def to_lists(self) -> list[dict[int, float]]:
        """One dict of id -> weight for each row."""
        entities, weights, offsets = self.entities.tolist(), self.weights.tolist(), self.offsets.tolist()
        return [dict(zip(entities[start:stop], weights[start:stop], strict=True)) for start, stop in pairwise(offsets)]

    def __repr__(self) -> str:
        return (
            f"EntitySets(batch={len(self)}, members={len(self.entities)},"
            f" dtype={str(self.weights.dtype).removeprefix('torch.')}, device='{self.weights.device}')"
        )


def _ids(op: str, ids: Tensor | Sequence[int]) -> Tensor:
    """Integers in the range of int32, as a tensor of one dimension."""
    tensor = ids if isinstance(ids, Tensor) else torch.tensor(ids, dtype=torch.int64)
    _checks.integers(op, "ids", tensor)
    if tensor.ndim != 1:
        raise ValueError(f"tercet.{op}: ids must have one dimension, got shape {list(tensor.shape)}")
    if tensor.numel() and not (int(tensor.min()) >= 0 and int(tensor.max()) <= _LIMIT):
        bad = int(tensor.min()) if int(tensor.min()) < 0 else int(tensor.max())
        raise ValueError(f"tercet.{op}: ids must be in 0..{_LIMIT}, got {bad}")
    return tensor


def _flatten(sets: EntitySets) -> tuple[list[Tensor], int]:
    return [sets.weights, sets.offsets, sets.entities], sets.num_entities


def _unflatten(tensors: Iterable[Tensor], num_entities: int) -> EntitySets:
    weights, offsets, entities = tensors
    return EntitySets.trusted(weights, offsets, entities, num_entities)


pytree.register_pytree_node(EntitySets, _flatten, _unflatten, serialized_type_name="tercet.EntitySets")
