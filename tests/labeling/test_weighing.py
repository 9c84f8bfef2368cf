"""What blocks and ridge are worth is measured on dialogues that only ridge has learnt from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from label_models import SHORT, SIZES, music
from tercet.labeling import Dialogue, Labels, train
from tercet.labeling.model.heads import loss_of
from tercet.labeling.training import weighing
from tercet.labeling.training.weighing import keeps_apart, stacked


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.floats(-1, 2), st.floats(-1, 2))
def test_factors_have_the_smallest_loss(seed: int, classes: int, worth: float, other: float) -> None:
    """Of all that are not negative: no step to either side is better."""
    rng = np.random.default_rng(seed)
    blocks, ridge = (torch.from_numpy(rng.normal(size=(60, classes))) for _ in range(2))
    noisy = worth * blocks + other * ridge + torch.from_numpy(rng.normal(size=(60, classes)))
    if classes == 1:
        blocks, ridge, wanted = blocks[:, 0], ridge[:, 0], (noisy[:, 0] > 0).double()
    else:
        wanted = torch.nn.functional.one_hot(noisy.argmax(1), classes).double()
    weights = torch.from_numpy(rng.integers(0, 3, 60)).double()

    def loss(a: float, b: float) -> float:
        found = loss_of(a * blocks + b * ridge, wanted, weights)
        assert found is not None
        return float(found)

    a, b = stacked(blocks, ridge, wanted, weights).tolist()
    assert min(a, b) >= 0
    least = loss(a, b)
    for step in (-0.05, 0.05):
        assert a + step < 0 or least <= loss(a + step, b) + 1e-6
        assert b + step < 0 or least <= loss(a, b + step) + 1e-6


@given(st.integers(1, 30_000))
def test_a_tenth_is_kept_apart_in_runs(count: int) -> None:
    apart = [place for place in range(count) if keeps_apart(place, count)]
    if count < 4000:
        assert not apart
        return
    assert 0.08 * count <= len(apart) <= 0.12 * count
    assert sum(b - a > 1 for a, b in pairwise(apart)) <= 5


def test_blocks_that_learn_by_heart_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are chance, each dialogue has words of its own: what the blocks learn of them holds for no other."""
    monkeypatch.setattr(weighing, "_FEWEST", 400)
    rng = np.random.default_rng(0)
    some: list[Dialogue] = []
    for number in range(400):
        dialogue = music(number)
        turns = (replace(dialogue.turns[0], text=f"word{number} again{number}", traces={}, categorical={}, numeric={}),)
        some.append(Dialogue(str(number), turns, Labels(failure_point={0: ("correct", "intent")[rng.integers(2)]})))
    model = train(some, replace(SHORT, epochs=6, held_out=0.0, learning_rate=1e-2), SIZES).model
    assert float(model.heads.trust[0, 0]) < 0.3


def test_few_dialogues_all_teach() -> None:
    found = train([music(number, ("intents",)) for number in range(12)], SHORT, SIZES).model
    assert found.heads.trust.tolist() == [[1.0, 1.0]]
