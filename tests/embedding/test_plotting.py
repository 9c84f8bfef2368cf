"""The learning curve is a PNG of what was measured; without matplotlib an error names the extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tercet.embedding import Epoch
from tercet.embedding.plotting import plot_learning_curve
from tercet.evaluation import RankingMetrics
from tercet.plotting import check_plotting


def epochs(count: int, every: int) -> list[Epoch]:
    return [
        Epoch(
            epoch,
            2 / epoch,
            RankingMetrics(epoch / count, 0, 0, 0, 1, 0, 1) if epoch % every == 0 else None,
            0.1,
            0.1,
        )
        for epoch in range(1, count + 1)
    ]


@pytest.mark.parametrize(("count", "every"), [(1, 1), (3, 5), (12, 2), (200, 10)])
def test_the_curve_is_drawn_and_written(tmp_path: Path, count: int, every: int) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed (extra `plot`)")
    drawn = []

    class Spy(figure.Figure):
        def savefig(self, *args: object, **options: object) -> None:
            drawn.extend([line.get_xydata().tolist() for line in axes.get_lines()] for axes in self.axes)
            super().savefig(*args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figure, "Figure", Spy)
        plot_learning_curve(epochs(count, every), tmp_path / "curve.png", title="l1")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    losses, measures = drawn
    assert losses == [[[epoch, 2 / epoch] for epoch in range(1, count + 1)]]
    validated = [[epoch, epoch / count] for epoch in range(every, count + 1, every)]
    assert measures[:1] == ([validated] if validated else [])


def test_an_empty_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs must be at least one, got none"):
        plot_learning_curve([], tmp_path / "curve.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'tercet\[plot\]'"):
        check_plotting()
