"""`tercet label sessions`: a log larger than memory as dialogues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tercet.cli.common import Json, print_json
from tercet.cli.progress import counting
from tercet.labeling import Dialogue, write_dialogues
from tercet.labeling.data.log_queries import Columns, Resources
from tercet.labeling.data.logs import SessionReader
from tercet.labeling.data.reading import check_suffix


def sessions_command(
    logs: Annotated[list[str], typer.Argument(metavar="LOG...", help="Parquet files, or patterns of their names.")],
    out: Annotated[Path, typer.Option(help="The file to write: .jsonl or .parquet.")],
    gap: Annotated[float, typer.Option(help="Seconds of silence after which a user begins a new session.")],
    user: Annotated[str, typer.Option(help="The column that says who talks.")] = "user",
    time_column: Annotated[str, typer.Option("--time", help="The column of time: seconds, or timestamps.")] = "time",
    speaker: Annotated[str, typer.Option(help="The column that says user or system.")] = "speaker",
    text: Annotated[str, typer.Option(help="The column of what was said.")] = "text",
    audio: Annotated[str | None, typer.Option(help="A column of paths of what was heard.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Another column to keep, may be repeated; default: all.")
    ] = None,
    max_turns: Annotated[int, typer.Option(min=1, help="A longer session is cut.")] = 1000,
    presorted: Annotated[
        bool, typer.Option("--presorted", help="Rows ascend by user and time: check this, and do not sort.")
    ] = False,
    memory_limit: Annotated[str, typer.Option(help="What DuckDB may take, such as 512MB or 4GB.")] = "1GB",
    temp_directory: Annotated[Path | None, typer.Option(help="Where rows are kept meanwhile.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of DuckDB; default: all cores.")] = None,
    as_json: Json = False,
) -> None:
    """Cut a log of what was said (Parquet, one row each, larger than memory) into sessions: dialogues by user.

    Of the other columns, true or false becomes feedback on the turn, text categorical and a number numeric.
    """
    check_suffix(out)
    others = None if columns is None else tuple(columns)
    start, turns = time.perf_counter(), 0
    with counting("rows", quiet=as_json) as (progress, bar):
        reader = SessionReader(
            logs,
            gap=gap,
            columns=Columns(user, time_column, speaker, text, audio, others),
            max_turns=max_turns,
            presorted=presorted,
            resources=Resources(memory_limit, temp_directory, threads),
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )

        def counted() -> Iterator[Dialogue]:
            nonlocal turns
            for dialogue in reader:
                turns += len(dialogue.turns)
                yield dialogue

        dialogues = write_dialogues(out, counted())
    seconds = time.perf_counter() - start
    if as_json:
        print_json({"file": str(out), "dialogues": dialogues, "turns": turns, "seconds": round(seconds, 3)})
        return
    Console(highlight=False).print(
        f"{out}: {dialogues:,} dialogues, {turns:,} turns, {turns / seconds:,.0f} turns a second",
        markup=False,
        soft_wrap=True,
    )
