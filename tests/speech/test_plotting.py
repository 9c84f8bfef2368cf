"""What the two pictures show: every point at its place, every block at its frames, every word where it was named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tercet.speech.digits import BLANK, WORDS
from tercet.speech.features import BINS, FRAME, HOP, RATE
from tercet.speech.model import DigitRecognizer
from tercet.speech.plotting import Point, plot_blocks, plot_compute
from tercet.speech.settings import ModelSettings
from tercet.speech.transcribing import transcribe

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were written, in order; no file is."""
    written: list[Any] = []
    monkeypatch.setattr("tercet.speech.plotting.write_figure", lambda figure, path: written.append(figure))
    return written


def test_compute_is_drawn_with_a_line_for_each_series(figures: list[Any], tmp_path: Path) -> None:
    curve = [Point("weight 2", 0.3, 0.2, "weights"), Point("weight 1", 0.5, 0.1, "weights")]
    plot_compute([Point("all_on", 1.0, 0.08), *curve], tmp_path / "x.png", title="digits", whole="theirs")
    axes = figures[0].axes[0]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"all_on": [[100, 8]], "weights": [[30, 20], [50, 10]]}
    notes = {note.get_text(): note.xy for note in axes.texts}
    assert notes == {"weight 2": (30, 20), "weight 1": (50, 10)}  # a point without a series has the legend alone
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["all_on", "weights"]
    assert axes.get_xlabel() == "multiply-adds, % of theirs"
    assert axes.get_title("left") == "digits"
    assert axes.get_xlim() == (0, 105)
    assert axes.get_ylim() == pytest.approx((0, 24))


def test_more_compute_than_everything_and_no_errors_stay_in_view(figures: list[Any], tmp_path: Path) -> None:
    plot_compute([Point("eager", 1.2, 0.0)], tmp_path / "x.png")
    assert figures[0].axes[0].get_xlim() == pytest.approx((0, 126))
    assert figures[0].axes[0].get_ylim() == (0, 1)
    with pytest.raises(ValueError, match="at least one"):
        plot_compute([], tmp_path / "x.png")


def test_blocks_are_drawn_where_they_ran(figures: list[Any], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DigitRecognizer(ModelSettings(dim=16, num_layers=3, num_heads=2, feed_forward_dim=32, window=5)).eval()
    for block in model.encoder.blocks:  # far from deciding alike everywhere
        block.attention_arbiter.bias.data.zero_()
        block.feed_forward_arbiter.bias.data.zero_()
    model.head.weight.data.mul_(20)  # so that digits are named
    samples = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, 5000)).float()
    samples[2000:3000] = 0
    plot_blocks(model, samples, tmp_path / "x.png", title="noise")
    found = transcribe(model, samples)
    above, below = figures[0].axes
    picture = np.asarray(above.images[0].get_array())
    assert 0 < found.gates.float().mean() < 1
    np.testing.assert_array_equal(picture[0::2], found.gates[:, 0].numpy() * 1)  # attention below, feed-forward above
    np.testing.assert_array_equal(picture[1::2], found.gates[:, 1].numpy() * 2)
    assert [label.get_text() for label in above.get_yticklabels()] == ["1", "2", "3"]
    assert above.get_title("right").startswith(f"{100 * found.compute_share:.0f} %")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["attention", "feed-forward", "off"]
    colors = [patch.get_facecolor() for patch in figures[0].legends[0].get_patches()]
    shown = above.images[0]
    assert colors == [tuple(shown.cmap(shown.norm(value))) for value in (1, 2, 0)]

    seconds = found.gates.shape[2] * FRAME / RATE
    assert tuple(above.images[0].get_extent()) == (0, seconds, -0.5, 5.5)
    heard = np.asarray(below.images[0].get_array())
    assert heard.shape[0] == BINS
    assert tuple(below.images[0].get_extent()) == (0, heard.shape[1] * HOP / RATE, 0, BINS)
    assert below.get_xlim() == (0, seconds)
    path = [BLANK, *found.path.tolist()]
    named = [(t, s) for t, (before, s) in enumerate(pairwise(path)) if s not in (BLANK, before)]
    assert named
    words = [(text.get_position()[0], text.get_text()) for text in below.texts]
    assert words == [((t + 1) * FRAME / RATE, WORDS[s]) for t, s in named]
