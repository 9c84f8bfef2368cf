"""`tercet kge`: train a knowledge-graph embedding, evaluate it, predict with it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Device, Json, Threads, print_json, set_up
from tercet.cli.progress import Bar
from tercet.embedding import (
    PRESETS,
    Epoch,
    Evaluation,
    Prediction,
    Reporter,
    TrainingResult,
    TrainingSettings,
    TransE,
    evaluate,
    preset,
    train,
)
from tercet.embedding.plotting import plot_learning_curve
from tercet.embedding.storage import check_data, check_vocabulary, load_config
from tercet.graph.splits import SPLITS, Splits, Unseen, read_splits
from tercet.ops.filter_index import FilterIndex
from tercet.plotting import check_plotting

app = typer.Typer(no_args_is_help=True, help="Train a knowledge-graph embedding (TransE), evaluate it, predict.")

_DEFAULTS = TrainingSettings()
Model = Annotated[Path, typer.Option(help="The model directory.")]


class ProgressReporter(Reporter):
    """Draws training on a console: one bar over all epochs, and a line for each validation."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console, self.epochs, self.mrr = console, epochs, ""
        self.bar = Bar(console)

    def on_start(self, splits: Splits, first_epoch: int) -> None:
        """Say how much there is to learn from."""
        self.console.print(
            f"{len(splits.train):,} triples to learn from, {len(splits.valid):,} to validate on;"
            f" {splits.num_entities:,} entities, {splits.num_relations:,} relations"
            + (f"; going on with epoch {first_epoch}" if first_epoch > 1 else ""),
            highlight=False,
            soft_wrap=True,
        )
        describe_unseen(self.console, "valid", splits.unseen("valid"))
        self.bar.start("epochs", self.epochs, first_epoch - 1)

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """Move the bar."""
        self.bar.move(epoch - 1 + step / num_steps, f"loss {loss:.4f}{self.mrr}")

    def on_epoch(self, epoch: Epoch) -> None:
        """A line of figures where there was a validation."""
        if epoch.valid is not None:
            self.mrr = f", MRR {epoch.valid.mrr:.4f}"
            self.console.print(
                f"epoch {epoch.epoch:>4}  loss {epoch.loss:.4f}  MRR {epoch.valid.mrr:.4f}"
                f"  Hits@10 {epoch.valid.hits_at_10:.4f}  {epoch.seconds:.2f} s + {epoch.valid_seconds:.2f} s",
                highlight=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self.bar.close()


def _setting(name: str, text: str, *flags: str) -> Any:
    """An option that overrides a setting of the preset; None leaves it."""
    return typer.Option(*flags, help=text, show_default=str(getattr(_DEFAULTS, name)))


@app.command("train")
def train_command(
    data: Annotated[
        Path,
        typer.Option(help="A directory with train.txt, valid.txt, test.txt, or a graph file (split 90/5/5 by seed)."),
    ],
    out: Annotated[Path, typer.Option(help="The model directory to make.")],
    preset_name: Annotated[
        str | None, typer.Option("--preset", help=f"Settings to start from: {' or '.join(PRESETS)}.")
    ] = None,
    norm: Annotated[str | None, _setting("norm", "Of the score: l1, l2 or dot.")] = None,
    dim: Annotated[int | None, _setting("dim", "Of the vectors.")] = None,
    num_negatives: Annotated[
        int | None, _setting("num_negatives", "For each positive, or with shared for each chunk.", "--negatives")
    ] = None,
    sampling: Annotated[str | None, _setting("sampling", "uniform, bernoulli or shared.")] = None,
    chunk_size: Annotated[int | None, _setting("chunk_size", "Positives that share negatives.")] = None,
    filter_negatives: Annotated[
        bool | None,
        _setting("filter_negatives", "No negative is a training triple.", "--filter-negatives/--all-negatives"),
    ] = None,
    loss: Annotated[str | None, _setting("loss", "margin, softmax or self_adversarial.")] = None,
    margin: Annotated[float | None, _setting("margin", "Of margin and self_adversarial.")] = None,
    temperature: Annotated[float | None, _setting("temperature", "Of self_adversarial.")] = None,
    optimizer: Annotated[str | None, _setting("optimizer", "sgd, adagrad, rowwise_adagrad or adam.")] = None,
    learning_rate: Annotated[float | None, _setting("learning_rate", "In the first step.")] = None,
    schedule: Annotated[str | None, _setting("schedule", "constant, or linear down to 0 over the epochs.")] = None,
    unit_ball: Annotated[
        bool | None, _setting("unit_ball", "Keep entities within length 1.", "--unit-ball/--no-unit-ball")
    ] = None,
    inverses: Annotated[
        bool | None, _setting("inverses", "Learn an inverse of each relation.", "--inverses/--no-inverses")
    ] = None,
    initial_bound: Annotated[
        float | None, _setting("initial_bound", "First values are uniform up to this; None: by loss and norm.")
    ] = None,
    dtype: Annotated[str | None, _setting("dtype", "float32 or float64.")] = None,
    epochs: Annotated[int | None, _setting("epochs", "At most this many; training stops early.")] = None,
    batch_size: Annotated[int | None, _setting("batch_size", "Positives a step.")] = None,
    valid_every: Annotated[int | None, _setting("valid_every", "Epochs between validations.")] = None,
    patience: Annotated[
        int | None, _setting("patience", "Stop after so many validations without a better MRR.")
    ] = None,
    seed: Annotated[int | None, _setting("seed", "Of everything that is drawn, the split of a graph included.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the learning curve as a PNG (extra: plot).")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn vectors of entities and relations; a checkpoint is kept at every validation."""
    given = {name: value for name, value in locals().items() if hasattr(_DEFAULTS, name) and value is not None}
    settings = replace(_DEFAULTS if preset_name is None else preset(preset_name), **given)
    chosen = set_up(device, threads)
    if plot is not None:
        check_plotting()
    console = Console(stderr=True, quiet=as_json)
    splits = read_splits(data, seed=settings.seed)
    with closing(ProgressReporter(console, settings.epochs)) as reporter:
        result = train(splits, settings, out=out, device=chosen, resume=resume, reporter=reporter)
    if plot is not None:
        plot_learning_curve(result.epochs, plot, title=f"TransE, {settings.norm}, dim {settings.dim}")
    if as_json:
        print_json(training_summary(result))
    else:
        describe_training(Console(), result)


def training_summary(result: TrainingResult) -> dict[str, Any]:
    """What training came to, for programs."""
    return {
        "path": str(result.path),
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "best_epoch": result.best_epoch,
        "valid": asdict(result.valid),
        "triples": result.triples,
        "valid_triples": result.valid_triples,
        "unseen": asdict(result.unseen),
        "seconds": result.seconds,
    }


def describe_training(console: Console, result: TrainingResult) -> None:
    """What training came to, for people."""
    console.print(
        f"Trained in {result.seconds:.1f} s; best was epoch {result.best_epoch} of {len(result.epochs)}:"
        f" MRR {result.valid.mrr:.4f}, Hits@10 {result.valid.hits_at_10:.4f} on validation.\nModel: {result.path}",
        highlight=False,
        soft_wrap=True,
    )


def describe_unseen(console: Console, split: str, unseen: Unseen) -> None:
    """Say what a split holds that training does not; nothing where there is nothing."""
    if unseen.triples:
        console.print(
            f"{unseen.triples:,} triples of {split} hold one of {unseen.entities:,} entities and"
            f" {unseen.relations:,} relations that no training triple holds; they are kept.",
            highlight=False,
            soft_wrap=True,
        )


@app.command("eval")
def eval_command(
    model: Model,
    data: Annotated[Path, typer.Option(help="What the model was trained on: a directory of splits or a graph file.")],
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    by_relation: Annotated[bool, typer.Option("--by-relation", help="Also measure each relation.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Filtered MRR, Hits@k, mean rank and adjusted mean rank index of true heads and tails."""
    if split not in SPLITS:
        raise ValueError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}")
    chosen = set_up(device, threads)
    trained = TransE.load(model, device=chosen)
    config = load_config(model)
    splits = read_splits(data, seed=config.get("training", {}).get("seed", 0))
    check_vocabulary(model, trained.vocabulary, splits)
    check_data(model, config, splits)
    describe_unseen(Console(stderr=True), split, splits.unseen(split))
    result = evaluate(trained, getattr(splits, split), known=splits.known)
    names = splits.vocabulary.relations
    if as_json:
        found: dict[str, Any] = dict(result.metrics.to_dict())
        if by_relation:
            found["by_relation"] = {
                names.name(relation): {"count": metrics.head.count, **metrics.to_dict()}
                for relation, metrics in result.by_relation.items()
            }
        print_json(found)
        return
    console = Console()
    describe_evaluation(console, result)
    if by_relation:
        describe_relations(console, result, [names.name(relation) for relation in result.by_relation])


def describe_evaluation(console: Console, result: Evaluation) -> None:
    """A table with a line for heads, tails and both."""
    table = Table("ranked", "ranks", "MRR", "Hits@1", "Hits@3", "Hits@10", "mean rank", "AMRI")
    metrics = result.metrics
    for label, side in (("heads", metrics.head), ("tails", metrics.tail), ("both", metrics.both)):
        shares = side.mrr, side.hits_at_1, side.hits_at_3, side.hits_at_10
        mean_rank = f"{side.mean_rank:,.1f}", f"{side.adjusted_mean_rank_index:.4f}"
        table.add_row(label, f"{side.count:,}", *(f"{share:.4f}" for share in shares), *mean_rank)
    console.print(table)


def describe_relations(console: Console, result: Evaluation, names: list[str]) -> None:
    """A table with a line for each relation, heads and tails together; the most frequent first."""
    table = Table("relation", "triples", "MRR", "Hits@1", "Hits@10")
    rows = sorted(zip(names, result.by_relation.values(), strict=True), key=lambda row: -row[1].head.count)
    for name, metrics in rows:
        shares = metrics.both.mrr, metrics.both.hits_at_1, metrics.both.hits_at_10
        figures = [f"{metrics.head.count:,}", *(f"{share:.4f}" for share in shares)]
        table.add_row(Text(name, overflow="fold"), *figures)
    console.print(table)


@app.command("predict")
def predict_command(
    model: Model,
    relation: Annotated[str, typer.Option(help="The relation's name.")],
    head: Annotated[str | None, typer.Option(help="The head's name, to predict tails.")] = None,
    tail: Annotated[str | None, typer.Option(help="The tail's name, to predict heads.")] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many at most.")] = 10,
    data: Annotated[
        Path | None, typer.Option(help="What the model was trained on: its triples are known, and left out.")
    ] = None,
    include_known: Annotated[
        bool, typer.Option("--known", help="With --data: keep known triples, and say which they are.")
    ] = False,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """The best tails for a head and a relation, or the best heads for a relation and a tail."""
    if (head is None) == (tail is None):
        raise ValueError("give either --head, to predict tails, or --tail, to predict heads")
    if include_known and data is None:
        raise ValueError("--known needs --data, which says what is known")
    chosen = set_up(device, threads)
    trained = TransE.load(model, device=chosen)
    known: FilterIndex | None = None
    if data is not None:
        splits = read_splits(data)
        check_vocabulary(model, trained.vocabulary, splits)
        known = trained.filter_index(splits.known)
    predictions = trained.predict(
        head=head, relation=relation, tail=tail, k=k, known=known, include_known=include_known
    )
    if as_json:
        print_json({"head": head, "relation": relation, "tail": tail, "predictions": list(map(asdict, predictions))})
    else:
        asked = f"{head} —{relation}→ ?" if head is not None else f"? —{relation}→ {tail}"
        describe_predictions(Console(), asked, predictions)


def describe_predictions(console: Console, asked: str, predictions: list[Prediction]) -> None:
    """The predictions in a table."""
    console.print(asked, style="bold", markup=False, highlight=False, soft_wrap=True)
    if not predictions:
        console.print("  nothing: all triples are known", highlight=False)
    for place, prediction in enumerate(predictions, 1):
        mark = "  (known)" if prediction.known else ""
        line = f"{place:>4}  {prediction.score:10.4f}  {prediction.name}{mark}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
