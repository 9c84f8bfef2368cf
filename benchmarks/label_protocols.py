"""What the protocols of label models share: data sets, what was measured before, and how results are told."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from real_data import real_data
from tercet.evaluation.bootstrap import paired_bootstrap
from tercet.files import read_json, write_json
from tercet.labeling import CONVERTERS, Dialogue
from tercet.labeling.settings import ModelSettings, TrainingSettings

HERE = Path(__file__).resolve().parent
Figure = Callable[[Tensor], Tensor]


def parser_of(doc: str | None, folder: str) -> argparse.ArgumentParser:
    """The options of every protocol; a data set is in `folder` of TERCET_DATA/dialogue."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"the folder {folder}; default: in TERCET_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the .json and .md")
    parser.add_argument("--epochs", type=int, default=TrainingSettings().epochs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.set_defaults(folder=folder)
    return parser


def set_up(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with the folder of data found and the folder of work made."""
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.data = options.data or real_data("dialogue", options.folder)
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def read(name: str, path: Path) -> list[Dialogue]:
    """The dialogues of a data set."""
    return list(CONVERTERS[name](path))


def settings_of(training: TrainingSettings, sizes: ModelSettings) -> dict[str, Any]:
    """Settings as results keep them."""
    return {"training": asdict(training), "model": asdict(sizes)}


def measured(path: Path, settings: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` gives, from the file where it was measured before.

    Raises:
        ValueError: that was with other settings.
    """
    settings = json.loads(json.dumps(settings))
    if path.exists():
        found = read_json(path)
        if found["settings"] != settings:
            raise ValueError(f"{path}: it was measured with other settings than today's")
        return found
    found = {"settings": settings, **measure()}
    write_json(path, found)
    print(f"{path.name}: {found.get('seconds', 0):.0f} s", flush=True)
    return read_json(path)


def counts_of(found: Mapping[str, Any], name: str) -> Tensor:
    """Counts by dialogue that a file of `measured` keeps: float64 [num_dialogues, num_counts]."""
    return torch.tensor(found["counts"][name], dtype=torch.float64)


def difference(ours: Tensor, theirs: Tensor, figure: Figure, *, resamples: int = 2000) -> dict[str, float]:
    """Ours less theirs, by a paired bootstrap over units, as JSON."""
    found = paired_bootstrap(ours, theirs, lambda counts: {"figure": figure(counts)}, resamples=resamples)
    return {key: round(value, 6) for key, value in asdict(found["figure"]).items()}


def interval(found: Mapping[str, float], digits: int = 3) -> str:
    """A difference with its 95 % interval."""
    shown = (f"{found[key]:+.{digits}f}" for key in ("difference", "low", "high"))
    return "{} ({} .. {})".format(*shown)


def rows(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table: the first column is text, numbers have three digits."""
    made = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for line in lines:
        cells = (f"{cell:.3f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)
                 for cell in line)  # fmt: skip
        made.append("| " + " | ".join(cells) + " |")
    return made


def machine(threads: int) -> str:
    """Where it was measured."""
    plural = "s" if threads > 1 else ""
    return f"{platform.machine()}, {platform.system()}, torch {torch.__version__}, {threads} thread{plural}"
