"""A trained model, ready to answer questions, explain its answers and be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path as FilePath
from typing import Any

import torch

from tercet.answering.data import Grounder, Question, parse_question
from tercet.answering.evaluating import Evaluation, evaluate_model
from tercet.answering.explain import Path, best_paths
from tercet.answering.model import AnswerModel, make_batch
from tercet.answering.storage import check_graph, load_config, load_model
from tercet.graph.knowledge_graph import KnowledgeGraph


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        name: of the entity.
        entity: its id.
        probability: the membership that the model gives it, in 0..1. Several answers may all be right, so the
            probabilities of one question need not sum to 1.
        accepted: whether it reaches the threshold learnt on validation.
        paths: for each entity that the question names, the chain of edges that carries the most weight to the answer.
    """

    name: str
    entity: int
    probability: float
    accepted: bool
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Reply:
    """The answers to a question, best first; equal ones in the order of their names."""

    question: str
    answers: tuple[Answer, ...]


class Answerer:
    """Answers questions with a trained model over its graph. `Answerer.load` makes one from a model directory.

    Attributes:
        model: the network. graph: with inverses. threshold: of the answer set. config: as saved.
    """

    def __init__(self, model: AnswerModel, graph: KnowledgeGraph, config: dict[str, Any]) -> None:
        self.model, self.graph, self.config = model, graph, config
        self.threshold = float(config["threshold"])
        self._grounder = Grounder(graph)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        graph: KnowledgeGraph | str | PathLike[str] | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> Answerer:
        """The answerer saved in directory `path`.

        Args:
            path: what `train` wrote.
            graph: the graph the model was trained on, or its file; None takes the file that was noted in training.
            device: where to compute.

        Raises:
            FileNotFoundError: the model or its graph is not there.
            ValueError: the files are broken, or the graph is another than the model's.
        """
        folder, device = FilePath(path), torch.device(device)
        config = load_config(folder)
        if not isinstance(graph, KnowledgeGraph):
            file = graph if graph is not None else config["graph"].get("path")
            if file is None:
                raise ValueError(f"{folder}: the model was trained on a graph in memory; name its file (--graph)")
            if not FilePath(file).exists():
                raise FileNotFoundError(f"{file}: the model's graph is not there; name its file (--graph)")
            graph = KnowledgeGraph.load(file)
        if not graph.has_inverses:
            graph = graph.with_inverses()
        check_graph(config, graph, folder)
        model, config = load_model(folder, device)
        return cls(model, graph.to(device), config)

    def ask(self, question: str, *, k: int = 5) -> Reply:
        """The k most probable answers and how they were reached.

        Args:
            question: with its entities in brackets: `who directed [Heat]`.
            k: how many answers at most; those that weigh nothing are left out.

        Raises:
            ValueError: there is no bracketed entity, or none of that name in the graph (near names are suggested).
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"tercet.answering.ask: k must be a positive integer, got {k!r}")
        grounded = self._grounder.ground(parse_question(question))
        self.model.eval()
        with torch.no_grad():
            batch = make_batch(self.model.encoder, [grounded], self.graph.num_entities, self.graph.objects.device)
            found = self.model(self.graph, batch)
            plan = self.model.plan(batch.ids)
        members = sorted(
            ((weight, self.graph.entity_name(entity), entity) for entity, weight in found.top(k).to_lists()[0].items()),
            key=lambda member: (-member[0], member[1]),
        )
        members = [member for member in members if member[0] > 0]
        targets = [entity for _, _, entity in members]
        graph = self.graph.to("cpu")
        chains = [
            best_paths(
                graph, seeds, [weights[row].cpu() for weights in plan.relations], plan.hops[row].cpu(), targets,
                exclude_seed=self.model.exclude_seed,
            )
            for row, seeds in enumerate(grounded.seeds)
        ]  # fmt: skip
        answers = [
            Answer(
                name, entity, min(weight, 1.0), weight >= self.threshold,
                tuple(path for chain in chains if (path := chain[index]) is not None),
            )
            for index, (weight, name, entity) in enumerate(members)
        ]  # fmt: skip
        return Reply(question, tuple(answers))

    def evaluate(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int = 128,
        on_step: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """Hits@1 and F1 on questions with known answers; see `Evaluation`.

        Raises:
            ValueError: there are no questions, or one names an unknown entity.
        """
        grounded = [self._grounder.ground(question) for question in questions]
        return evaluate_model(
            self.model, self.graph, grounded, threshold=self.threshold, batch_size=batch_size, on_step=on_step
        )


def evaluate(
    model: Answerer | str | PathLike[str],
    questions: Sequence[Question],
    *,
    graph: KnowledgeGraph | str | PathLike[str] | None = None,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Hits@1 and F1 of a model, or of the one in a directory, on questions with known answers.

    Args:
        model: an answerer, or a model directory; then `graph` and `device` are as for `Answerer.load`.
        questions: at least one.
        batch_size: questions answered at once; results do not depend on it beyond rounding.
        on_step: called with the number of questions done.

    Raises:
        As `Answerer.load` and `Answerer.evaluate`.
    """
    answerer = model if isinstance(model, Answerer) else Answerer.load(model, graph, device=device)
    return answerer.evaluate(questions, batch_size=batch_size, on_step=on_step)
