"""Ridge regression: against the normal equations, and what it never fits is what it says of new items."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue_strategies import dialogues
from label_models import music
from tercet.labeling import Dialogue, Labels, ModelSettings, Trace, TrainingSettings, Turn
from tercet.labeling.model.batches import wide_figures
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.wide import FOLDS, Rows, Wide, dialogue_groups, turn_groups
from tercet.labeling.training.preparing import Survey, fit_wide


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


def understood(number: int, text: str, intent: str, type_: str, right: bool) -> Dialogue:
    """One turn, what was made of it, and whether that is right."""
    trace = Trace(decision=f"{intent} [{type_}]")
    turn = Turn("user", text, categorical={"intent": intent}, traces={"understanding": trace})
    return Dialogue(str(number), (turn,), Labels(failure_point={0: "correct" if right else "intent"}))


def fitted(some: list[Dialogue]) -> tuple[LabelModel, torch.Tensor]:
    """A model whose ridge regression is fitted, and the cross-fitted figures of turns."""
    facts = Survey(iter(some), TrainingSettings(held_out=0.0), ModelSettings()).facts
    model = LabelModel(ModelSettings(dim=8, num_heads=1, feed_forward_dim=8), facts)
    examples = [model.prepare(dialogue, learn=True, wide=False) for dialogue in some]
    whole, turns, figures = fit_wide(examples, facts.tasks)
    model.set_wide(whole, turns)
    return model, torch.cat([of_turns for _, of_turns in figures])


@pytest.mark.parametrize(
    "intents",
    [
        {"rain": ("weather", "date"), "song": ("music", "genre")},
        {"rain": ("ask", "date"), "song": ("ask", "genre")},  # only the trace tells
    ],
)
def test_words_are_crossed_with_what_is_known(intents: dict[str, tuple[str, str]]) -> None:
    """Whether an intent or an entity suits the words: words alone and what is known alone say nothing of it."""
    rng = np.random.default_rng(0)
    some = []
    for number in range(80):
        word, right = ("rain", "song")[rng.integers(2)], bool(rng.integers(2))
        other = "song" if word == "rain" else "rain"
        some.append(understood(number, f"{word} please", *intents[word if right else other], right))
    model, figures = fitted(some[:60])
    _, of_new = wide_figures([model.prepare(dialogue) for dialogue in some[60:]], model.wide)
    assert of_new is not None
    for found, own in ((figures, some[:60]), (of_new, some[60:])):
        names = [model.classes.failure_point[place] for place in found.argmax(1).tolist()]
        assert names == [(dialogue.labels.failure_point or {})[0] for dialogue in own]


def test_crosses_are_of_turns_with_something_known() -> None:
    plain = Turn("user", "rain please")
    known = Turn("user", "rain please", categorical={"intent": "weather"})
    traced = Turn("user", "rain please", traces={"understanding": Trace(decision="weather [date : rain]")})
    long = Turn("user", "word " * 500, traces={"understanding": Trace(decision=" ".join(f"t{n}" for n in range(500)))})
    of_plain, of_known, of_traced, of_long = (
        [len(group) for group in turn_groups(Dialogue("1", (turn,)))[0]] for turn in (plain, known, traced, long)
    )
    assert of_plain[3:] == [0, 0]
    assert of_known[3:] == [2, 0]  # intent x word
    assert of_traced[4:] == [0, 2 * 2]  # weather, date x word
    assert of_long[4:] == [0, 32 * 8]


def test_neighbours_stay_together() -> None:
    """A sentence that is said four times in a row is not told from itself."""
    rng = np.random.default_rng(0)
    right = rng.integers(2, size=50).astype(bool)
    some = [understood(n, f"word{n // 4} again{n // 4}", "weather", "date", bool(right[n // 4])) for n in range(200)]
    model, figures = fitted(some)
    gold = torch.tensor([[bool(right[n // 4]) == (name == "correct") for name in model.classes.failure_point]
                         for n in range(200)])  # fmt: skip
    assert float((figures - gold.float()).square().mean()) > 0.2  # chance is 0.25
    _, told = wide_figures([model.prepare(dialogue) for dialogue in some], model.wide)
    assert told is not None
    assert torch.equal(told > 0.5, gold)
