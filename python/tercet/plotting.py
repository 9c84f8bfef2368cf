"""Figures as PNG files, by matplotlib where it is installed (extra `plot`); no display is needed."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import Any

from tercet.files import write_bytes


def check_plotting() -> None:
    """Raises ImportError, naming the extra, where there is no matplotlib."""
    _figure_class()


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    return _figure_class()(figsize=(width, height), layout="constrained")


def write_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure as a PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(Path(path), picture.getvalue())


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install 'tercet[plot]'") from error
    return Figure
