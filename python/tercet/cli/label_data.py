"""`tercet label convert` and `check`: data sets as dialogues, and what a file of dialogues holds."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, print_json
from tercet.cli.progress import counting
from tercet.labeling import CONVERTERS, Dialogue, DialogueReader, Summary, write_dialogues
from tercet.labeling.data.reading import check_suffix

_SETS = ", ".join(CONVERTERS)
_SHOWN_NAMES = 6  # of a task, the most frequent


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
    with counting("dialogues", quiet=as_json) as (progress, task):
        converted = summary.counted(CONVERTERS[data_set](path))
        write_dialogues(out, _watched(converted, progress, task))
    seconds = round(time.perf_counter() - start, 3)
    _show(summary, {"file": str(out), "seconds": seconds}, as_json)


def check_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file of dialogues.")],
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Count malformed lines and go on; else the first is an error.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every line of a file of dialogues and count what it holds."""
    summary = Summary()
    with counting("checking", quiet=as_json) as (progress, task):
        reader = DialogueReader(
            path,
            skip_malformed=skip_malformed,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        for _ in summary.counted(reader):
            pass
    say_skipped(reader)
    _show(summary, {"file": str(path), "skipped": reader.skipped}, as_json)


def say_skipped(reader: DialogueReader) -> None:
    """How many malformed lines were skipped, on standard error, if any."""
    if reader.first_skipped is not None:
        Console(stderr=True).print(
            f"skipped {reader.skipped:,} malformed; the first: {reader.first_skipped}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


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
    table = Table("task", "dialogues", "labels", "annotated", "judged", "most frequent")
    for task, count in counts["tasks"].items():
        names = list(count["names"].items())
        shown = ", ".join(f"{name} {number:,}" for name, number in names[:_SHOWN_NAMES])
        rest = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        numbers = (f"{count[key]:,}" for key in ("dialogues", "labels", "annotated", "judged"))
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
