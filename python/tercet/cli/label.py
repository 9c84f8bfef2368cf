"""`tercet label`: bring dialogues into the format of labels, check a file of them, compare annotators, make labels."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, print_json, progress_bar
from tercet.cli.label_defects import defects_command
from tercet.cli.label_explore import explore_command
from tercet.cli.label_logs import sessions_command
from tercet.cli.label_train import generate_command, pretrain_command, train_command
from tercet.labeling import (
    CONVERTERS,
    TASKS,
    Agreement,
    Dialogue,
    DialogueReader,
    Judgements,
    Summary,
    Uncertain,
    agreement,
    consensus,
    judgements,
    least_certain,
    write_dialogues,
)
from tercet.labeling.reading import check_suffix

app = typer.Typer(
    no_args_is_help=True, help="Label dialogues: their format, how far annotators agree, and a model that labels."
)

app.command("defects", epilog="Example: tercet label defects --data calls.jsonl --always stop --top 50")(
    defects_command
)
app.command(
    "explore", epilog="Example: tercet label explore --model MODEL --data calls.jsonl --budget 500 --out ask.jsonl"
)(explore_command)
app.command("sessions", epilog="Example: tercet label sessions 'logs/*.parquet' --out calls.jsonl --gap 300")(
    sessions_command
)
app.command("pretrain", epilog="Example: tercet label pretrain --data logs.jsonl --out start")(pretrain_command)
app.command("train", epilog="Example: tercet label train --data labelled.jsonl --out model")(train_command)
app.command(
    "generate",
    epilog="Example: tercet label generate --model model --data logs.jsonl --min-precision 0.9 --out out.jsonl",
)(generate_command)

_SETS = ", ".join(CONVERTERS)
_SHOWN_NAMES = 6  # of a task, the most frequent
_SHOWN_ANNOTATORS = 20


@app.command("convert", epilog="Example: tercet label convert sgd dstc8-schema-guided-dialogue/dev --out sgd-dev.jsonl")
def convert_command(
    data_set: Annotated[str, typer.Argument(metavar="NAME", help=f"The data set: {_SETS}.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Its folder, or one of its files.")],
    out: Annotated[Path, typer.Option(help="The file to write: .jsonl or .parquet.")],
    as_json: Json = False,
) -> None:
    """Write a data set's dialogues, with its labels, as JSON lines or Parquet, and count them."""
    if data_set not in CONVERTERS:
        near = difflib.get_close_matches(data_set, CONVERTERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"NAME must be one of {_SETS}, got {data_set!r}{hint}")
    check_suffix(out)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    start, summary = time.perf_counter(), Summary()
    with _progress(as_json, "dialogues") as (progress, task):
        converted = summary.counted(CONVERTERS[data_set](path))
        write_dialogues(out, _watched(converted, progress, task))
    seconds = round(time.perf_counter() - start, 3)
    _show(summary, {"file": str(out), "seconds": seconds}, as_json)


@app.command("check", epilog="Example: tercet label check dialogues.jsonl --skip-malformed")
def check_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file of dialogues.")],
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Count malformed lines and go on; else the first is an error.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every line of a file of dialogues and count what it holds."""
    summary = Summary()
    with _progress(as_json, "checking") as (progress, task):
        reader = DialogueReader(
            path,
            skip_malformed=skip_malformed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        for _ in summary.counted(reader):
            pass
    if reader.first_skipped is not None:
        Console(stderr=True).print(
            f"skipped {reader.skipped:,} malformed; the first: {reader.first_skipped}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    _show(summary, {"file": str(path), "skipped": reader.skipped}, as_json)


@app.command("agree", epilog="Example: tercet label agree stc3.jsonl --task intents")
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
    with _progress(as_json, "reading") as (progress, bar):
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


@contextmanager
def _progress(as_json: bool, what: str) -> Iterator[tuple[Progress, TaskID]]:
    with progress_bar(Console(stderr=True, quiet=as_json)) as progress:
        yield progress, progress.add_task(what, total=None, note="")


def _watched(dialogues: Iterable[Dialogue], progress: Progress, task: TaskID) -> Iterator[Dialogue]:
    for dialogue in dialogues:
        yield dialogue
        progress.advance(task)


def _show(summary: Summary, more: dict[str, Any], as_json: bool) -> None:
    counts = summary.to_json()
    if as_json:
        print_json(counts | more)
        return
    console = Console(highlight=False)
    table = Table("task", "dialogues", "labels", "by annotators", "most frequent")
    for task, count in counts["tasks"].items():
        names = list(count["names"].items())
        shown = ", ".join(f"{name} {number:,}" for name, number in names[:_SHOWN_NAMES])
        rest = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        numbers = (f"{count[key]:,}" for key in ("dialogues", "labels", "annotated"))
        table.add_row(task, *numbers, Text(shown + rest))  # a name may hold what rich would take for markup
    if counts["tasks"]:
        console.print(table)
    skipped = f", {more['skipped']:,} malformed lines skipped" if more.get("skipped") else ""
    console.print(
        f"{more['file']}: {summary.dialogues:,} dialogues, {summary.turns:,} turns ({summary.user_turns:,} of users),"
        f" {summary.annotations:,} annotations by {len(summary.annotators):,} annotators{skipped}",
        markup=False,
        soft_wrap=True,
    )


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
