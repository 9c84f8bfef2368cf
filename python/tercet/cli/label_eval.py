"""`tercet label eval`: how good the labels of a model are, by cross-validation, beside a person's and a baseline's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, Seed, Threads, print_json, set_up
from tercet.cli.progress import Bar
from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.data.reading import DialogueReader
from tercet.labeling.evaluation.baseline import TfidfRidge
from tercet.labeling.evaluation.evaluating import Predictor, evaluate
from tercet.labeling.evaluation.metrics import DETECTION_FIGURES
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.train import train

_OTHERS = ("human", "baseline")


def eval_command(
    data: Annotated[Path, typer.Option(help="A .jsonl or .parquet file of dialogues with labels or annotators.")],
    folds: Annotated[int, typer.Option(min=2, help="Parts of the dialogues, each predicted by the others' model.")] = 5,
    draws: Annotated[int, typer.Option(min=1, help="Draws of three annotators for gold, one more for the human.")] = 20,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the dialogues in training.")] = None,
    with_baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Fit TF-IDF and ridge regression beside the model.")
    ] = True,
    seed: Seed = 1,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Cross-validate the model by dialogue: figures of every task, beside one annotator's and a simple baseline's."""
    set_up("cpu", threads)
    console = Console(stderr=True, quiet=as_json)
    dialogues = list(DialogueReader(data))
    # Thresholds come from the other folds, not from held-out dialogues: every dialogue is learnt from.
    settings = replace(TrainingSettings(), seed=seed, held_out=0.0)
    settings = settings if epochs is None else replace(settings, epochs=epochs)

    def fit(known: list[Dialogue]) -> Predictor:
        return train(known, settings, ModelSettings()).model

    def fit_baseline(known: list[Dialogue]) -> Predictor:
        return TfidfRidge().fit(known)

    bar = Bar(console)
    with closing(bar):
        bar.start("folds", folds * (2 if with_baseline else 1))
        try:
            found = evaluate(
                dialogues, fit,
                baseline=fit_baseline if with_baseline else None,
                folds=folds, draws=draws, seed=seed, progress=bar.move,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{data}: {str(error).removeprefix('tercet.evaluate: ')}") from error
    if as_json:
        print_json(
            {"file": str(data), "dialogues": len(dialogues), "folds": folds, "draws": draws, "seed": seed} | found
        )
        return
    show(found, Console(highlight=False))


def show(found: dict[str, Any], console: Console) -> None:
    """A table of every task, and the figures of goals, slots and transcriptions against gold."""
    for task, figures in found.items():
        classes = figures.get("classes", {"": figures} if "accuracy" in figures else {})
        if not classes:
            console.print(f"{task}: {_line(figures)}", soft_wrap=True)
            continue
        others = [who for who in _OTHERS if who in next(iter(classes.values()))]
        table = Table(task, "model", *others)
        if "macro_f1" in figures:
            for name in ("accuracy", "macro_f1"):
                own = (f"{figures[who][name]:.3f}" if who in figures else "" for who in others)
                table.add_row(f"likeliest: {name}", f"{figures[name]:.3f}", *own)
        for name, own in classes.items():
            for each in DETECTION_FIGURES:
                words = (_beside(own[who], each) if who in own else "" for who in others)
                table.add_row(Text(f"{name} {each}".strip()), f"{own[each]:.3f}", *words)
        console.print(table)
    console.print("in brackets: the 95 % interval of the model's figure less this one, by a paired bootstrap")


def _line(figures: dict[str, Any]) -> str:
    values = ((name, each["f1"] if isinstance(each, dict) and "f1" in each else each) for name, each in figures.items())
    return ", ".join(f"{name} {value:.3f}" for name, value in values if isinstance(value, float))


def _beside(figures: dict[str, Any], name: str) -> str:
    below = figures["below"][name]
    return f"{figures[name]:.3f} ({below['low']:+.3f}..{below['high']:+.3f})"
