"""Ridge regression: against the normal equations, and what it never fits is what it says of new items."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue_strategies import dialogues
from label_models import music
from tercet.labeling import Dialogue
from tercet.labeling.model.wide import FOLDS, Rows, Wide, dialogue_groups, turn_groups


def drawn(rng: np.random.Generator, num_rows: int, num_features: int) -> tuple[Rows, torch.Tensor]:
    """Sparse rows, and the same as a matrix float64."""
    dense = rng.normal(size=(num_rows, num_features)) * (rng.random((num_rows, num_features)) < 0.4)
    row, column = np.nonzero(dense)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=num_rows))])
    values = torch.from_numpy(dense[row, column].astype(np.float32))
    return Rows(torch.from_numpy(column), values, torch.from_numpy(offsets)), torch.from_numpy(dense).float().double()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 40]), st.sampled_from([0, 3, 20]), st.integers(1, 3))
def test_weights_solve_the_normal_equations(seed: int, num_rows: int, num_features: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    rows, dense = drawn(rng, num_rows, num_features + 1)
    wanted = torch.from_numpy(rng.random((num_rows, outputs)).astype(np.float32))
    weights = torch.from_numpy(rng.integers(0, 3, (num_rows, outputs)).astype(np.float32))
    folds = torch.arange(num_rows) % FOLDS
    wide = Wide(num_features, outputs)
    figures = wide.fit(rows, wanted, weights, folds, (1.0,))

    def solved(weight: torch.Tensor, column: int) -> tuple[torch.Tensor, float]:
        """The weights, and how far ours may lie from them: a residual of 1e-4 of the right side, penalty 1."""
        left = dense.T @ (weight[:, None] * dense) + torch.eye(num_features + 1, dtype=torch.float64)
        right = dense.T @ (weight * wanted[:, column].double())
        return torch.linalg.solve(left, right), 1.2e-4 * float(right.norm()) + 1e-5

    for column in range(outputs):
        own = weights[:, column].double()
        want, most = solved(own, column)
        assert float((wide.weight[:, column].double() - want).norm()) <= most
        for row in range(num_rows):
            want, most = solved(own * (folds != folds[row]), column)
            assert float((figures[row, column].double() - dense[row] @ want).abs()) <= most * float(dense[row].norm())
    torch.testing.assert_close(wide(rows), rows.times(wide.weight))


@given(st.lists(dialogues(), min_size=1, max_size=4))
@settings(max_examples=20)
def test_features_are_those_of_two_items_or_more(some: list[Dialogue]) -> None:
    groups = [dialogue_groups(dialogue) for dialogue in some]
    wide = Wide.counted(groups, 1)
    met = [set(np.concatenate(each).view(np.int64).tolist()) for each in groups]
    want = sorted(f for f in set().union(*met) if sum(f in each for each in met) > 1)
    assert wide.hashes.tolist() == want
    rows = wide.rows(groups)
    dense = torch.zeros(len(some), len(want) + 1)
    for number, own in enumerate(groups):  # by the definition
        dense[number, -1] = 3.0
        for group in own:
            counts = Counter(feature for feature in group.view(np.int64).tolist() if feature in want)
            weights = {
                f: (1 + math.log(n)) * math.log((1 + len(some)) / (1 + sum(f in m for m in met)))
                for f, n in counts.items()
            }
            length = math.sqrt(sum(weight**2 for weight in weights.values()))
            for feature, weight in weights.items():
                dense[number, want.index(feature)] += weight / max(length, 1e-9)
    torch.testing.assert_close(rows.times(torch.eye(len(want) + 1)), dense)
    for number, own in enumerate(groups):
        alone = wide.rows([own])
        assert torch.equal(alone.values, rows.values[rows.offsets[number] : rows.offsets[number + 1]])
    assert all(len(turn_groups(dialogue)) == len(dialogue.turns) for dialogue in some)


def test_words_tell_their_side_and_place() -> None:
    """The same words by another speaker, or in another order, are other features."""
    a, b = (set(np.concatenate(dialogue_groups(music(n))).tolist()) for n in (0, 0))
    assert a == b
    turned = Dialogue("1", music(0).turns[::-1])
    assert set(np.concatenate(dialogue_groups(turned)).tolist()) != a
