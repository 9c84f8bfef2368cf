"""Operations on batches of weighted sets: `intersect`, `union`, `difference`, `count`, `top`.

The ops compute members and positions; weights follow by index_select, whose gradient torch sums in a fixed order. An
absent member weighs 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tercet.ops import _checks, _native, _traversal_cuda
from tercet.ops._library import define
from tercet.ops.reference import entity_sets as reference

if TYPE_CHECKING:
    from tercet.graph.entity_sets import EntitySets

_HOW = ("intersection", "union", "difference")


def intersect(a: EntitySets, b: EntitySets, *, how: str = "min", num_threads: int | None = None) -> EntitySets:
    """The members of both a and b, weighing min(a, b) or a b.

    Args:
        a, b: sets of one batch, dtype and device.
        how: "min" (the gradient of a tie is shared, as by torch.minimum) or "product".
        num_threads: CPU threads, default torch's.

    Raises:
        TypeError, ValueError: a and b do not match, or `how` is unknown.

    Source:
        Sen, Saffari, Oliya: Expanding End-to-End Question Answering on Differentiable Knowledge Graphs with
        Intersection, EMNLP 2021.

    Example:
        >>> a, b = EntitySets.from_lists([{1: 0.5, 2: 0.9}]), EntitySets.from_lists([{2: 0.4, 3: 1.0}])
        >>> intersect(a, b).to_lists()
        [{2: 0.4000000059604645}]
    """
    _checks.choice("intersect", "how", how, ("min", "product"))
    offsets, entities, in_a, in_b = _merged("intersect", a, b, "intersection", num_threads)
    combine = torch.minimum if how == "min" else torch.mul
    weights = combine(a.weights.index_select(0, in_a), b.weights.index_select(0, in_b))
    return a.trusted(weights, offsets, entities, max(a.num_entities, b.num_entities))


def union(a: EntitySets, b: EntitySets, *, how: str = "max", num_threads: int | None = None) -> EntitySets:
    """The members of a or b, weighing max(a, b) or a + b. Arguments and errors as for `intersect`.

    Example:
        >>> a, b = EntitySets.from_lists([{1: 0.5, 2: 1.0}]), EntitySets.from_lists([{2: 0.5, 3: 1.0}])
        >>> union(a, b, how="sum").to_lists()
        [{1: 0.5, 2: 1.5, 3: 1.0}]
    """
    _checks.choice("union", "how", how, ("max", "sum"))
    offsets, entities, in_a, in_b = _merged("union", a, b, "union", num_threads)
    weights = (torch.maximum if how == "max" else torch.add)(_weights_at(a, in_a), _weights_at(b, in_b))
    return a.trusted(weights, offsets, entities, max(a.num_entities, b.num_entities))


def difference(a: EntitySets, b: EntitySets, *, num_threads: int | None = None) -> EntitySets:
    """The members of a that are no members of b, with their weights in a. Arguments and errors as for `intersect`.

    Example:
        >>> a, b = EntitySets.from_lists([{1: 0.5, 2: 1.0}]), EntitySets.from_lists([{2: 0.5}])
        >>> difference(a, b).to_lists()
        [{1: 0.5}]
    """
    offsets, entities, in_a, _ = _merged("difference", a, b, "difference", num_threads)
    return a.trusted(a.weights.index_select(0, in_a), offsets, entities, a.num_entities)


def count(sets: EntitySets) -> Tensor:
    """The sum of each row's weights [batch]: the expected number of members. Differentiable.

    Example:
        >>> count(EntitySets.from_lists([{1: 0.5, 2: 1.0}, {}]))
        tensor([1.5000, 0.0000])
    """
    _checks.entity_sets("count", "sets", sets)
    return sets.weights.new_zeros(len(sets)).index_add(0, sets.rows(), sets.weights)


def top(sets: EntitySets, k: int, *, num_threads: int | None = None) -> EntitySets:
    """The k members of each row with the largest weights, the smaller id first among equals; all where there are fewer.

    The result is a set, so its members ascend by id. Gradients flow to the members that are kept.

    Raises:
        ValueError: k is not a positive integer.

    Example:
        >>> top(EntitySets.from_lists([{1: 0.5, 2: 1.0, 3: 0.5}]), 2).to_lists()
        [{1: 0.5, 2: 1.0}]
    """
    _checks.entity_sets("top", "sets", sets)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"tercet.top: k must be a positive integer, got {k!r}")
    index, offsets = _top(sets.weights.detach(), sets.offsets, k, _checks.threads("top", num_threads))
    return sets.trusted(sets.weights.index_select(0, index), offsets, sets.entities[index], sets.num_entities)


def _merged(
    op: str, a: EntitySets, b: EntitySets, how: str, num_threads: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _checks.entity_sets(op, "a", a)
    _checks.entity_sets(op, "b", b)
    _checks.same(op, "a", a.weights, "b", b.weights)
    if len(a) != len(b):
        raise ValueError(f"tercet.{op}: a and b must have one batch size, got {len(a)} and {len(b)}")
    num_entities = max(a.num_entities, b.num_entities)
    threads = _checks.threads(op, num_threads)
    merged: tuple[Tensor, Tensor, Tensor, Tensor] = _merge(
        a.offsets, a.entities, b.offsets, b.entities, how, num_entities, threads
    )
    return merged


def _weights_at(sets: EntitySets, index: Tensor) -> Tensor:
    """The weights at `index`, 0 where it is -1."""
    padded = torch.cat([sets.weights, sets.weights.new_zeros(1)])
    return padded.index_select(0, torch.where(index < 0, len(sets.weights), index))


def _merge_cpu(
    a_offsets: Tensor, a_entities: Tensor, b_offsets: Tensor, b_entities: Tensor, how: str, num_entities: int,
    num_threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    a, b = _native.sets_of(a_offsets, a_entities), _native.sets_of(b_offsets, b_entities)
    num_threads = _native.threads(num_threads)
    code, offsets = _HOW.index(how), torch.empty_like(a_offsets)
    size = _native.cpu.merge_count(a, b, code, offsets.data_ptr(), num_threads)
    entities = torch.empty(size, dtype=torch.int32)
    in_a, in_b = torch.empty(size, dtype=torch.int64), torch.empty(size, dtype=torch.int64)
    _native.cpu.merge_fill(a, b, code, offsets.data_ptr(), entities.data_ptr(), in_a.data_ptr(), in_b.data_ptr(),
                           num_threads)  # fmt: skip
    return offsets, entities, in_a, in_b


def _merge_cuda(
    a_offsets: Tensor, a_entities: Tensor, b_offsets: Tensor, b_entities: Tensor, how: str, num_entities: int,
    num_threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    native = _native.cuda_kernel("merge")
    if native is None:
        return reference.merge(a_offsets, a_entities, b_offsets, b_entities, how, num_entities)
    device, code, offsets = a_entities.device, _HOW.index(how), torch.empty_like(a_offsets)
    a, b = _native.sets_of(a_offsets, a_entities), _native.sets_of(b_offsets, b_entities)
    sides = (a, b, len(a_entities), len(b_entities))
    with torch.cuda.device(device):
        queue = _traversal_cuda.queue_of(device)
        scratch = torch.empty(native.merge_workspace(queue, sides, code), dtype=torch.uint8, device=device)
        size = native.merge_count(queue, sides, code, offsets.data_ptr(), scratch.data_ptr())
        entities, in_a, in_b = a_entities.new_empty(size), a_offsets.new_empty(size), a_offsets.new_empty(size)
        native.merge_fill(queue, sides, code, entities.data_ptr(), in_a.data_ptr(), in_b.data_ptr(),
                          scratch.data_ptr())  # fmt: skip
    return offsets, entities, in_a, in_b


def _merge_fake(
    a_offsets: Tensor, a_entities: Tensor, b_offsets: Tensor, b_entities: Tensor, how: str, num_entities: int,
    num_threads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    size = torch.library.get_ctx().new_dynamic_size()
    index = a_offsets.new_empty(size), a_offsets.new_empty(size)
    return torch.empty_like(a_offsets), a_entities.new_empty(size), *index


def _top_cpu(weights: Tensor, offsets: Tensor, k: int, num_threads: int) -> tuple[Tensor, Tensor]:
    weights = weights.contiguous()
    kept = torch.zeros_like(offsets)
    torch.cumsum(offsets.diff().clamp(max=k), 0, out=kept[1:])
    order, index = torch.empty(len(weights), dtype=torch.int64), torch.empty(int(kept[-1]), dtype=torch.int64)
    _native.cpu.top_fill(_native.DTYPE_CODES[weights.dtype], weights.data_ptr(), offsets.data_ptr(), len(offsets) - 1,
                         kept.data_ptr(), order.data_ptr(), index.data_ptr(), _native.threads(num_threads))  # fmt: skip
    return index, kept


def _top_cuda(weights: Tensor, offsets: Tensor, k: int, num_threads: int) -> tuple[Tensor, Tensor]:
    return reference.top(weights, offsets, k)


def _top_fake(weights: Tensor, offsets: Tensor, k: int, num_threads: int) -> tuple[Tensor, Tensor]:
    return offsets.new_empty(torch.library.get_ctx().new_dynamic_size()), torch.empty_like(offsets)


_merge = define(
    "merge(Tensor a_offsets, Tensor a_entities, Tensor b_offsets, Tensor b_entities, str how, int num_entities,"
    " int num_threads) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_merge_cpu,
    cuda=_merge_cuda,
    fake=_merge_fake,
)
_top = define(
    "top(Tensor weights, Tensor offsets, int k, int num_threads) -> (Tensor, Tensor)",
    cpu=_top_cpu,
    cuda=_top_cuda,
    fake=_top_fake,
)
