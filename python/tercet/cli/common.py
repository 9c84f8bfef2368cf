"""Options that commands share, and the two ways to answer: for people (rich) and for programs (`--json`)."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's setting.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn; the same seed gives the same result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output and nothing else.")]


def set_up(device: str, threads: int | None) -> torch.device:
    """The device that was asked for, checked; sets torch's number of threads.

    Raises:
        ValueError: the device has no such name or is not on this machine.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {device!r}")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device here; use --device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: torch finds {torch.cuda.device_count()} CUDA devices, counted from 0")
    if threads is not None:
        torch.set_num_threads(threads)
    return chosen


def print_json(value: dict[str, Any]) -> None:
    """One JSON object to standard output."""
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def progress_bar(console: Console) -> Progress:
    """A bar that vanishes when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}")
    return Progress(*columns, note, console=console, transient=True, disable=not console.is_terminal)
