"""The learning curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from tercet.embedding.run import Epoch
from tercet.plotting import new_figure, write_figure

_LOSS, _MRR = "#4c6a92", "#c05a2e"


def plot_learning_curve(epochs: Sequence[Epoch], path: str | PathLike[str], *, title: str | None = None) -> None:
    """Write loss and validation MRR over epochs as a PNG (extra `plot`).

    Args:
        epochs: of a run, at least one.
        path: the file to write.
        title: above the picture.

    Raises:
        ImportError: matplotlib is missing. ValueError: there are no epochs.
    """
    if not epochs:
        raise ValueError("tercet.plot_learning_curve: epochs must be at least one, got none")
    figure = new_figure(7, 4)
    losses = figure.add_subplot()
    measures = losses.twinx()
    few = "o" if len(epochs) < 30 else None
    losses.plot([e.epoch for e in epochs], [e.loss for e in epochs], color=_LOSS, marker=few, markersize=3)
    validated = [(e.epoch, e.valid.mrr) for e in epochs if e.valid is not None]
    if validated:
        measures.plot(*zip(*validated, strict=True), color=_MRR, marker="o", markersize=4)
        best = max(validated, key=lambda point: point[1])
        measures.axvline(best[0], color=_MRR, linewidth=0.8, linestyle=":")
        measures.set_title(f"best MRR {best[1]:.3f} in epoch {best[0]}", loc="right", fontsize="medium", color=_MRR)
    if title:
        losses.set_title(title, loc="left", fontsize="medium")
    for axes, label, color in ((losses, "training loss", _LOSS), (measures, "validation MRR", _MRR)):
        axes.set_ylabel(label, color=color)
        axes.tick_params(axis="y", colors=color)
        axes.spines["top"].set_visible(False)
    losses.set_xlabel("epoch")
    losses.xaxis.get_major_locator().set_params(integer=True)
    measures.set_ylim(bottom=0)
    write_figure(figure, path)
