"""The controller of the weight of compute, on plants whose share falls as the weight grows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.nn import CostWeight


def run(steer: CostWeight, target: float, slope: float, noise: float, steps: int, seed: int) -> list[float]:
    """Shares of a plant: sigmoid(3 - slope weight), with noise."""
    rng, shares = np.random.default_rng(seed), []
    for _ in range(steps):
        share = 1 / (1 + math.exp(slope * steer.weight - 3))
        shares.append(share)
        steer.update(float(np.clip(share + noise * rng.standard_normal(), 0, 1)), target)
    return shares


@given(st.floats(0.1, 0.9), st.floats(1, 8), st.floats(0, 0.1), st.integers(0, 2**32))
def test_the_share_comes_to_the_target_and_stays(target: float, slope: float, noise: float, seed: int) -> None:
    shares = run(CostWeight(), target, slope, noise, 2000, seed)
    assert np.mean(shares[-500:]) == pytest.approx(target, abs=0.02)


def test_compute_is_free_where_the_target_is_met_anyway() -> None:
    steer = CostWeight()
    assert set(run(steer, target=0.97, slope=4, noise=0, steps=200, seed=0)) == {1 / (1 + math.exp(-3))}
    assert steer.weight == 0


@given(st.lists(st.floats(0, 1), max_size=20), st.lists(st.floats(0, 1), max_size=20))
def test_a_restored_controller_goes_on_as_before(first: list[float], second: list[float]) -> None:
    whole, part, rest = CostWeight(), CostWeight(), CostWeight()
    wanted = [whole.update(share, 0.4) for share in first + second][len(first) :]
    for share in first:
        part.update(share, 0.4)
    rest.restore(part.state())
    assert [rest.update(share, 0.4) for share in second] == wanted
    assert rest.state() == whole.state()


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"smoothing": 1.0}, {"smoothing": -0.1}, {"weight": -1.0}])
def test_arguments_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"tercet\.nn\.CostWeight: rate must be > 0, smoothing in \[0, 1\)"):
        CostWeight(**change)
