"""The answer model: question -> relation weights hop by hop -> weighted traversal -> answers.

With h the encoded question, hop t = 1..H:

    s_t = GRUCell(sum_k w_{t-1,k} e_k, s_{t-1})        the hops before, through their relation weights
    c_t = attention of s_t over the question's tokens
    w_t = softmax(W z_t),  b_t = u . z_t               z_t = tanh(V [s_t; c_t])
    x_t = follow(x_{t-1}, w_t), clamped to 1           x_0 = the entities of the mention
    y   = sum_t softmax(b)_t x_t

A question with several mentions is one row for each; the rows' answers are intersected by the minimum. Nothing is
pruned: y and its gradient are exact.

Sources: Cohen et al., Scalable Neural Methods for Reasoning With a Symbolic Knowledge Base, ICLR 2020. Oliya et al.,
End-to-End Entity Resolution and Question Answering Using Differentiable Knowledge Graphs, EMNLP 2021 (the decoder and
the attention over hops). Sen et al., Expanding End-to-End Question Answering on Differentiable Knowledge Graphs with
Intersection, EMNLP 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tercet.answering.data import GroundedQuestion
from tercet.answering.encoder import Encoder
from tercet.graph.entity_sets import EntitySets
from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.ops.entity_sets import count, intersect, union
from tercet.ops.traversal import follow


@dataclass
class Batch:
    """Questions as tensors. Rows are mentions: the first of every question, then the second of those that have one, ...

    Attributes:
        ids: token ids of the rows, int64 [rows, length].
        seeds: the entities of each row's mention [rows].
        rows_by_mention: how many rows each mention number has; descending, the first is the number of questions.
        answers: the right sets [questions].
        absent: right answers that are not in the graph, int64 [questions].
        order: where each question stood in the list that the batch was made of; more mentions come first.
    """

    ids: Tensor
    seeds: EntitySets
    rows_by_mention: list[int]
    answers: EntitySets
    absent: Tensor
    order: list[int]

    def __len__(self) -> int:
        return self.rows_by_mention[0]


@dataclass
class Plan:
    """What the decoder makes of each row.

    Attributes:
        relations: for each hop the relation weights [rows, num_relations].
        hops: the weights of the numbers of hops [rows, hops].
    """

    relations: list[Tensor]
    hops: Tensor


class AnswerModel(nn.Module):
    """Encoder, decoder and traversal; see the head of this file.

    Args:
        encoder: reads the questions.
        num_relations: of the graph, inverses included.
        hops: the largest number of hops.
        dim: of the decoder.
        exclude_seed: after the first hop the row's own mention is no member of any frontier.
    """

    def __init__(
        self, encoder: Encoder, num_relations: int, hops: int, *, dim: int = 128, exclude_seed: bool = False,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.num_relations, self.num_hops, self.dim = encoder, num_relations, hops, dim
        self.exclude_seed = exclude_seed
        self.start = nn.Linear(encoder.dim, dim)
        self.relation_vectors = nn.Parameter(torch.empty(num_relations, dim).normal_(std=dim**-0.5))
        self.cell = nn.GRUCell(dim, dim)
        self.attend = nn.Linear(dim, encoder.dim)
        self.mix = nn.Linear(dim + encoder.dim, dim)
        self.relation_logits = nn.Linear(dim, num_relations)
        self.hop_logit = nn.Linear(dim, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def plan(self, ids: Tensor) -> Plan:
        """Token ids [rows, length] -> the weights of relations and hops."""
        tokens, mask, summary = self.encoder(ids)
        state = torch.tanh(self.start(summary))
        step = state.new_zeros(state.shape)
        relations, hop_logits = [], []
        for _ in range(self.num_hops):
            state = self.cell(step, state)
            scores = (tokens @ self.attend(state).unsqueeze(2)).squeeze(2).masked_fill(~mask, -torch.inf)
            context = (scores.softmax(1).unsqueeze(1) @ tokens).squeeze(1)
            mixed = self.dropout(torch.tanh(self.mix(torch.cat([state, context], 1))))
            weights = self.relation_logits(mixed).softmax(1)
            step = weights @ self.relation_vectors
            relations.append(weights)
            hop_logits.append(self.hop_logit(mixed))
        return Plan(relations, torch.cat(hop_logits, 1).softmax(1))

    def frontiers(self, graph: KnowledgeGraph, seeds: EntitySets, plan: Plan) -> list[EntitySets]:
        """x_1 .. x_H of every row."""
        frontier, frontiers = seeds, []
        for hop, weights in enumerate(plan.relations):
            exclude = seeds if self.exclude_seed and hop > 0 else None
            frontier = follow(graph, frontier, weights, clamp=True, exclude=exclude)
            frontiers.append(frontier)
        return frontiers

    def forward(self, graph: KnowledgeGraph, batch: Batch) -> EntitySets:
        """The answers of each question, memberships in 0..1."""
        plan = self.plan(batch.ids)
        rows: EntitySets | None = None
        for hop, frontier in enumerate(self.frontiers(graph, batch.seeds, plan)):
            scaled = frontier.scale(plan.hops[:, hop])
            rows = scaled if rows is None else union(rows, scaled, how="sum")
        assert rows is not None
        return intersect_mentions(rows, batch.rows_by_mention)


def intersect_mentions(rows: EntitySets, rows_by_mention: Sequence[int]) -> EntitySets:
    """One set a question: the minimum over its mentions' rows, which are ordered as in `Batch`.

    Example:
        >>> rows = EntitySets.from_lists([{1: 1.0, 2: 0.5}, {7: 1.0}, {2: 0.75, 3: 1.0}])
        >>> intersect_mentions(rows, [2, 1]).to_lists()
        [{2: 0.5}, {7: 1.0}]
    """
    result, start = rows[: rows_by_mention[0]], rows_by_mention[0]
    for number in rows_by_mention[1:]:
        both = intersect(result[:number], rows[start : start + number], how="min")
        result = EntitySets.cat([both, result[number:]])
        start += number
    return result


def make_batch(
    encoder: Encoder, questions: Sequence[GroundedQuestion], num_entities: int, device: torch.device
) -> Batch:
    """Questions as a batch; `order` tells where each went."""
    order = sorted(range(len(questions)), key=lambda index: -len(questions[index].seeds))
    ordered = [questions[index] for index in order]
    most = len(ordered[0].seeds)
    rows_by_mention = [sum(len(question.seeds) > mention for question in ordered) for mention in range(most)]
    rows = [(ordered[index], mention) for mention in range(most) for index in range(rows_by_mention[mention])]
    ids = encoder.batch([encoder.ids(question.question.text, mention) for question, mention in rows], device)
    seeds = _sets([question.seeds[mention] for question, mention in rows], num_entities, device)
    answers = _sets([question.answers for question in ordered], num_entities, device)
    absent = torch.tensor([question.absent for question in ordered], device=device)
    return Batch(ids, seeds, rows_by_mention, answers, absent, order)


def _sets(rows: Sequence[Sequence[int]], num_entities: int, device: torch.device) -> EntitySets:
    """Rows of ascending ids, each weighing 1."""
    entities = torch.tensor([entity for row in rows for entity in row], dtype=torch.int32, device=device)
    sizes = torch.tensor([0, *(len(row) for row in rows)], device=device)
    return EntitySets.trusted(torch.ones(len(entities), device=device), sizes.cumsum(0), entities, num_entities)


def answer_loss(answers: EntitySets, right: EntitySets, *, membership: float = 0.1) -> Tensor:
    """Cross-entropy of the normalised answers against the right ones, plus a pull of their memberships to 1.

    For each question: mean over right a of -log(y_a / sum y) - membership * log y_a. The first term is what ranks; it
    does not change with the scale of y, so three hops learn from the start. The second fixes the scale, so that y can
    be read as a probability and one threshold serves all questions. Right answers that are not reached add a constant,
    which is left out; questions without any that is reached add nothing.

    Args:
        answers: y [questions], differentiable.
        right: the right sets [questions]; membership only.
        membership: weight of the second term.

    Returns:
        The mean over questions, a scalar.

    Example:
        >>> y = EntitySets.from_lists([{1: 0.5, 2: 0.5}])
        >>> answer_loss(y, EntitySets.from_lists([{1}]), membership=0.0)
        tensor(0.6931)
    """
    size = max(answers.num_entities, right.num_entities)
    rows, wanted = right.rows(), right.rows() * size + right.entities
    if not len(answers.entities) or not len(wanted):
        return answers.weights.sum() * 0.0
    keys = answers.rows() * size + answers.entities
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    reached = keys[at] == wanted
    at, rows = at[reached], rows[reached]
    # Far below any membership that matters, and far above where 1 / y overflows.
    tiny = 1e-20
    logs = (answers.weights.index_select(0, at) + tiny).log()
    totals = (count(answers) + tiny).log().index_select(0, rows)
    losses = totals - (1 + membership) * logs
    share = 1.0 / torch.bincount(rows, minlength=len(right)).clamp(min=1).to(losses.dtype)
    return (losses * share[rows]).sum() / len(right)
