"""Cross-validation by dialogue: who sees what, thresholds, and figures of predictors whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Annotation, Dialogue, Goal, Labels, Turn
from tercet.labeling.evaluation.baseline import TfidfRidge
from tercet.labeling.evaluation.evaluating import choose_by_fold, cross_predict, evaluate, folds_of, scores_of
from tercet.labeling.evaluation.questions import questions
from tercet.labeling.model.predictions import Classes, Prediction

seeds = st.integers(0, 2**32 - 1)
SILENT = torch.tensor([1, 2])
GOOD, BAD = "it works now , thanks", "nobody answers , this is still broken"


def dialogues(count: int, seed: int = 0, annotators: int = 5) -> list[Dialogue]:
    """Half of them end well, and say so; one annotator of five errs."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        reached = number % 2 == 0
        turns = (
            Turn("user", f"my line {number} is dead"),
            Turn("system", "try again"),
            Turn("user", GOOD if reached else BAD),
        )
        annotations = []
        for annotator in range(annotators):
            says = reached if rng.random() < 0.8 else not reached
            intents = {0: "trigger", 1: "none", 2: "goal" if says else "none"}
            annotations.append(Annotation(f"a{annotator}", Labels(goals=(Goal(None, says),), intents=intents)))
        made.append(Dialogue(f"d{number}", turns, annotations=tuple(annotations)))
    return made  # fmt: skip


class Oracle:
    """Knows which dialogues end well from what they say; remembers what it was fitted on."""

    classes = Classes(intents=("goal", "none", "trigger"))

    def __init__(self, sure: float = 0.9) -> None:
        self.sure = sure

    def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
        made = []
        for dialogue in dialogues:
            share = self.sure if dialogue.turns[-1].text == GOOD else 1 - self.sure
            intents = torch.tensor([[0.0, 0.1, 0.9], [0.1, 0.9, 0.0], [share, 1 - share, 0.0]])
            made.append(Prediction(whole_success=share, intents=intents))
        return made


@given(st.integers(2, 40), st.integers(2, 7), st.integers(0, 5))
def test_folds_are_a_partition(num_dialogues: int, folds: int, seed: int) -> None:
    if folds > num_dialogues:
        with pytest.raises(
            ValueError, match=rf"folds must be in 2..{num_dialogues}, the number of dialogues, got {folds}"
        ):
            folds_of(num_dialogues, folds, seed)
        return
    parts = folds_of(num_dialogues, folds, seed)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(num_dialogues))
    sizes = [len(part) for part in parts]
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= 1


def test_nobody_predicts_what_it_was_fitted_on() -> None:
    data = dialogues(11)
    fitted: list[set[str]] = []

    class Watcher(Oracle):
        def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
            assert not {dialogue.id for dialogue in dialogues} & fitted[-1]
            assert len(fitted[-1]) + len(dialogues) == len(data)
            return [Prediction(whole_success=float(dialogue.id[1:]) / 100) for dialogue in dialogues]

    def fit(train: list[Dialogue]) -> Watcher:
        fitted.append({dialogue.id for dialogue in train})
        return Watcher()

    predictions, _ = cross_predict(data, fit, folds_of(11, 3, 0))
    assert [each.whole_success for each in predictions] == [number / 100 for number in range(11)]
    assert len(fitted) == 3


def test_a_predictor_must_answer_all() -> None:
    class Lazy(Oracle):
        def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
            return super().predict(dialogues)[1:]

    with pytest.raises(ValueError, match=r"evaluate: predict must give 4 predictions, got 3"):
        evaluate(dialogues(12), lambda train: Lazy(), folds=3)


@given(seeds, st.integers(4, 20))
def test_thresholds_are_the_best_of_the_other_folds(seed: int, num_items: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.integers(0, 6, num_items) / 5.0)
    gold = torch.from_numpy(rng.random((2, num_items)) < 0.4)
    fold_of_item = torch.arange(num_items) % 2
    found = choose_by_fold(scores, gold, fold_of_item)

    def value(threshold: float, rest: torch.Tensor) -> float:
        predicted, wanted = scores[rest] >= threshold, gold[:, rest].double().mean(0)
        right = float(wanted[predicted].sum())
        accuracy = float(torch.where(predicted, wanted, 1 - wanted).mean())
        total = float(wanted.sum()) + int(predicted.sum())
        return accuracy + (2 * right / total if total else 0.0)

    for fold, threshold in enumerate(found.tolist()):
        rest = fold_of_item != fold
        best = max(value(each, rest) for each in (*scores[rest].tolist(), float("inf")))
        assert value(threshold, rest) == pytest.approx(best)


def test_thresholds_do_not_see_their_fold() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, gold = torch.rand(60, generator=generator), torch.rand(3, 60, generator=generator) < 0.3
    fold_of_item = torch.arange(60) % 3
    before = choose_by_fold(scores, gold, fold_of_item)
    own = fold_of_item == 1
    after = choose_by_fold(scores.masked_fill(own, 0.5), gold ^ own, fold_of_item)
    assert before[1] == after[1]


def test_figures_of_one_who_knows() -> None:
    data = dialogues(600)
    found = evaluate(data, lambda train: Oracle(), baseline=lambda train: Oracle(0.6), folds=3, resamples=50)
    success = found["goal_success"]
    assert success["items"] == 600
    assert success["left_out"] == 0
    # Majorities of three who are right with 0.8 each are right with 0.896, one of them with 0.8 * 0.896 + 0.2 * 0.104.
    assert success["accuracy"] == pytest.approx(0.896, abs=0.03)
    assert success["human"]["accuracy"] == pytest.approx(0.738, abs=0.03)
    assert success["agreed"]["accuracy"] > success["accuracy"]
    assert success["human"]["below"]["accuracy"]["low"] > 0
    assert success["baseline"]["below"]["f1"]["difference"] == 0
    assert success["baseline"]["f1"] == success["f1"]
    assert all(0.1 < each < 0.9 for each in success["thresholds"])
    classes = found["intents"]["classes"]
    assert set(classes) == {"goal", "none", "trigger"}
    assert classes["trigger"]["f1"] == 1.0
    assert classes["goal"]["f1"] == pytest.approx(success["f1"], abs=1e-9)
    assert found["intents"]["accuracy"] == pytest.approx((2 + success["accuracy"]) / 3)
    assert found["intents"]["human"]["accuracy"] == pytest.approx((2 + success["human"]["accuracy"]) / 3)


def test_tasks_without_predictions_or_labels_are_absent() -> None:
    class Silent(Oracle):
        def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
            return [Prediction(whole_success=0.3) for _ in dialogues]

    found = evaluate(dialogues(9, annotators=3), lambda train: Silent(), folds=3, resamples=5)
    assert set(found) == {"goal_success"}
    assert "human" not in found["goal_success"]
    with pytest.raises(ValueError, match="no task has both predictions and items that are labelled"):
        evaluate(dialogues(9, annotators=2), lambda train: Oracle(), folds=3)


def test_what_nothing_is_said_of_has_no_class() -> None:
    """And does not keep the other items from being scored; nor does it count as the first of the classes."""
    asked = questions(dialogues(6, annotators=3), "intents")
    shares = torch.tensor([[0.2, 0.8], [math.nan, math.nan], [0.6, 0.4]])
    made = scores_of(asked, "goal", [Prediction(intents=shares)] * 6, [Classes(intents=("goal", "trigger"))] * 6)
    assert made.tolist() == pytest.approx([(0.2, 0.0, 0.6)[turn] for (turn,) in asked.places])

    class Silent(Oracle):
        """Of the turn whose class is the first by name, and of the last."""

        def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
            return [replace(each, intents=each.intents.index_fill(0, SILENT, math.nan))
                    for each in super().predict(dialogues) if each.intents is not None]  # fmt: skip

    figures = evaluate(dialogues(60, annotators=3), lambda train: Silent(), folds=3, resamples=5)["intents"]
    assert figures["accuracy"] == pytest.approx(1 / 3)


def test_the_baseline_learns_words() -> None:
    data = dialogues(40)
    model = TfidfRidge().fit(data[:30])
    assert model.classes.intents == ("none", "goal", "trigger")
    made = model.predict(data[30:])
    for dialogue, prediction in zip(data[30:], made, strict=True):
        assert prediction.whole_success is not None
        assert (prediction.whole_success > 0.5) == (dialogue.turns[-1].text == GOOD)
        assert prediction.intents is not None
        assert prediction.intents.argmax(1)[0] == 2
        assert prediction.intents.sum(1).tolist() == pytest.approx([1, 1, 1])
        assert prediction.defects is None
    found = evaluate(data, lambda train: TfidfRidge().fit(train), folds=4, resamples=20)
    oracle = evaluate(data, lambda train: Oracle(), folds=4, resamples=20)
    assert found["goal_success"]["f1"] == oracle["goal_success"]["f1"]
