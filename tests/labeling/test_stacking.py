"""What blocks and ridge count is measured on labels that the blocks have not learnt from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example as example_of
from hypothesis import given
from hypothesis import strategies as st

from label_models import SHORT, SIZES, music
from tercet.labeling import Dialogue, Labels, train
from tercet.labeling.model.heads import loss_of
from tercet.labeling.model.wide import FOLDS
from tercet.labeling.training import stacking
from tercet.labeling.training.preparing import _folds
from tercet.labeling.training.stacking import best_factors, hidden, is_apart


def drawn(seed: int, classes: int, worth: float, other: float) -> tuple[torch.Tensor, ...]:
    """Logits of blocks and ridge, labels that follow them by what they are worth, weights."""
    rng = np.random.default_rng(seed)
    blocks, ridge = (torch.from_numpy(rng.normal(size=(60, classes))) for _ in range(2))
    noisy = worth * blocks + other * ridge + torch.from_numpy(rng.normal(size=(60, classes)))
    weights = torch.from_numpy(rng.integers(0, 3, 60)).double()
    if classes == 1:
        return blocks[:, 0], ridge[:, 0], (noisy[:, 0] > 0).double(), weights
    return blocks, ridge, torch.nn.functional.one_hot(noisy.argmax(1), classes).double(), weights


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.floats(-1, 2), st.floats(-1, 2))
@example_of(159, 1, 0.0, -1.0)  # without bounds both would be negative
def test_factors_have_the_smallest_loss(seed: int, classes: int, worth: float, other: float) -> None:
    """Of all that are not negative: no step to either side is better."""
    blocks, ridge, wanted, weights = drawn(seed, classes, worth, other)

    def loss(a: float, b: float) -> float:
        found = loss_of(a * blocks + b * ridge, wanted, weights)
        assert found is not None
        return float(found) + 0.1 * ((a - 1) ** 2 + (b - 1) ** 2) / float(weights.sum())

    a, b = best_factors(blocks, ridge, wanted, weights).tolist()
    assert min(a, b) >= 0
    least = loss(a, b)
    for step in (-0.05, 0.05):
        assert a + step < 0 or least <= loss(a + step, b) + 1e-6
        assert b + step < 0 or least <= loss(a, b + step) + 1e-6


@pytest.mark.parametrize("count", [1, 30])
def test_few_labels_of_one_class_do_not_make_sure(count: int) -> None:
    logits = torch.full((count,), -3.0, dtype=torch.float64)
    factors = best_factors(logits, logits, torch.zeros(count).double(), torch.ones(count).double())
    assert bool((factors >= 1).all())
    assert bool((factors < 3).all())


@given(st.integers(1, 30_000))
def test_a_tenth_is_apart_in_runs_that_meet_all_folds(count: int) -> None:
    apart = [place for place in range(count) if is_apart(place, count)]
    if count < 4000:
        assert not apart
        return
    assert 0.08 * count <= len(apart) <= 0.12 * count
    assert sum(b - a > 1 for a, b in pairwise(apart)) <= 5
    assert set(_folds(count)[apart].tolist()) == set(range(FOLDS))


def test_what_is_hidden() -> None:
    some = train([music(number) for number in range(12)], SHORT, SIZES).model
    example = some.prepare(music(1), learn=True, wide=False)
    parts = [part for part in some.heads.scales if part != "whole_success"]
    for part in (*parts, "whole_success"):
        made = hidden(example, [part]).targets
        assert example.targets is not None
        assert made is not None
        name = "whole_weight" if part == "whole_success" else f"{part}_weight"
        differ = {key for key, value in vars(made).items() if not np.array_equal(value, vars(example.targets)[key])}
        assert differ == {name}
        assert not np.any(getattr(made, name))


def test_blocks_that_learn_by_heart_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are chance, each dialogue has words of its own: what the blocks learn of them holds for no other."""
    monkeypatch.setattr(stacking, "_FEWEST", 400)
    rng = np.random.default_rng(0)
    some: list[Dialogue] = []
    for number in range(400):
        dialogue = music(number)
        turns = (replace(dialogue.turns[0], text=f"word{number} again{number}", traces={}, categorical={}, numeric={}),)
        some.append(Dialogue(str(number), turns, Labels(failure_point={0: ("correct", "intent")[rng.integers(2)]})))
    model = train(some, replace(SHORT, epochs=6, held_out=0.0, learning_rate=1e-2), SIZES).model
    assert float(model.heads.factors[0, 0]) < 0.7


def test_few_dialogues_hide_nothing() -> None:
    found = train([music(number, ("intents",)) for number in range(12)], SHORT, SIZES).model
    assert found.heads.factors.tolist() == [[1.0, 1.0]]
