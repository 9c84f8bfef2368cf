"""PyKEEN on tercet's kernels: an evaluator and a TransE for its pipeline, and tables in and out of its models.

    pipeline(dataset="fb15k237", model=TercetTransE, evaluator=TercetRankBasedEvaluator, ...)

Importing this module also registers the two by name: pipeline(model="tercettranse", evaluator="tercetrankbased").
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tercet.ops import _checks
from tercet.ops.filter_index import FilterIndex
from tercet.ops.ranking import transe_rank
from tercet.ops.translation import transe_score, transe_scores

try:
    from pykeen.evaluation import RankBasedEvaluator, RankBasedMetricResults, evaluator_resolver
    from pykeen.evaluation.evaluator import prepare_filter_triples
    from pykeen.models import ERModel, TransE, model_resolver
    from pykeen.nn import Embedding
    from pykeen.nn.modules import TransEInteraction, interaction_resolver
    from pykeen.triples import KGInfo
    from pykeen.triples.triples_factory import restrict_triples
    from pykeen.typing import LABEL_HEAD, LABEL_TAIL, RANK_OPTIMISTIC, RANK_PESSIMISTIC, RANK_REALISTIC
    from pykeen.utils import NoRandomSeedNecessary
except ImportError as error:
    raise ImportError("tercet.integrations.pykeen needs PyKEEN: pip install 'tercet[pykeen]'") from error

__all__ = ["Tables", "TercetRankBasedEvaluator", "TercetTransE", "TercetTransEInteraction", "from_pykeen", "to_pykeen"]

logger = logging.getLogger(__name__)

_NORMS = {1: "l1", 2: "l2"}
_SIDES = (LABEL_HEAD, LABEL_TAIL)  # in the order of the columns of Ranks
# What decides the scores of a model; one that has its own is no TransE, whatever its interaction is.
_SCORING = ("predict", "predict_h", "predict_t", "score_h", "score_t", "score_h_inverse", "_get_representations",
            "_get_entity_representations_from_inductive_mode")  # fmt: skip


class TercetTransEInteraction(TransEInteraction):  # type: ignore[misc]
    """PyKEEN's TransEInteraction on `transe_score` and `transe_scores`.

    Scores of every pair of queries and entities (or relations) are computed without the differences that PyKEEN lays
    out, of size batch x num_entities x dim. Norms other than 1 and 2, and dtypes other than float32 and float64, are
    PyKEEN's.

    ---
    citation:
        author: Bordes
        year: 2013
        link: http://papers.nips.cc/paper/5071-translating-embeddings-for-modeling-multi-relational-data.pdf
    """

    def forward(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """Scores of representations [..., dim] that broadcast: [...]."""
        if self.p not in _NORMS or h.dtype not in _checks.VALUE_DTYPES:
            theirs: Tensor = super().forward(h, r, t)
            return theirs
        scores = _scores(h, r, t, _NORMS[self.p])
        return -scores.square() if self.power_norm and self.p == 2 else scores


def _scores(h: Tensor, r: Tensor, t: Tensor, norm: str) -> Tensor:
    """-|h + r - t|, without laying out what broadcasts where queries [B, 1, dim] meet rows [1, N, dim]."""
    for rows, others in ((t, (h, r)), (h, (t, r)), (r, (t, h))):
        laid_out = rows.ndim == 3 and rows.shape[0] == 1 and all(x.ndim == 3 and x.shape[1] == 1 for x in others)
        if laid_out:
            query = h + r if rows is t else others[0] - others[1]
            return transe_scores(query.squeeze(1), rows.squeeze(0), norm=norm)
    return transe_score(h, r, t, norm=norm)


class TercetTransE(TransE):  # type: ignore[misc]
    """PyKEEN's TransE, scored by `TercetTransEInteraction`.

    Its parameters, options, names of weights and results (up to rounding) are those of pykeen.models.TransE.

    ---
    citation:
        author: Bordes
        year: 2013
        link: http://papers.nips.cc/paper/5071-translating-embeddings-for-modeling-multi-relational-data.pdf
    """

    def __init__(self, *, scoring_fct_norm: int = 1, power_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(scoring_fct_norm=scoring_fct_norm, power_norm=power_norm, **kwargs)
        self.interaction = TercetTransEInteraction(p=scoring_fct_norm, power_norm=power_norm)


class Tables(NamedTuple):
    """What a TransE is made of.

    Attributes:
        entities: float32 or float64 [num_entities, dim].
        relations: the same dtype [num_relations, dim]; of a model with inverse triples, relation r stands in row 2 r
            and its inverse in row 2 r + 1.
        norm: "l1" or "l2".
    """

    entities: Tensor
    relations: Tensor
    norm: str


def from_pykeen(model: Any) -> Tables:
    """Copies of the tables that a TransE of PyKEEN scores with, after its normalizers; it is left in evaluation mode.

    Args:
        model: pykeen.models.TransE, TercetTransE, or an ERModel with their interaction.

    Raises:
        TypeError: the model is no TransE with norm 1 or 2.

    Example:
        >>> from pykeen.models import TransE
        >>> from pykeen.datasets import Nations
        >>> entities, relations, norm = from_pykeen(TransE(triples_factory=Nations().training, random_seed=0))
        >>> list(entities.shape), list(relations.shape), norm
        ([14, 50], [55, 50], 'l1')
    """
    reason = _why_not_transe(model)
    if reason is not None:
        raise TypeError(f"tercet.from_pykeen: model must be a TransE of PyKEEN with norm 1 or 2, got {reason}")
    tables = _tables(model)
    return Tables(tables.entities.clone(), tables.relations.clone(), tables.norm)


def to_pykeen(entities: Any, relations: Any, *, norm: str, inverse_triples: bool = False) -> TercetTransE:
    """A PyKEEN model of tables, to predict, evaluate or train on; they are copied and not constrained.

    Args:
        entities: tensor or array, float32 or float64 [num_entities, dim].
        relations: the same dtype [num_relations, dim].
        norm: "l1" or "l2"; PyKEEN has no TransE with inner products.
        inverse_triples: whether the rows of relations are relation 0, its inverse, relation 1, its inverse, ...

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype or shape.

    Example:
        >>> model = to_pykeen([[0.0, 1.0], [2.0, 2.0]], [[1.0, 1.0]], norm="l1")
        >>> model.predict_hrt(torch.tensor([[0, 0, 1]])).tolist()
        [[-1.0]]
    """
    op = "to_pykeen"
    _checks.choice(op, "norm", norm, tuple(_NORMS.values()))
    entities, relations = (torch.as_tensor(table).detach().clone() for table in (entities, relations))
    _checks.floating(op, "entities", entities)
    _checks.floating(op, "relations", relations)
    _checks.same(op, "relations", relations, "entities", entities)
    if entities.ndim != 2 or relations.ndim != 2 or entities.shape[1] != relations.shape[1]:
        raise ValueError(
            f"tercet.{op}: entities and relations must be [num_entities, dim] and [num_relations, dim], got"
            f" {list(entities.shape)} and {list(relations.shape)}"
        )
    num_relations = len(relations)
    if inverse_triples:
        if num_relations % 2:
            raise ValueError(f"tercet.{op}: relations must have an even number of rows, got {num_relations}")
        num_relations //= 2
    model = TercetTransE(
        triples_factory=KGInfo(len(entities), num_relations, create_inverse_triples=inverse_triples),
        embedding_dim=entities.shape[1],
        scoring_fct_norm=1 if norm == "l1" else 2,
        entity_constrainer=None,
        random_seed=NoRandomSeedNecessary,
    )
    model.load_state_dict(dict(zip(model.state_dict(), (entities, relations), strict=True)), assign=True)
    model.requires_grad_()
    return model


def _why_not_transe(model: Any) -> str | None:
    """What keeps a model from being scored as TransE by tercet; None: nothing."""
    if not isinstance(model, ERModel):
        return type(model).__name__
    own = [name for name in _SCORING if getattr(type(model), name) is not getattr(ERModel, name)]
    if own:
        return f"{type(model).__name__} with a {own[0]} of its own"
    interaction = model.interaction
    if type(interaction) not in (TransEInteraction, TercetTransEInteraction):
        return f"{type(model).__name__} with {type(interaction).__name__}"
    if interaction.p not in _NORMS:
        return f"norm {interaction.p}"
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if not dtypes <= set(_checks.VALUE_DTYPES):
        return " and ".join(sorted(map(str, dtypes)))
    model.eval()
    parts = *model.entity_representations, *model.relation_representations
    return "a normalizer that looks beyond rows" if any(map(_looks_beyond_rows, parts)) else None


def _looks_beyond_rows(representation: Any) -> bool:
    """Whether a row depends on how many are asked for at once: functional.normalize along dimension 1 does."""
    if type(representation) is Embedding and representation.normalizer is None:
        return False
    with torch.no_grad():
        table = representation(indices=None)
        rows = representation(indices=torch.arange(len(table), device=table.device)[:, None])
    return not torch.allclose(rows[:, 0], table, rtol=1e-4, atol=1e-6)


def _tables(model: ERModel) -> Tables:
    """The tables of a TransE, on its device, as they are in evaluation."""
    model.eval()
    with torch.no_grad():
        entities, relations = (
            part[0](indices=None).detach() for part in (model.entity_representations, model.relation_representations)
        )
    return Tables(entities, relations, _NORMS[model.interaction.p])


class TercetRankBasedEvaluator(RankBasedEvaluator):  # type: ignore[misc]
    """PyKEEN's RankBasedEvaluator, with all ranks of a TransE from one call of `tercet.transe_rank`.

    Options, metrics and results are PyKEEN's; memory does not grow with the batch, so batch_size and slice_size do
    nothing. Ranks are those of scores in float64: where PyKEEN's differ, scores differ by less than float32 holds.
    The index of the filter triples is kept from call to call, as early stopping needs it. `filtered=False` gives raw
    ranks. Other models, inductive modes and predictions through a sigmoid are evaluated by PyKEEN, and a log entry says
    so once.

    Raises:
        ValueError: the model's tables hold NaN or infinity.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._index: tuple[tuple[Any, ...], FilterIndex] | None = None
        self._told: set[str] = set()

    def evaluate(
        self,
        model: Any,
        mapped_triples: Tensor,
        batch_size: int | None = None,
        slice_size: int | None = None,
        device: torch.device | None = None,
        use_tqdm: bool = True,
        tqdm_kwargs: Mapping[str, Any] | None = None,
        restrict_entities_to: Collection[int] | None = None,
        restrict_relations_to: Collection[int] | None = None,
        do_time_consuming_checks: bool = True,
        additional_filter_triples: Tensor | list[Tensor] | None = None,
        pre_filtered_triples: bool = True,
        targets: Collection[str] = _SIDES,
    ) -> RankBasedMetricResults:
        """Metrics of a model on triples; arguments as PyKEEN's Evaluator.evaluate takes them."""
        by_pykeen = partial(
            super().evaluate,
            model=model,
            mapped_triples=mapped_triples,
            batch_size=batch_size,
            slice_size=slice_size,
            device=device,
            use_tqdm=use_tqdm,
            tqdm_kwargs=tqdm_kwargs,
            restrict_entities_to=restrict_entities_to,
            restrict_relations_to=restrict_relations_to,
            do_time_consuming_checks=do_time_consuming_checks,
            additional_filter_triples=additional_filter_triples,
            pre_filtered_triples=pre_filtered_triples,
            targets=targets,
        )
        reason = self._why_not(model)
        if reason is not None:
            if reason not in self._told:
                self._told.add(reason)
                logger.warning("tercet ranks TransE with norm 1 or 2; PyKEEN evaluates %s", reason)
            return by_pykeen()
        kept = restrict_triples(mapped_triples, entities=restrict_entities_to, relations=restrict_relations_to)
        unfit = pre_filtered_triples and len(kept) < len(mapped_triples)
        if unfit or not len(kept) or not set(targets) <= set(_SIDES):
            return by_pykeen()  # which says what is wrong
        if device is not None:
            model.to(device)
        tables = _tables(model)
        known = None
        if self.filtered:
            known = self._known(model, tables, kept, additional_filter_triples)
        candidates = None
        if restrict_entities_to is not None:
            candidates = torch.as_tensor(list(restrict_entities_to), device=tables.entities.device)
        self.clear()
        self._rank(model, tables, kept.to(tables.entities.device), known, candidates, targets)
        return self.finalize()

    def _why_not(self, model: Any) -> str | None:
        reason = _why_not_transe(model)
        if reason is None and self.mode is not None:
            reason = f"the inductive mode {self.mode}"
        if reason is None and model.predict_with_sigmoid:
            reason = "predictions through a sigmoid"  # in float32 it makes equal what is not
        return reason

    def _known(
        self, model: Any, tables: Tables, triples: Tensor, additional: Tensor | list[Tensor] | None
    ) -> FilterIndex:
        """The index of the filter triples; the last one is kept as long as their contents stay the same."""
        if additional is None:
            parts = [prepare_filter_triples(mapped_triples=triples)]  # PyKEEN's warning
        else:
            parts = [*([additional] if isinstance(additional, Tensor) else additional), triples]
        digests = (hashlib.blake2b(part.cpu().contiguous().numpy().tobytes()).digest() for part in parts)
        sizes = len(tables.entities), len(tables.relations)
        key = *digests, *sizes, model.use_inverse_triples, tables.entities.device
        if self._index is None or self._index[0] != key:
            every = torch.cat([part.cpu() for part in parts])
            if model.use_inverse_triples:
                every = torch.cat(_with_inverses(model, every))
            index = FilterIndex(every, num_entities=sizes[0], num_relations=sizes[1])
            self._index = key, index.to(tables.entities.device)
        return self._index[1]

    def _rank(
        self,
        model: Any,
        tables: Tables,
        triples: Tensor,
        known: FilterIndex | None,
        candidates: Tensor | None,
        targets: Collection[str],
    ) -> None:
        """Note the ranks of the targets as process_scores_ would."""
        asked = triples
        places: dict[str, tuple[slice, int]] = {side: (slice(None), column) for column, side in enumerate(_SIDES)}
        if model.use_inverse_triples:  # heads of a relation are found as tails of its inverse
            asked = torch.cat(_with_inverses(model, triples))
            places = {LABEL_TAIL: (slice(len(triples)), 1), LABEL_HEAD: (slice(len(triples), None), 1)}
        found = transe_rank(
            tables.entities, tables.relations, asked, known=known, norm=tables.norm, candidates=candidates
        )
        by_type = {
            RANK_OPTIMISTIC: found.optimistic,
            RANK_REALISTIC: found.realistic.float(),
            RANK_PESSIMISTIC: found.pessimistic,
        }
        for side in targets:
            for rank_type, ranks in by_type.items():
                self.ranks[side, rank_type].append(ranks[places[side]].cpu().numpy())
            self.num_candidates[side].append(found.num_candidates[places[side]].cpu().numpy())
        self.num_entities = len(tables.entities) if candidates is None else len(candidates)


def _with_inverses(model: Any, triples: Tensor) -> tuple[Tensor, Tensor]:
    """(h, r, t) as the model numbers relations, and (t, inverse of r, h)."""
    inverter = model.relation_inverter
    return inverter.map(triples), inverter.map(triples, invert=True).flip(1)


interaction_resolver.register(TercetTransEInteraction)
model_resolver.register(TercetTransE)
evaluator_resolver.register(TercetRankBasedEvaluator)
