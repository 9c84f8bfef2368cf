"""Pictures: word errors against compute, and which blocks ran at which frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from tercet.plotting import new_figure, write_figure
from tercet.speech.digits import BLANK, WORDS
from tercet.speech.features import BINS, FRAME, HOP, RATE, WINDOW, silence_behind
from tercet.speech.model import DigitRecognizer
from tercet.speech.transcribing import transcribe

_ATTENTION, _FEED_FORWARD, _OFF = "#4c6a92", "#c05a2e", "#eeeeee"
_COLORS = ("#222222", "#c05a2e", "#4c6a92", "#5a8f5a", "#8a6aa8", "#a89060")


@dataclass(frozen=True)
class Point:
    """A recogniser in the plot of word errors against compute.

    Attributes:
        label: in the legend; beside the point where it has a series.
        compute_share, word_error_rate: as shares, not in percent.
        series: points of one series are joined.
    """

    label: str
    compute_share: float
    word_error_rate: float
    series: str = ""


def plot_compute(
    points: Sequence[Point],
    path: str | PathLike[str],
    *,
    title: str | None = None,
    whole: str = "those with every block on",
) -> None:
    """Write word error rate over share of compute as a PNG (extra `plot`).

    Args:
        points: at least one.
        path: the file to write.
        title: above the picture.
        whole: which multiply-adds the points' compute is a share of.

    Raises:
        ImportError: matplotlib is missing. ValueError: there are no points.
    """
    if not points:
        raise ValueError("tercet.speech.plot_compute: points must be at least one, got none")
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    for number, name in enumerate(dict.fromkeys(point.series or point.label for point in points)):
        own = sorted((p.compute_share, p.word_error_rate, p.label) for p in points if (p.series or p.label) == name)
        shares, errors = [100 * point[0] for point in own], [100 * point[1] for point in own]
        color = _COLORS[number % len(_COLORS)]
        axes.plot(shares, errors, color=color, marker="o", markersize=5, linewidth=1.2, label=name)
        if own[0][2] != name:
            for share, error, point in zip(shares, errors, own, strict=True):
                axes.annotate(point[2], (share, error), (4, 5), textcoords="offset points", fontsize=7, color=color)
    axes.set_xlabel(f"multiply-adds, % of {whole}")
    axes.set_ylabel("word error rate, %")
    axes.set_xlim(0, max(105.0, *(105 * point.compute_share for point in points)))
    axes.set_ylim(0, 120 * max(point.word_error_rate for point in points) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_OFF)
    axes.legend(frameon=False, fontsize="small")
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    write_figure(figure, path)


def plot_blocks(
    model: DigitRecognizer, samples: Tensor, path: str | PathLike[str], *, title: str | None = None
) -> None:
    """Write which blocks ran at which frame, above the spectrogram that they heard, as a PNG (extra `plot`).

    Args:
        model: in evaluation mode.
        samples: float [n] at 8 kHz.
        path: the file to write.
        title: above the picture.

    Raises:
        ImportError: matplotlib is missing. TypeError, ValueError, RuntimeError: see `transcribe`.
    """
    figure = new_figure(9, 5)
    found = transcribe(model, samples)
    num_layers, _, num_frames = found.gates.shape
    seconds = num_frames * FRAME / RATE
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(0.28 * num_layers, 1.4))
    picture = torch.zeros(2 * num_layers, num_frames)
    for layer in range(num_layers):
        picture[2 * layer], picture[2 * layer + 1] = found.gates[layer, 0] * 1, found.gates[layer, 1] * 2
    from matplotlib.colors import ListedColormap

    colors = ListedColormap([_OFF, _ATTENTION, _FEED_FORWARD])
    extent = (0, seconds, -0.5, 2 * num_layers - 0.5)
    above.imshow(picture.numpy(), cmap=colors, vmin=0, vmax=2, aspect="auto", interpolation="nearest", origin="lower",
                 extent=extent)  # fmt: skip
    above.set_yticks([2 * layer + 0.5 for layer in range(num_layers)])
    above.set_yticklabels([str(layer + 1) for layer in range(num_layers)])
    above.hlines([2 * layer - 0.5 for layer in range(1, num_layers)], 0, seconds, color="white", linewidth=2)
    above.set_ylabel("block")
    note = f"{100 * found.compute_share:.0f} % of the multiply-adds of all blocks on"
    above.set_title(note, loc="right", fontsize="medium")
    handles = [_patch(_ATTENTION, "attention"), _patch(_FEED_FORWARD, "feed-forward"), _patch(_OFF, "off")]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    behind = silence_behind(len(samples))  # as transcribe hears it
    heard = model.features.log_mel(torch.nn.functional.pad(samples[None].float(), (WINDOW - HOP, behind)))[0]
    below.imshow(
        heard.T.numpy(), aspect="auto", origin="lower", cmap="magma", extent=(0, len(heard) * HOP / RATE, 0, BINS)
    )
    below.set_ylabel("mel bin")
    below.set_xlabel("seconds")
    below.set_xlim(0, seconds)
    before = BLANK
    for frame, symbol in enumerate(found.path.tolist()):
        if symbol not in (BLANK, before):
            below.text(
                (frame + 1) * FRAME / RATE, BINS - 2, WORDS[symbol], color="white", fontsize=9, ha="center", va="top"
            )
        before = symbol
    if title:
        above.set_title(title, loc="left", fontsize="medium")
    write_figure(figure, path)


def _patch(color: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=color, label=label)
