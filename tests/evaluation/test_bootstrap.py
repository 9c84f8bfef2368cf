"""The paired bootstrap: against a case worked out by hand, against resampling one by one, and where it must not move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tercet.evaluation.bootstrap import paired_bootstrap

seeds = st.integers(0, 2**32 - 1)


def share_of(counts: Tensor) -> Tensor:
    return counts[..., 0] / counts[..., 1].clamp(min=1)


def share(counts: Tensor) -> dict[str, Tensor]:
    return {"share": share_of(counts), "first": counts[..., 0]}


def test_every_resample_of_three_units() -> None:
    ours = torch.tensor([[1.0, 1.0], [3.0, 4.0], [0.0, 2.0]])
    theirs = torch.tensor([[0.0, 1.0], [1.0, 4.0], [1.0, 2.0]])
    found = paired_bootstrap(ours, theirs, share, resamples=60_000, seed=3)["share"]
    assert found.ours == pytest.approx(4 / 7)
    assert found.theirs == pytest.approx(2 / 7)
    assert found.difference == pytest.approx(2 / 7)
    # The 27 ordered draws are equally likely.
    draws = [list(units) for units in itertools.product(range(3), repeat=3)]
    exact = [float(share_of(ours[units].sum(0)) - share_of(theirs[units].sum(0))) for units in draws]
    below = sum(each <= 0 for each in exact) / len(draws)
    assert below == pytest.approx(7 / 27)  # the last unit three times, or twice
    assert found.p == pytest.approx(below, abs=0.005)
    assert found.low == pytest.approx(np.quantile(exact, 0.025, method="inverted_cdf"), abs=1e-6)
    assert found.high == pytest.approx(np.quantile(exact, 0.975, method="inverted_cdf"), abs=1e-6)


@given(seeds, st.integers(1, 8), st.integers(1, 3))
def test_a_system_is_not_above_itself_and_sides_change_sign(seed: int, num_units: int, repetitions: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = torch.randint(0, 5, (2, repetitions, num_units, 2), generator=generator).double().unbind(0)
    itself = paired_bootstrap(ours, ours, share, resamples=50, seed=seed % 1000)["share"]
    assert (itself.difference, itself.low, itself.high, itself.p) == (0.0, 0.0, 0.0, 1.0)
    there, back = (
        paired_bootstrap(*pair, share, resamples=50, seed=seed % 1000)["share"]
        for pair in ((ours, theirs), (theirs, ours))
    )
    assert there.difference == -back.difference
    assert there.low == pytest.approx(-back.high, abs=1e-12)


def test_repetitions_are_averaged_within_a_resample() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.rand(2, 4, 30, 2, generator=generator, dtype=torch.float64).unbind(0)
    found = paired_bootstrap(ours, theirs, share, resamples=400, seed=1)["first"]
    together = paired_bootstrap(ours.mean(0), theirs.mean(0), share, resamples=400, seed=1)["first"]
    assert found.difference == pytest.approx(together.difference)  # a sum is linear, so the order does not matter
    assert (found.low, found.high, found.p) == pytest.approx((together.low, together.high, together.p))


def test_resamples_do_not_depend_on_how_many_are_weighed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.rand(2, 12, 2, generator=generator).unbind(0)
    whole = paired_bootstrap(ours, theirs, share, resamples=300)
    monkeypatch.setattr("tercet.evaluation.bootstrap._PART", 7)
    assert paired_bootstrap(ours, theirs, share, resamples=300) == whole


@pytest.mark.parametrize(
    ("ours", "theirs", "resamples", "message"),
    [
        (torch.ones(0, 2), torch.ones(0, 2), 9, r"ours must be \[..., num_units, num_counts\] with units, got \[0, 2\]"),
        (torch.ones(2), torch.ones(2), 9, r"ours must be .* got \[2\]"),
        (torch.ones(3, 2), torch.ones(2, 2), 9, r"theirs must be of the same repetitions and units as ours, \[3\], got \[2\]"),
        (torch.ones(3, 2), torch.ones(3, 2), 0, r"resamples must be a positive integer, got 0"),
    ],
)  # fmt: skip
def test_errors(ours: Tensor, theirs: Tensor, resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"tercet.paired_bootstrap: {message}"):
        paired_bootstrap(ours, theirs, share, resamples=resamples)


def test_counts_must_be_floats() -> None:
    with pytest.raises(TypeError, match=r"tercet.paired_bootstrap: ours must be float32"):
        paired_bootstrap(torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2), share)
