"""Training an answer model from questions and answers; nothing is told about the paths between them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch

from tercet.answering.data import Grounder, Question
from tercet.answering.run import Reporter, Run, TrainingResult, TrainingSettings
from tercet.answering.storage import check_graph, load_config
from tercet.checkpoints import open_run
from tercet.graph.knowledge_graph import KnowledgeGraph


def train(
    graph: KnowledgeGraph,
    questions: Sequence[Question],
    valid: Sequence[Question] | None = None,
    *,
    hops: int,
    out: str | PathLike[str],
    encoder: str = "gru",
    dim: int = 128,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    patience: int = 3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resume: bool = False,
    graph_path: str | PathLike[str] | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a model on questions and answers and save it.

    A checkpoint is written after every epoch. The same arguments give the same model bit for bit on one machine and one
    number of threads, also when the run was broken and resumed. Global random state is left as it was.

    Args:
        graph: the knowledge graph; inverse relations are added where it has none.
        questions: what to learn from, with answers.
        valid: what to validate on; None holds out a tenth of `questions`, drawn by `seed`.
        hops: the largest number of hops from a question's entity to its answers.
        out: the model directory to make; must be empty or absent unless `resume`.
        encoder: "gru", trained from scratch, or a Hugging Face encoder's name or path (pip install
            'tercet[transformers]').
        dim: of the decoder and the small encoder.
        epochs: at most this many; training stops early after `patience` epochs without better Hits@1 on validation.
        batch_size: questions a step.
        learning_rate: Adam's; a pretrained encoder learns at a sixtieth of it.
        patience: see `epochs`.
        seed: of everything that is drawn.
        device: where to compute.
        resume: go on from the checkpoint in `out`, if there is one.
        graph_path: where the graph is stored; kept as a hint for `Answerer.load`.
        reporter: hears of steps and epochs.

    Raises:
        ValueError: a setting is out of range, `out` is not empty, a question names an unknown entity, or the checkpoint
            is of another run.

    Source:
        Cohen et al., ICLR 2020; Oliya et al., EMNLP 2021; Sen et al., EMNLP 2021.
    """
    settings = TrainingSettings(hops, encoder, dim, epochs, batch_size, learning_rate, patience, seed)
    folder = Path(out)
    checkpoint = open_run(folder, resume=resume)
    device = torch.device(device)
    graph = (graph if graph.has_inverses else graph.with_inverses()).to(device)
    kept, held_out = _split(list(questions), valid, seed)
    grounder = Grounder(graph)
    run = Run(
        settings, graph, [grounder.ground(q) for q in kept], [grounder.ground(q) for q in held_out],
        device, reporter or Reporter(),
    )  # fmt: skip
    if checkpoint is not None:
        run.check_same(checkpoint.state, folder)
        if checkpoint.state.get("finished"):
            check_graph(load_config(folder), graph, folder)
            return run.result(folder, checkpoint.state)
        run.restore(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    run.reporter.on_start(len(run.questions), len(run.valid))
    return run.finish(folder, graph_path)


def _split(
    questions: list[Question], valid: Sequence[Question] | None, seed: int
) -> tuple[list[Question], list[Question]]:
    if valid is not None:
        if not questions or not valid:
            raise ValueError("tercet.answering.train: questions and valid must not be empty")
        return questions, list(valid)
    if len(questions) < 2:
        raise ValueError(
            f"tercet.answering.train: questions must be at least 2 to hold out validation, got {len(questions)}"
        )
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = set(order[: max(1, len(questions) // 10)])
    return (
        [question for index, question in enumerate(questions) if index not in held_out],
        [question for index, question in enumerate(questions) if index in held_out],
    )
