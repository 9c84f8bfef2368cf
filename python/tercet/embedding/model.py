"""TransE: entities and relations as vectors, a relation as the step from head to tail."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.embedding import storage
from tercet.evaluation.ranking import LinkPredictionMetrics, link_prediction_metrics, metrics_by_relation
from tercet.graph.entity_sets import EntitySets
from tercet.graph.vocabulary import Vocabulary
from tercet.ops import _checks
from tercet.ops.filter_index import FilterIndex, check_triples
from tercet.ops.ranking import Ranks, transe_rank, transe_top
from tercet.ops.translation import NORMS, transe_score, transe_scores


@dataclass(frozen=True)
class Prediction:
    """A candidate for the missing entity of a triple.

    Attributes:
        entity: its id.
        name: its name, or None where the model has no names.
        score: of the triple that it makes.
        known: whether that triple is known; None where no known triples were given.
    """

    entity: int
    name: str | None
    score: float
    known: bool | None


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on triples: metrics of all, and of those of each relation that has any, by its id."""

    metrics: LinkPredictionMetrics
    by_relation: dict[int, LinkPredictionMetrics]


class TransE(torch.nn.Module):
    """Scores of triples: -|h + r - t|_1 (l1), -|h + r - t|_2 (l2) or <h + r, t> (dot); higher is better.

    With `inverses` there is a second vector for each relation, of the way from tail to head: heads are then scored and
    ranked as tails of it, that is for l1 and l2 by -|t + r' - h|.

    Args:
        num_entities, num_relations: sizes; relations without their inverses.
        dim: of the vectors.
        norm: "l1", "l2" or "dot".
        inverses: whether relations have inverses of their own.
        dtype: float32 or float64.
        seed: of the first values.
        initial_bound: first values are uniform in -initial_bound .. initial_bound; None: 6 / sqrt(dim) (Bordes et al.
            2013).
        vocabulary: names of the ids, if they have any.

    Attributes:
        entities: parameter [num_entities, dim].
        relations: parameter [num_relations, dim], or [2 num_relations, dim] with inverses: row r + num_relations
            belongs to the inverse of r.

    Raises:
        TypeError, ValueError: an argument is out of range, or the names are not as many as the ids.

    Source:
        Bordes et al.: Translating Embeddings for Modeling Multi-relational Data, NIPS 2013. Inverses: Lacroix et al.:
        Canonical Tensor Decomposition for Knowledge Base Completion, ICML 2018.

    Example:
        >>> from tercet.embedding import TransE
        >>> model = TransE.from_tables(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0]]), norm="l1")
        >>> [p.entity for p in model.predict(head=1, relation=0, k=2)]
        [2, 1]
    """

    entities: torch.nn.Parameter
    relations: torch.nn.Parameter

    def __init__(
        self, num_entities: int, num_relations: int, dim: int, *, norm: str = "l1", inverses: bool = False,
        dtype: torch.dtype = torch.float32, seed: int = 0, initial_bound: float | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:  # fmt: skip
        if min(num_entities, num_relations, dim) < 1:
            raise ValueError(
                "tercet.TransE: num_entities, num_relations and dim must be positive, got"
                f" {num_entities}, {num_relations} and {dim}"
            )
        generator = torch.Generator().manual_seed(seed)
        bound = 6 / dim**0.5 if initial_bound is None else initial_bound
        rows = num_entities, num_relations * (2 if inverses else 1)
        tables = [(2 * torch.rand(n, dim, generator=generator, dtype=dtype) - 1) * bound for n in rows]
        self._set(tables[0], tables[1], norm, inverses, vocabulary)

    def _set(
        self, entities: Tensor, relations: Tensor, norm: str, inverses: bool, vocabulary: Vocabulary | None
    ) -> None:
        super().__init__()
        op = "TransE"
        _checks.choice(op, "norm", norm, NORMS)
        for name, table in (("entities", entities), ("relations", relations)):
            _checks.floating(op, name, table)
            if table.ndim != 2:
                raise ValueError(f"tercet.{op}: {name} must be [num_{name}, dim], got {list(table.shape)}")
        _checks.same(op, "relations", relations, "entities", entities)
        if entities.shape[1] != relations.shape[1]:
            raise ValueError(
                f"tercet.{op}: entities and relations must have one dim, got {entities.shape[1]} and"
                f" {relations.shape[1]}"
            )
        if inverses and len(relations) % 2:
            raise ValueError(f"tercet.{op}: relations must be even in number with inverses, got {len(relations)}")
        self.norm, self.inverses, self.vocabulary = norm, inverses, vocabulary
        self.entities = torch.nn.Parameter(entities.contiguous())
        self.relations = torch.nn.Parameter(relations.contiguous())
        if vocabulary is not None:
            got, sizes = (len(vocabulary.entities), len(vocabulary.relations)), (self.num_entities, self.num_relations)
            if got != sizes:
                raise ValueError(
                    f"tercet.{op}: vocabulary must name {sizes[0]} entities and {sizes[1]} relations, got {got[0]} and"
                    f" {got[1]}"
                )

    @classmethod
    def from_tables(
        cls, entities: Tensor | np.ndarray, relations: Tensor | np.ndarray, *, norm: str, inverses: bool = False,
        vocabulary: Vocabulary | None = None,
    ) -> TransE:  # fmt: skip
        """A model with copies of these tables, [num_entities, dim] and [num_relations, dim], float32 or float64.

        With `inverses` the second half of the relations are the inverses of the first.
        """
        model = cls.__new__(cls)
        tables = [torch.as_tensor(table).detach().clone() for table in (entities, relations)]
        model._set(tables[0], tables[1], norm, inverses, vocabulary)
        return model

    def to_numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of (entities, relations)."""
        entities, relations = (t.detach().cpu().numpy().copy() for t in (self.entities, self.relations))
        return entities, relations

    def save(self, folder: str | PathLike[str]) -> None:
        """Write config.json, model.safetensors and, where there are names, vocabulary.safetensors."""
        storage.save_model(folder, self.entities, self.relations, self.vocabulary, self.settings())

    @classmethod
    def load(cls, folder: str | PathLike[str], *, device: str | torch.device = "cpu") -> TransE:
        """The model that `save` or `train` wrote.

        Raises:
            FileNotFoundError: there is none. ValueError: a file is broken, of another kind or version, or the files do
                not belong together.
        """
        entities, relations, vocabulary, config = storage.load_model(folder)
        norm, inverses = str(config["norm"]), bool(config["inverses"])
        return cls.from_tables(entities, relations, norm=norm, inverses=inverses, vocabulary=vocabulary).to(device)

    def settings(self) -> dict[str, Any]:
        """What the tables do not tell: norm and inverses."""
        return {"norm": self.norm, "inverses": self.inverses}

    @property
    def num_entities(self) -> int:
        """How many entities."""
        return len(self.entities)

    @property
    def num_relations(self) -> int:
        """How many relations, inverses not counted."""
        return len(self.relations) // 2 if self.inverses else len(self.relations)

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return self.entities.shape[1]

    def forward(self, triples: Tensor) -> Tensor:
        """`score_triples`."""
        return self.score_triples(triples)

    def score_triples(self, triples: Tensor) -> Tensor:
        """Scores [num_triples] of (head, relation, tail), integers [num_triples, 3]; differentiable."""
        check_triples("TransE.score_triples", "triples", triples)
        heads, relations, tails = triples.long().unbind(1)
        return transe_score(self.entities[heads], self.relations[relations], self.entities[tails], norm=self.norm)

    def score_tails(self, heads: Tensor, relations: Tensor) -> Tensor:
        """Scores [batch, num_entities] of every tail; integers [batch] each; differentiable."""
        return transe_scores(self._tail_queries(heads, relations), self.entities, norm=self.norm)

    def score_heads(self, relations: Tensor, tails: Tensor) -> Tensor:
        """Scores [batch, num_entities] of every head; integers [batch] each; differentiable."""
        queries, offset = self._head_queries(relations, tails)
        return transe_scores(queries, self.entities, norm=self.norm) + offset[:, None]

    def _tail_queries(self, heads: Tensor, relations: Tensor) -> Tensor:
        return self.entities[heads.long()] + self.relations[relations.long()]

    def _head_queries(self, relations: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
        """What heads are compared to, [batch, dim], and what to add to the scores, [batch]."""
        if self.inverses:
            return self._tail_queries(tails, relations + self.num_relations), self.entities.new_zeros(len(tails))
        targets, steps = self.entities[tails.long()], self.relations[relations.long()]
        if self.norm == "dot":  # <h + r, t> = <t, h> + <t, r>
            return targets, (targets * steps).sum(1)
        return targets - steps, self.entities.new_zeros(len(tails))

    @torch.no_grad()
    def predict(
        self, *, relation: int | str, head: int | str | None = None, tail: int | str | None = None, k: int = 10,
        known: FilterIndex | None = None, include_known: bool = False, num_threads: int | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """The k best tails of a head and a relation, or heads of a relation and a tail; best first.

        Args:
            relation: its id or name.
            head, tail: the id or name of the one that is given.
            k: how many at most.
            known: known triples, which are left out.
            include_known: keep them instead, and say which they are.
            num_threads: CPU threads, default torch's.

        Raises:
            ValueError: an id is out of range, a name unknown, not exactly one of head and tail is given, or k is not
                positive.
        """
        op = "TransE.predict"
        given = [anchor for anchor in (head, tail) if anchor is not None]
        if len(given) != 1:
            raise ValueError(f"tercet.{op}: head and tail: exactly one must be given")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"tercet.{op}: k must be a positive integer, got {k!r}")
        anchor, kind = self._id(op, "entity", given[0]), self._id(op, "relation", relation)
        device = self.entities.device
        anchors, kinds = torch.tensor([anchor], device=device), torch.tensor([kind], device=device)
        if head is not None:
            queries, offset = self._tail_queries(anchors, kinds), self.entities.new_zeros(1)
        else:
            queries, offset = self._head_queries(kinds, anchors)
        members: list[int] = []
        if known is not None:
            found = known.tails(anchor, kind) if head is not None else known.heads(kind, anchor)
            members = found.tolist()
        exclude = None
        if members and not include_known:
            exclude = EntitySets.from_lists([members], dtype=queries.dtype).to(device)
        count = min(k, self.num_entities)
        scores, best = transe_top(queries, self.entities, count, norm=self.norm, exclude=exclude,
                                  num_threads=num_threads)  # fmt: skip
        rows = zip(best[0].tolist(), (scores[0] + offset).tolist(), strict=True)
        names = None if self.vocabulary is None else self.vocabulary.entities
        return [
            Prediction(
                entity,
                None if names is None else names.name(entity),
                score,
                None if known is None else entity in members,
            )
            for entity, score in rows
            if entity >= 0
        ]

    def _id(self, op: str, kind: str, value: int | str) -> int:
        if isinstance(value, str):
            if self.vocabulary is None:
                raise ValueError(f"tercet.{op}: {kind} must be an id, since the model has no names, got {value!r}")
            return self.vocabulary.entity(value) if kind == "entity" else self.vocabulary.relation(value)
        size = self.num_entities if kind == "entity" else self.num_relations
        if not 0 <= value < size:
            raise ValueError(f"tercet.{op}: {kind} must be in 0..{size - 1}, got {value}")
        return value

    def filter_index(self, triples: Tensor, *, num_threads: int | None = None) -> FilterIndex:
        """An index of known triples, integers [num_triples, 3], as `rank` and `evaluate` take it."""
        triples = self.with_inverses(triples) if self.inverses else triples
        index = FilterIndex(
            triples, num_entities=self.num_entities, num_relations=len(self.relations), num_threads=num_threads
        )
        return index.to(self.entities.device)

    def with_inverses(self, triples: Tensor) -> Tensor:
        """The triples, and behind them the inverse (tail, relation + num_relations, head) of each."""
        check_triples("TransE", "triples", triples)
        _checks.in_range("TransE", "triples[:, 1]", triples[:, 1], self.num_relations)
        inverse = triples.flip(1)
        inverse[:, 1] += self.num_relations
        return torch.cat([triples, inverse])

    def rank(self, triples: Tensor, *, known: FilterIndex | Tensor | None, num_threads: int | None = None) -> Ranks:
        """Filtered ranks of the true head and tail of each triple, [num_triples, 2]; memory does not grow with their
        product with the entities, and the result does not depend on threads.

        Args:
            triples: integers [num_triples, 3].
            known: an index from `filter_index`, triples to make one of, or None for raw ranks.
            num_threads: CPU threads, default torch's.
        """
        check_triples("TransE.rank", "triples", triples)
        device = self.entities.device
        triples = triples.to(device)
        if isinstance(known, Tensor):
            known = self.filter_index(known, num_threads=num_threads)
        asked = self.with_inverses(triples) if self.inverses else triples
        ranks = transe_rank(self.entities, self.relations, asked, known=known, norm=self.norm, num_threads=num_threads)
        if not self.inverses:
            return ranks
        # Heads are the tails of inverse relations, which stand behind the tails.
        fields = (ranks.optimistic, ranks.pessimistic, ranks.num_candidates)
        return Ranks(*(field[:, 1].view(2, -1).flip(0).T.contiguous() for field in fields))


def evaluate(
    model: TransE, triples: Tensor, *, known: FilterIndex | Tensor | None, num_threads: int | None = None
) -> Evaluation:
    """How well a model ranks the true heads and tails of triples among all entities.

    Args:
        model: the model.
        triples: integers [num_triples, 3], at least one.
        known: rivals that make one of these triples do not count: triples (usually those of all splits), an index from
            `model.filter_index`, or None.
        num_threads: CPU threads, default torch's; the result does not depend on it.

    Raises:
        ValueError: there are no triples, an id is out of range, or the tables hold NaN or infinity.
    """
    ranks = model.rank(triples, known=known, num_threads=num_threads)
    return Evaluation(link_prediction_metrics(ranks), metrics_by_relation(ranks, triples[:, 1]))
