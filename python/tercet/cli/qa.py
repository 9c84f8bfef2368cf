"""`tercet qa`: train, evaluate and ask a question answerer."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tercet.answering import (
    Answer,
    Answerer,
    Epoch,
    Evaluation,
    Question,
    Reply,
    Reporter,
    TrainingResult,
    read_questions,
    train,
)
from tercet.cli.common import Device, Json, Seed, Threads, print_json, set_up
from tercet.cli.progress import Bar
from tercet.graph.knowledge_graph import KnowledgeGraph

app = typer.Typer(no_args_is_help=True, help="Train a question answerer on a graph, evaluate it, ask it.")

GraphFile = Annotated[Path | None, typer.Option("--graph", help="The graph; default: the file noted in training.")]


class ProgressReporter(Reporter):
    """Draws training on a console: one bar an epoch, then its figures in a line."""

    def __init__(self, console: Console) -> None:
        self.console, self.bar, self.epoch = console, Bar(console), 0

    def on_start(self, questions: int, valid_questions: int) -> None:
        """Say how much there is to learn from."""
        self.console.print(f"{questions:,} questions to learn from, {valid_questions:,} to validate on")

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float, exclude_seed: bool) -> None:
        """Move the bar."""
        if self.epoch != epoch:
            self.epoch = epoch
            self.bar.start(f"epoch {epoch}", num_steps)
        self.bar.move(step, f"loss {loss:.3f}" + (", seed excluded" if exclude_seed else ""))

    def on_epoch(self, epoch: Epoch) -> None:
        """Replace the bar by a line of figures."""
        self.close()
        self.console.print(
            f"epoch {epoch.epoch:>2}  loss {epoch.loss:.4f}  validation loss {epoch.valid_loss:.4f}"
            f"  Hits@1 {100 * epoch.hits_at_1:6.2f}  F1 {100 * epoch.f1:6.2f}  {epoch.seconds:.1f} s"
            + ("  seed excluded" if epoch.exclude_seed else ""),
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self.bar.close()


@app.command("train")
def train_command(
    graph: Annotated[Path, typer.Option(help="The graph, from `tercet graph build`.")],
    questions: Annotated[
        list[Path], typer.Option("--train", help="Questions to learn from; several times for several files.")
    ],
    hops: Annotated[int, typer.Option(min=1, help="The largest number of hops from an entity to its answers.")],
    out: Annotated[Path, typer.Option(help="The model directory to make.")],
    valid: Annotated[
        list[Path] | None, typer.Option(help="Questions to validate on; default: a tenth of --train, drawn by --seed.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="gru, trained from scratch, or a Hugging Face encoder's name or path.")
    ] = "gru",
    dim: Annotated[int, typer.Option(min=2, help="Width of the decoder and of the small encoder; even.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="At most this many; training stops early.")] = 20,
    patience: Annotated[int, typer.Option(min=1, help="Stop after so many epochs without better Hits@1.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions a step.")] = 64,
    learning_rate: Annotated[
        float, typer.Option(help="Adam's; a pretrained encoder learns at a sixtieth of it.")
    ] = 3e-3,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Learn from questions and answers; a checkpoint is kept after every epoch."""
    chosen = set_up(device, threads)
    console = Console(stderr=True, quiet=as_json)
    learnt = read_questions(questions)
    held_out = read_questions(valid) if valid else None
    with closing(ProgressReporter(console)) as reporter:
        result = train(
            KnowledgeGraph.load(graph), learnt, held_out, hops=hops, out=out, encoder=encoder, dim=dim, epochs=epochs,
            batch_size=batch_size, learning_rate=learning_rate, patience=patience, seed=seed, device=chosen,
            resume=resume, graph_path=graph, reporter=reporter,
        )  # fmt: skip
    if as_json:
        print_json({**asdict(result), "path": str(result.path)})
    else:
        describe_training(Console(), result)


def describe_training(console: Console, result: TrainingResult) -> None:
    """What training came to, for people."""
    seed_rule = "never returns to" if result.exclude_seed else "may return to"
    console.print(
        f"Trained in {result.seconds:.1f} s; best was epoch {result.best_epoch} of {len(result.epochs)}:"
        f" Hits@1 {100 * result.hits_at_1:.2f}, F1 {100 * result.f1:.2f} on validation"
        f" (threshold {result.threshold:.2f}; a path {seed_rule} the question's entity).",
        highlight=False,
        soft_wrap=True,
    )
    describe_absent(console, result.absent_answers, result.unanswerable)
    console.print(f"Model: {result.path}", highlight=False, soft_wrap=True)


def describe_absent(console: Console, absent_answers: int, unanswerable: int) -> None:
    """Say how many answers the graph lacks; nothing where it has all."""
    if absent_answers:
        console.print(
            f"{absent_answers:,} answers are not in the graph; {unanswerable:,} questions have none that is."
            " They count as missed.",
            highlight=False,
            soft_wrap=True,
        )


@app.command("eval")
def eval_command(
    model: Annotated[Path, typer.Option(help="The model directory.")],
    test: Annotated[list[Path], typer.Option(help="Questions with answers; several times for several files.")],
    graph: GraphFile = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 128,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Hits@1 and F1 on questions with known answers."""
    chosen = set_up(device, threads)
    questions = read_questions(test)
    answerer = Answerer.load(model, graph, device=chosen)
    result = evaluate_with_bar(answerer, questions, Console(stderr=True, quiet=as_json), batch_size=batch_size)
    if as_json:
        print_json(asdict(result))
        return
    console = Console()
    describe_evaluations(console, {"test": result})
    describe_absent(console, result.absent_answers, result.unanswerable)


def evaluate_with_bar(
    answerer: Answerer, questions: list[Question], console: Console, *, batch_size: int = 128
) -> Evaluation:
    """Evaluate under a progress bar."""
    with closing(Bar(console)) as bar:
        bar.start("evaluating", len(questions))
        return answerer.evaluate(questions, batch_size=batch_size, on_step=bar.move)


def describe_evaluations(console: Console, results: dict[str, Evaluation]) -> None:
    """A table with a line for each set of questions."""
    table = Table("questions", "how many", "Hits@1", "F1", "questions / s")
    for name, result in results.items():
        figures = f"{100 * result.hits_at_1:.2f}", f"{100 * result.f1:.2f}", f"{result.questions_per_second:,.0f}"
        table.add_row(name, f"{result.questions:,}", *figures)
    console.print(table)


@app.command("ask")
def ask_command(
    question: Annotated[str, typer.Argument(help="With its entities in brackets: 'who directed [Heat]'.")],
    model: Annotated[Path, typer.Option(help="The model directory.")],
    graph: GraphFile = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="Answers at most; below 0.05 % only with --json.")] = 5,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Answer a question, and show the paths that lead to the answers."""
    chosen = set_up(device, threads)
    reply = Answerer.load(model, graph, device=chosen).ask(question, k=k)
    if as_json:
        answers = [{**asdict(answer), "path": [str(path) for path in answer.paths]} for answer in reply.answers]
        print_json({"question": reply.question, "answers": answers})
    else:
        describe_reply(Console(), reply)


def describe_reply(console: Console, reply: Reply) -> None:
    """The answers of one question with their paths, for people."""
    console.print(reply.question, style="bold", markup=False, highlight=False)
    # What would read as 0.0 % is noise to a reader; --json gives all.
    shown = [answer for answer in reply.answers if answer.probability >= 0.0005]
    if not shown:
        console.print("  no answer: no path leads to one", highlight=False)
    for answer in shown:
        console.print(f"  {_percent(answer)}  {answer.name}", markup=False, highlight=False, soft_wrap=True)
        for path in answer.paths:
            console.print(f"          {path}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _percent(answer: Answer) -> str:
    return f"{100 * answer.probability:5.1f} %" + ("" if answer.accepted else " (below the threshold)")
