"""`transe_rank` and `transe_top`: filtered ranks and best entities without a matrix of scores.

Ranks are those of the scores in float64, for tables of either dtype: a fast pass decides what its error bound allows
and the rest is scored again. So they are exact under ties and do not depend on batches, threads or the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tercet.ops import _checks, _native, _ranking_cuda
from tercet.ops._library import define
from tercet.ops.filter_index import FilterIndex, by_end, check_triples, ranges_of
from tercet.ops.reference import ranking as reference
from tercet.ops.translation import NORMS, _scores_cuda, check_pair

if TYPE_CHECKING:
    from tercet.graph.entity_sets import EntitySets


@dataclass(frozen=True)
class Ranks:
    """Ranks of the true head and tail of each triple, counted from 1: [num_triples, 2] each, heads first.

    Attributes:
        optimistic: int64, the rank before all equal rivals.
        pessimistic: int64, the rank behind them.
        num_candidates: int64, how many entities were ranked, the true one included.
    """

    optimistic: Tensor
    pessimistic: Tensor
    num_candidates: Tensor

    @property
    def realistic(self) -> Tensor:
        """The mean of the two, float64: the expected rank where equals are ordered at random."""
        return (self.optimistic + self.pessimistic).double() / 2


def transe_rank(
    entities: Tensor,
    relations: Tensor,
    triples: Tensor,
    *,
    known: FilterIndex | Tensor | None,
    norm: str = "l1",
    candidates: Tensor | tuple[EntitySets, EntitySets] | None = None,
    num_threads: int | None = None,
) -> Ranks:
    """Filtered ranks of the true head and tail of every triple among all entities, by the scores of `transe_score`.

    Rivals are the entities that do not make a known triple. Queries that occur more than once are scored once, and
    nothing of size num_triples x num_entities is stored.

    Args:
        entities: embeddings, float32 or float64 [num_entities, dim], finite.
        relations: the same dtype [num_relations, dim].
        triples: integers [num_triples, 3], (head, relation, tail) each.
        known: a FilterIndex, triples to make one of, or None for raw ranks. Triples need not be among them.
        norm: "l1", "l2" or "dot".
        candidates: which entities are rivals: ids, or (heads, tails) as EntitySets with a row for each relation, e.g.
            of the types that a relation takes; their weights do not matter. None: all.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Returns:
        Ranks [num_triples, 2], in the order (head, tail).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or range, or holds NaN or infinity.

    Example:
        >>> entities, relations = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0]])
        >>> transe_rank(entities, relations, torch.tensor([[0, 0, 2]]), known=None).realistic
        tensor([[2.5000, 2.5000]], dtype=torch.float64)
    """
    op = "transe_rank"
    _check_tables(op, entities, relations, norm)
    check_triples(op, "triples", triples)
    _checks.same(op, "triples", triples, "entities", entities, dtype=False)
    _checks.in_range(op, "triples[:, ::2]", triples[:, ::2], len(entities))
    _checks.in_range(op, "triples[:, 1]", triples[:, 1], len(relations))
    threads = _checks.threads(op, num_threads)
    _check_known(op, known, entities, relations)
    entities, relations = _in_range_of_squares(op, entities.detach(), relations.detach())
    rivals, sizes = _candidates(op, candidates, entities, relations), (len(entities), len(relations))
    ranks = torch.empty(3, len(triples), 2, dtype=torch.int64, device=triples.device)
    for side, tails in enumerate((False, True)):
        order, anchors, kinds, offsets = _queries(triples, len(relations), tails)
        targets = triples[order, 2 if tails else 0].int()
        known_ranges = known_entities = None
        if known is not None:
            known_ranges, known_entities = _known_ranges(
                op, known, sizes, anchors, kinds, tails=tails, num_threads=num_threads
            )
        rival_ranges, rival_entities = (None, None) if rivals is None else rivals[side]
        if rival_ranges is not None:
            rival_ranges = rival_ranges[kinds.long()]
        counts = _rank_counts(entities, relations, anchors, kinds, offsets, targets, known_ranges, known_entities,
                              rival_ranges, rival_entities, norm, tails, threads)  # fmt: skip
        ranks[:, order, side] = torch.stack(counts)
    better, equal, rest = ranks
    return Ranks(better + 1, better + equal + 1, rest + 1)


def _queries(triples: Tensor, num_relations: int, tails: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The distinct queries: (order of the triples by query, anchors int32, relations int32, first target of each)."""
    keys = triples[:, 0 if tails else 2].long() * num_relations + triples[:, 1]
    keys, order = keys.sort(stable=True)
    distinct, counts = torch.unique_consecutive(keys, return_counts=True)
    offsets = torch.zeros(len(distinct) + 1, dtype=torch.int64, device=triples.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    anchors = distinct.div(max(num_relations, 1), rounding_mode="floor")
    return order, anchors.int(), (distinct - anchors * num_relations).int(), offsets


def transe_top(
    queries: Tensor,
    entities: Tensor,
    k: int,
    *,
    norm: str,
    exclude: Tensor | EntitySets | None = None,
    num_threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best entities of each query by the scores of `transe_scores`, without the matrix; not differentiable.

    Args:
        queries: float32 or float64 [batch, dim].
        entities: the same dtype [num_entities, dim].
        k: how many, at most num_entities.
        norm: "l1", "l2" or "dot".
        exclude: what is no answer: one entity for each row, integers [batch], or EntitySets of the batch.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Returns:
        (scores [batch, k] descending, entities int64 [batch, k]), the smaller id first among equals. Where fewer than k
        entities are left, and behind them where scores are NaN, the rest is -inf and -1.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, device, shape or range.

    Example:
        >>> transe_top(torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [2.0]]), 2, norm="l1")
        (tensor([[-1., -2.]]), tensor([[1, 2]]))
    """
    op = "transe_top"
    check_pair(op, queries, entities, norm)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= max(len(entities), 1):
        raise ValueError(f"tercet.{op}: k must be an integer in 1..{len(entities)}, got {k!r}")
    threads = _checks.threads(op, num_threads)
    offsets = members = None
    if exclude is not None:
        offsets, members = _excluded(op, queries, entities, exclude)
    scores, found = _transe_top(queries.detach(), entities.detach(), k, norm, offsets, members, threads)
    return scores, found


def _check_tables(op: str, entities: Tensor, relations: Tensor, norm: str) -> None:
    _checks.choice(op, "norm", norm, NORMS)
    _checks.floating(op, "entities", entities)
    _checks.floating(op, "relations", relations)
    _checks.same(op, "relations", relations, "entities", entities)
    if entities.ndim != 2 or relations.ndim != 2 or entities.shape[1] != relations.shape[1]:
        raise ValueError(
            f"tercet.{op}: entities and relations must be [num_entities, dim] and [num_relations, dim], got"
            f" {list(entities.shape)} and {list(relations.shape)}"
        )


# Beyond these, squares and their sums may overflow: float32 tables are then ranked in float64.
_LARGEST = {torch.float32: 1e15, torch.float64: 1e150}


def _in_range_of_squares(op: str, entities: Tensor, relations: Tensor) -> tuple[Tensor, Tensor]:
    """The tables, contiguous, finite and of a dtype that holds the squares of their values."""
    for name, table in (("entities", entities), ("relations", relations)):
        if not table.numel():
            continue
        lowest, highest = (float(bound) for bound in torch.aminmax(table))
        largest = max(-lowest, highest)
        if not largest < float("inf"):
            row = int((~table.isfinite()).any(1).nonzero()[0])
            value = table[row][~table[row].isfinite()][0].item()
            raise ValueError(f"tercet.{op}: {name} must be finite, got {value} in row {row}")
        if largest > _LARGEST[torch.float64]:
            raise ValueError(f"tercet.{op}: {name} must be within 1e150, got {largest:g}")
        if table.dtype == torch.float32 and largest > _LARGEST[torch.float32]:
            entities, relations = entities.double(), relations.double()
            break
    return entities.contiguous(), relations.contiguous()


def _check_known(op: str, known: FilterIndex | Tensor | None, entities: Tensor, relations: Tensor) -> None:
    sizes = len(entities), len(relations)
    if isinstance(known, Tensor):
        check_triples(op, "known", known)
        _checks.same(op, "known", known, "entities", entities, dtype=False)
        _checks.in_range(op, "known[:, ::2]", known[:, ::2], sizes[0])
        _checks.in_range(op, "known[:, 1]", known[:, 1], sizes[1])
    elif isinstance(known, FilterIndex):
        if (known.num_entities, known.num_relations) != sizes:
            raise ValueError(
                f"tercet.{op}: known must be of {sizes[0]} entities and {sizes[1]} relations, got {known.num_entities}"
                f" and {known.num_relations}"
            )
        if known.device != entities.device:
            raise ValueError(
                f"tercet.{op}: known and entities must be on one device, got {known.device} and {entities.device}"
            )
    elif known is not None:
        raise TypeError(f"tercet.{op}: known must be a FilterIndex, triples or None, got {type(known).__name__}")


def _known_ranges(
    op: str, known: FilterIndex | Tensor, sizes: tuple[int, int], anchors: Tensor, relations: Tensor, *, tails: bool,
    num_threads: int | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `FilterIndex.ranges`; of triples only those are indexed that some query asks for."""
    if isinstance(known, FilterIndex):
        return known.ranges(anchors, relations, tails=tails)
    asked = torch.zeros(sizes[0], dtype=torch.bool, device=anchors.device)
    asked[anchors.long()] = True
    part = known[asked[known[:, 0 if tails else 2].long()]]
    return ranges_of(by_end(op, part, sizes, num_threads, tails=tails), sizes[1], anchors, relations)


Rivals = tuple[Tensor, Tensor]  # ranges int64 [num_relations, 2], entities int32


def _candidates(
    op: str, candidates: Tensor | tuple[EntitySets, EntitySets] | None, entities: Tensor, relations: Tensor
) -> tuple[Rivals, Rivals] | None:
    """The candidates for heads and for tails of each relation."""
    if candidates is None:
        return None
    num_relations = len(relations)
    if isinstance(candidates, Tensor):
        _checks.integers(op, "candidates", candidates)
        _checks.same(op, "candidates", candidates, "entities", entities, dtype=False)
        _checks.in_range(op, "candidates", candidates, len(entities))
        ids = candidates.unique().int()
        ranges = torch.tensor([[0, len(ids)]], device=ids.device).expand(num_relations, 2)
        return (ranges, ids), (ranges, ids)
    if not (isinstance(candidates, tuple) and len(candidates) == 2):
        raise TypeError(f"tercet.{op}: candidates must be ids or (heads, tails), got {type(candidates).__name__}")
    sides = []
    for name, sets in zip(("candidates[0]", "candidates[1]"), candidates, strict=True):
        _checks.entity_sets(op, name, sets)
        _checks.same(op, name, sets.weights, "entities", entities, dtype=False)
        if len(sets) != num_relations or sets.num_entities > len(entities):
            raise ValueError(
                f"tercet.{op}: {name} must have a row for each of {num_relations} relations and entities below"
                f" {len(entities)}, got {len(sets)} rows and entities below {sets.num_entities}"
            )
        sides.append((torch.stack([sets.offsets[:-1], sets.offsets[1:]], dim=1), sets.entities))
    return sides[0], sides[1]


def _excluded(op: str, queries: Tensor, entities: Tensor, exclude: Tensor | EntitySets) -> tuple[Tensor, Tensor]:
    """(offsets, entities) of what to exclude."""
    batch = len(queries)
    if isinstance(exclude, Tensor):
        _checks.integers(op, "exclude", exclude)
        _checks.same(op, "exclude", exclude, "queries", queries, dtype=False)
        _checks.shape(op, "exclude", exclude, (batch,), "[batch]")
        _checks.in_range(op, "exclude", exclude, len(entities))
        return torch.arange(batch + 1, device=exclude.device), exclude.int()
    _checks.entity_sets(op, "exclude", exclude)
    _checks.same(op, "exclude", exclude.weights, "queries", queries, dtype=False)
    if len(exclude) != batch or exclude.num_entities > len(entities):
        raise ValueError(
            f"tercet.{op}: exclude must have the batch of queries = {batch} and entities below {len(entities)}, got"
            f" {len(exclude)} and entities below {exclude.num_entities}"
        )
    return exclude.offsets, exclude.entities


def _rank_counts_cpu(
    entities: Tensor, relations: Tensor, anchors: Tensor, kinds: Tensor, target_offsets: Tensor, targets: Tensor,
    known_ranges: Tensor | None, known_entities: Tensor | None, rival_ranges: Tensor | None,
    rival_entities: Tensor | None, norm: str, tails: bool, num_threads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    cpu, threads = _native.cpu, _native.threads(num_threads)
    tables = [t if t is None else t.contiguous()
              for t in (entities, relations, anchors, kinds, target_offsets, targets,
                        known_ranges, known_entities, rival_ranges, rival_entities)]  # fmt: skip
    code, num_entities, dim = _native.DTYPE_CODES[entities.dtype], *entities.shape
    better, equal, rivals = (torch.zeros(len(targets), dtype=torch.int64) for _ in range(3))
    counts = better.data_ptr(), equal.data_ptr(), rivals.data_ptr()
    exact = torch.empty(len(targets), dtype=torch.float64)
    scratch = torch.empty(cpu.rank_scratch_bytes(code, num_entities, dim, threads), dtype=torch.uint8)
    cpu.rank_counts(code, NORMS.index(norm), tuple(map(_native.pointer, tables)), num_entities, dim, len(anchors),
                    tails, counts, exact.data_ptr(), scratch.data_ptr(), threads)  # fmt: skip
    return better, equal, rivals


def _rank_counts_cuda(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    native = _native.cuda_kernel("rank_counts")
    return reference.rank_counts(*args[:12]) if native is None else _ranking_cuda.rank_counts(native, *args[:12])


def _rank_counts_fake(
    entities: Tensor, relations: Tensor, anchors: Tensor, kinds: Tensor, target_offsets: Tensor, targets: Tensor,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    better, equal, rivals = (targets.new_empty(targets.shape, dtype=torch.int64) for _ in range(3))
    return better, equal, rivals


def _top_cpu(
    queries: Tensor, entities: Tensor, k: int, norm: str, exclude_offsets: Tensor | None,
    exclude_entities: Tensor | None, num_threads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    cpu, threads = _native.cpu, _native.threads(num_threads)
    queries, entities = queries.contiguous(), entities.contiguous()
    code, sizes = _native.DTYPE_CODES[queries.dtype], (len(queries), len(entities), queries.shape[1])
    scores, found = queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
    scratch = torch.empty(cpu.transe_top_scratch_bytes(code, *sizes, k, threads), dtype=torch.uint8)
    cpu.transe_top(code, NORMS.index(norm), queries.data_ptr(), entities.data_ptr(), sizes, k,
                   _native.sets_of(exclude_offsets, exclude_entities), scores.data_ptr(), found.data_ptr(),
                   scratch.data_ptr(), threads)  # fmt: skip
    return scores, found


def _top_cuda(
    queries: Tensor, entities: Tensor, k: int, norm: str, exclude_offsets: Tensor | None,
    exclude_entities: Tensor | None, num_threads: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    def score(queries: Tensor, entities: Tensor) -> Tensor:
        return _scores_cuda(queries, entities, norm, num_threads)

    return _ranking_cuda.transe_top(score, queries, entities, k, exclude_offsets, exclude_entities)


def _top_fake(queries: Tensor, entities: Tensor, k: int, *_: object) -> tuple[Tensor, Tensor]:
    batch = queries.shape[0]
    return queries.new_empty(batch, k), queries.new_empty(batch, k, dtype=torch.int64)


_rank_counts = define(
    "rank_counts(Tensor entities, Tensor relations, Tensor anchors, Tensor kinds, Tensor target_offsets,"
    " Tensor targets, Tensor? known_ranges, Tensor? known_entities, Tensor? rival_ranges, Tensor? rival_entities,"
    " str norm, bool tails, int num_threads) -> (Tensor, Tensor, Tensor)",
    cpu=_rank_counts_cpu,
    cuda=_rank_counts_cuda,
    fake=_rank_counts_fake,
)
_transe_top = define(
    "transe_top(Tensor queries, Tensor entities, int k, str norm, Tensor? exclude_offsets, Tensor? exclude_entities,"
    " int num_threads) -> (Tensor, Tensor)",
    cpu=_top_cpu,
    cuda=_top_cuda,
    fake=_top_fake,
)
