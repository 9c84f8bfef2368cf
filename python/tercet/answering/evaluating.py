"""Evaluation of a model on questions with known answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.answering.data import GroundedQuestion
from tercet.answering.model import AnswerModel, Batch, answer_loss, make_batch
from tercet.evaluation import f1_by_threshold, hits_at_1
from tercet.graph.entity_sets import EntitySets
from tercet.graph.knowledge_graph import KnowledgeGraph

# Thresholds that validation chooses among.
THRESHOLDS = torch.linspace(0.01, 0.99, 99)


@dataclass(frozen=True)
class Evaluation:
    """How well a model answers.

    Attributes:
        hits_at_1: mean chance that a best-scored entity, drawn evenly among ties, is right; in 0..1.
        f1: mean F1 of the answers above the threshold; in 0..1.
        questions: how many there were.
        questions_per_second: tokenized, answered and scored; names are looked up before.
        loss: mean of the training loss.
        threshold: of the answer set.
        absent_answers: right answers that name no entity of the graph; they lower f1.
        unanswerable: questions none of whose answers is in the graph; they count as missed.
    """

    hits_at_1: float
    f1: float
    questions: int
    questions_per_second: float
    loss: float
    threshold: float
    absent_answers: int
    unanswerable: int


def answer_batches(
    model: AnswerModel, graph: KnowledgeGraph, questions: Sequence[GroundedQuestion], batch_size: int
) -> Iterator[tuple[Batch, EntitySets]]:
    """The answers of all questions, a batch at a time, without gradients; the model is left in its mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(questions), batch_size):
                batch = make_batch(
                    model.encoder, questions[start : start + batch_size], graph.num_entities, graph.objects.device
                )
                yield batch, model(graph, batch)
    finally:
        model.train(training)


def evaluate_model(
    model: AnswerModel,
    graph: KnowledgeGraph,
    questions: Sequence[GroundedQuestion],
    *,
    threshold: float | None = None,
    batch_size: int = 128,
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Hits@1, F1 and loss on `questions`.

    Args:
        model, graph: the graph with inverses that the model was made for.
        questions: at least one.
        threshold: of the answer set; None takes the one with the best F1 on these very questions, as validation does.
        on_step: called with the number of questions done.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("tercet.answering.evaluate: questions must not be empty")
    thresholds = THRESHOLDS if threshold is None else torch.tensor([threshold])
    hits, loss, done = 0.0, 0.0, 0
    scores = torch.zeros(len(thresholds), dtype=torch.float64)
    started = time.perf_counter()
    for batch, answers in answer_batches(model, graph, questions, batch_size):
        hits += float(hits_at_1(answers, batch.answers).sum())
        loss += float(answer_loss(answers, batch.answers)) * len(batch)
        scores += _f1_sums(answers, batch, thresholds)
        done += len(batch)
        if on_step is not None:
            on_step(done)
    seconds = time.perf_counter() - started
    # Of thresholds that are equally good, the middle one.
    equal = (scores >= scores.max() - 1e-9).nonzero()[:, 0]
    best = int(equal[len(equal) // 2])
    return Evaluation(
        hits_at_1=hits / len(questions),
        f1=float(scores[best]) / len(questions),
        questions=len(questions),
        questions_per_second=len(questions) / seconds,
        loss=loss / len(questions),
        threshold=round(float(thresholds[best]), 6),
        absent_answers=sum(question.absent for question in questions),
        unanswerable=sum(not question.answers for question in questions),
    )


def _f1_sums(answers: EntitySets, batch: Batch, thresholds: Tensor) -> Tensor:
    thresholds = thresholds.to(answers.weights.device)
    return f1_by_threshold(answers, batch.answers, thresholds, absent=batch.absent).sum(0).cpu()
