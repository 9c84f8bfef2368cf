"""Scratch of `follow` on the CPU: what workers sum in, and room for results whose size is not known yet.

The push sums each row in an accumulator of size num_entities, one for each worker. This file owns them: a thread keeps
its last ones from call to call, since cleaning them anew would cost more than a small hop, and `release_scratch` frees
them. Frontiers of few edges, and graphs whose accumulator exceeds the budget, are sorted instead and need none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from tercet.ops import _native

# Below this many edges in every row, sorting a row's edges beats sums over all entities.
_FEW_EDGES = 512


class _Kept(threading.local):
    """The accumulators of this thread's last call, by dtype: (num_entities, workers, memory)."""

    def __init__(self) -> None:
        self.accumulators: dict[torch.dtype, tuple[int, int, Tensor]] = {}


_kept = _Kept()


def _accumulators(num_entities: int, dtype: torch.dtype, workers: int) -> Tensor:
    """Clean accumulators for so many workers; kernels leave them clean."""
    kept_entities, kept_workers, memory = _kept.accumulators.get(dtype, (-1, 0, torch.empty(0)))
    if kept_entities != num_entities or kept_workers < workers:
        size = _native.cpu.follow_accumulator_bytes(num_entities, dtype.itemsize)
        memory = torch.empty(workers * size, dtype=torch.uint8)
        _native.cpu.follow_scratch_clean(_native.DTYPE_CODES[dtype], memory.data_ptr(), num_entities, workers)
        _kept.accumulators[dtype] = (num_entities, workers, memory)
    return memory


def release_scratch() -> None:
    """Free the accumulators that this thread keeps between calls of `follow`."""
    _kept.accumulators.clear()


class Scratch:
    """Scratch of the push and of the backward for a batch: accumulators, or room to sort where few edges need it."""

    def __init__(
        self, num_entities: int, dtype: torch.dtype, batch: int, max_edges: int, threads: int, budget: int
    ) -> None:
        few = max_edges <= _FEW_EDGES
        accumulator = 0 if few else _native.cpu.follow_accumulator_bytes(num_entities, dtype.itemsize)
        if few or (accumulator > budget and max_edges < 2**32):
            sorting = _native.cpu.follow_sorting_bytes(max_edges, dtype.itemsize)
            workers = max(1, min(threads, batch, budget // max(sorting, 1)))
            self.memory = torch.empty(workers * sorting, dtype=torch.uint8)
            self.args = (0, self.memory.data_ptr(), workers)
        else:
            workers = max(1, min(threads, batch, budget // accumulator))
            self.memory = _accumulators(num_entities, dtype, workers)
            self.args = (self.memory.data_ptr(), 0, workers)


def row_chunks(bounds: Tensor, room: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """(first row, last row, room in members) of chunks whose results have room in the budget, one row at least."""
    batch = bounds.numel() - 1
    if room <= budget:
        yield 0, batch, room
        return
    first = 0
    while first < batch:
        last = int(torch.searchsorted(bounds, bounds[first] + budget, right=True)) - 1
        last = min(max(last, first + 1), batch)
        yield first, last, int(bounds[last] - bounds[first])
        first = last


def join(parts: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The parts one after another; each is freed once it is copied, so that little more than the result is held."""
    if len(parts) == 1:
        return parts[0][1], parts[0][0]
    size = sum(len(entities) for entities, _ in parts)
    weights, entities = torch.empty(size, dtype=dtype), torch.empty(size, dtype=torch.int32)
    start = 0
    for position, (part_entities, part_weights) in enumerate(parts):
        stop = start + len(part_entities)
        entities[start:stop], weights[start:stop] = part_entities, part_weights
        parts[position] = (entities, weights)
        start = stop
    return weights, entities
