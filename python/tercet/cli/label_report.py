"""`tercet label report`: a page to look at the labels of an annotator or of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercet.cli.common import Json, Seed, print_json
from tercet.cli.progress import counting
from tercet.files import read_json
from tercet.labeling.data.reading import DialogueReader
from tercet.labeling.evaluation.report import write_report


def report_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file of annotated dialogues.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    annotator: Annotated[str, typer.Option(help="Whose labels to show.")] = "tercet",
    figures: Annotated[
        Path | None, typer.Option(help="JSON to show too: of `tercet label eval --json`, or a report of `generate`.")
    ] = None,
    dialogues: Annotated[int, typer.Option(min=0, help="How many dialogues to show, drawn at random.")] = 30,
    title: Annotated[str | None, typer.Option(help="Of the page; default: the name of FILE.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write one HTML file: precision against coverage, confusions, the surest errors, dialogues with their labels."""
    more = None if figures is None else read_json(figures)
    with counting("reading", quiet=as_json) as (progress, bar):
        reader = DialogueReader(path, progress=lambda done, total: progress.update(bar, completed=done, total=total))
        found = write_report(
            out, reader, annotator=annotator, title=title or f"Labels of {path.name}", figures=more,
            examples=dialogues, seed=seed,
        )  # fmt: skip
    if as_json:
        tasks = {
            task: {"labels": each.labels, "judged": each.judged, "right": each.right, "gold": each.gold}
            for task, each in found.items()
        }
        print_json({"file": str(out), "tasks": tasks})
        return
    console = Console(highlight=False)
    for task, each in found.items():
        judged = f", {each.right:,} of {each.judged:,} right" if each.judged else ""
        console.print(f"{task}: {each.labels:,} labels{judged}", markup=False, soft_wrap=True)
    console.print(f"{out}", markup=False, soft_wrap=True)
