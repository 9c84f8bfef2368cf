"""Ridge regression: against the normal equations, and what it never fits is what it says of new items."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue_strategies import dialogues
from label_models import music
from tercet.labeling import Dialogue
from tercet.labeling.wide import FOLDS, Rows, Wide, dialogue_groups, joined, turn_groups


def drawn(rng: np.random.Generator, num_rows: int, num_features: int) -> tuple[Rows, torch.Tensor]:
    """Sparse rows, and the same as a matrix float64."""
    dense = rng.normal(size=(num_rows, num_features)) * (rng.random((num_rows, num_features)) < 0.4)
    rows = [(np.flatnonzero(row), row[np.flatnonzero(row)].astype(np.float32)) for row in dense]
    return joined(rows), torch.from_numpy(dense.astype(np.float32)).double()


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 40]), st.sampled_from([0, 3, 20]), st.integers(1, 3))
def test_weights_solve_the_normal_equations(seed: int, num_rows: int, num_features: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    rows, dense = drawn(rng, num_rows, num_features + 1)
    wanted = torch.from_numpy(rng.random((num_rows, outputs)).astype(np.float32))
    weights = torch.from_numpy(rng.integers(0, 3, (num_rows, outputs)).astype(np.float32))
    folds = torch.arange(num_rows) % FOLDS
    wide = Wide(num_features, outputs)
    figures = wide.fit(rows, wanted, weights, folds, (1.0,))

    def solved(weight: torch.Tensor, column: int) -> torch.Tensor:
        left = dense.T @ (weight[:, None] * dense) + torch.eye(num_features + 1, dtype=torch.float64)
        return torch.linalg.solve(left, dense.T @ (weight * wanted[:, column].double()))

    for column in range(outputs):
        own = weights[:, column].double()
        torch.testing.assert_close(wide.weight[:, column].double(), solved(own, column), rtol=1e-3, atol=1e-3)
        for row in range(num_rows):
            without = own * (folds != folds[row])
            want = dense[row] @ solved(without, column)
            torch.testing.assert_close(figures[row, column].double(), want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(wide(rows), rows.times(wide.weight))


@given(st.lists(dialogues(), min_size=1, max_size=4))
@settings(max_examples=20)
def test_features_are_those_of_two_items_or_more(some: list[Dialogue]) -> None:
    groups = [dialogue_groups(dialogue) for dialogue in some]
    wide = Wide.counted(groups, 1)
    met = [set(np.concatenate(each).view(np.int64).tolist()) for each in groups]
    want = sorted(f for f in set().union(*met) if sum(f in each for each in met) > 1)
    assert wide.hashes.tolist() == want
    for dialogue, own in zip(some, groups, strict=True):
        columns, values = wide.row(own)
        assert len(columns) == len(values)
        assert columns.max() == len(want)
        assert np.isfinite(values).all()
        assert len(turn_groups(dialogue)) == len(dialogue.turns)


def test_words_tell_their_side_and_place() -> None:
    """The same words by another speaker, or in another order, are other features."""
    a, b = (set(np.concatenate(dialogue_groups(music(n))).tolist()) for n in (0, 0))
    assert a == b
    turned = Dialogue("1", music(0).turns[::-1])
    assert set(np.concatenate(dialogue_groups(turned)).tolist()) != a
