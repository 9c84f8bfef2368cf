"""`tercet label explore`: the turns whose feedback would help a model most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.common import Json, Threads, print_json, set_up
from tercet.cli.label_defects import Always, Cap, User, fitted
from tercet.cli.progress import counting
from tercet.files import write_text
from tercet.labeling.data.reading import DialogueReader
from tercet.labeling.feedback.exploration import EXPLORED, explore

_SHOWN = 20


def explore_command(
    model: Annotated[Path, typer.Option(help="The model directory.")],
    data: Annotated[Path, typer.Option(help="A .jsonl or .parquet file of dialogues to choose from.")],
    budget: Annotated[int, typer.Option(min=1, help="How many turns to choose.")],
    out: Annotated[Path | None, typer.Option(help="Write the list here, a JSON object a line, the best first.")] = None,
    task: Annotated[str, typer.Option(help=f"What to ask about: {', '.join(EXPLORED)}.")] = "defects",
    use_feedback: Annotated[
        bool, typer.Option("--feedback", help="The file has feedback: take into account what it tells of requests.")
    ] = False,
    per_request: Annotated[int, typer.Option(min=1, help="The most turns of one request.")] = 3,
    user: User = "user",
    always: Always = None,
    cap: Cap = 1.0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Choose the turns whose feedback would help most: where the model is unsure, of what many users ask, each once."""
    from tercet.labeling.model.storage import load_model

    set_up("cpu", threads)
    if task not in EXPLORED:
        raise ValueError(f"--task must be one of {', '.join(EXPLORED)}, got {task!r}")
    labels, _ = load_model(model)
    known = fitted(data, as_json, user, always, cap) if use_feedback else None
    with counting("predicting", quiet=as_json) as (progress, bar):
        reader = DialogueReader(data, progress=lambda done, total: progress.update(bar, completed=done, total=total))
        chosen = explore(
            DialogueReader(data), labels.predictions(reader), budget=budget, task=task, feedback=known, user=user,
            per_request=per_request,
        )  # fmt: skip
    found = [each.to_json() for each in chosen]
    if out is not None:
        write_text(out, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in found))
    if as_json:
        print_json({"model": str(model), "file": str(data), "task": task, "chosen": found})
        return
    console = Console(highlight=False)
    table = Table("dialogue", "turn", "request", "users", "wrong", "bits")
    for each in chosen[:_SHOWN]:
        names = Text(each.dialogue), str(each.turn), Text(each.request.text)
        table.add_row(*names, f"{each.users:,}", f"{each.probability:.0%}", f"{each.gain:.2f}")
    console.print(table)
    where = "" if out is None else f" in {out}"
    console.print(f"{len(chosen):,} turns{where}", markup=False, soft_wrap=True)
