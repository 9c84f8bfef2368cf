"""`tercet label agree`: how far annotators agree, and what to annotate next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, print_json
from tercet.cli.progress import counting
from tercet.labeling import (
    TASKS,
    Agreement,
    DialogueReader,
    Judgements,
    Summary,
    Uncertain,
    agreement,
    consensus,
    judgements,
    least_certain,
)

_SHOWN_ANNOTATORS = 20


def agree_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file of annotated dialogues.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="A task to compare, may be repeated; default: all.")
    ] = None,
    budget: Annotated[
        int, typer.Option(min=0, help="List so many items where another annotation pays most; not of transcription.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Say how far annotators agree, by task: pairwise, Krippendorff's alpha, each with the majority of the others."""
    for task in tasks or ():
        if task not in TASKS:
            raise ValueError(f"--task must be one of {', '.join(TASKS)}, got {task!r}")
    with counting("reading", quiet=as_json) as (progress, bar):
        reader = DialogueReader(path, progress=lambda done, total: progress.update(bar, completed=done, total=total))
        judged = judgements(Summary().counted(reader), dict.fromkeys(tasks or TASKS))
    figures, open_items, left_out = _compared(judged, budget)
    left_out |= {task: "no annotator has labels of it" for task in tasks or () if task not in judged}
    if left_out and (tasks or not figures):
        task, reason = next(iter(left_out.items()))
        raise ValueError(f"{path}: {task}: {reason}")
    if not figures:
        raise ValueError(f"{path}: no annotator has labels of any task")
    if not as_json:
        _show_agreement(figures, open_items, left_out)
        return
    found: dict[str, Any] = {"file": str(path), "tasks": {task: each.to_json() for task, each in figures.items()}}
    found["left_out"] = left_out
    if budget:
        found["next"] = [{"task": task, **each.item._asdict(), **vars(each)} for task, each in open_items]
        for each in found["next"]:
            del each["item"]
    print_json(found)


def _compared(
    judged: dict[str, Judgements], budget: int
) -> tuple[dict[str, Agreement], list[tuple[str, Uncertain]], dict[str, str]]:
    """Figures by task, the `budget` least certain items of all tasks, and why the other tasks have no figures."""
    figures: dict[str, Agreement] = {}
    open_items: list[tuple[str, Uncertain]] = []
    left_out: dict[str, str] = {}
    for task, said in judged.items():
        model = None if task == "transcription" else consensus(said)  # its labels are too many for tables of confusions
        try:
            figures[task] = agreement(said, model)
        except ValueError as error:
            left_out[task] = str(error).removeprefix("tercet.agreement: ")
            continue
        if model is not None:
            open_items += ((task, each) for each in least_certain(said, model, budget))
    open_items.sort(key=lambda pair: pair[1].confidence)
    return figures, open_items[:budget], left_out


def _show_agreement(
    figures: dict[str, Agreement], open_items: list[tuple[str, Uncertain]], left_out: dict[str, str]
) -> None:
    console = Console(highlight=False)
    table = Table("task", "items", "compared", "annotators", "judgements", "pairwise", "alpha")
    for task, each in figures.items():
        counts = (each.items, each.compared_items, len(each.annotators), each.judgements)
        table.add_row(task, *(f"{count:,}" for count in counts), _share(each.pairwise), _share(each.alpha))
    console.print(table)
    for task, reason in left_out.items():
        console.print(f"{task}: {reason}", markup=False, soft_wrap=True)
    _show_annotators(console, figures)
    if open_items:
        table = Table("next to annotate", "task", "place", "likeliest", "confidence", "judgements")
        for task, item in open_items:
            dialogue, place = item.item
            shown = (Text(dialogue), task, "-".join(map(str, place)), Text(item.label))
            table.add_row(*shown, _share(item.confidence), str(item.judgements))
        console.print(table)


def _show_annotators(console: Console, figures: dict[str, Agreement]) -> None:
    """Those first who agree least."""
    means: dict[str, list[float]] = {}
    for each in figures.values():
        for name, annotator in each.annotators.items():
            means.setdefault(name, []).extend([] if annotator.agreement is None else [annotator.agreement])
    names = sorted(means, key=lambda name: sum(means[name]) / len(means[name]) if means[name] else 1.0)
    by_name = Table("annotator, with the majority of the others", *figures)
    for name in names[:_SHOWN_ANNOTATORS]:
        found = (each.annotators.get(name) for each in figures.values())
        by_name.add_row(Text(name), *(_share(each.agreement) if each else "" for each in found))
    console.print(by_name)
    if len(names) > _SHOWN_ANNOTATORS:
        console.print(f"and {len(names) - _SHOWN_ANNOTATORS:,} who agree more; --json has all")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
