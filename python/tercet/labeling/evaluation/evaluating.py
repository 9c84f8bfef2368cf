"""How good a label generator is: cross-validated by dialogue, beside one person and a simple baseline.

Whatever predicts goes the same way: it is fitted on the dialogues of the other folds, predicts those of its fold, and
its thresholds are chosen on what the models of the other folds predicted of their own dialogues, none of which is of
the fold. There is one threshold for all figures of a question: the one with the highest sum of accuracy and F1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tercet.evaluation.bootstrap import Difference, paired_bootstrap
from tercet.labeling.annotation.judgements import Place
from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.evaluation.matching import matching_figures
from tercet.labeling.evaluation.metrics import detection_counts, detection_figures, f1
from tercet.labeling.evaluation.questions import NOTHING, TASKS_OF_CLASSES, Questions, questions
from tercet.labeling.model.predictions import Classes, Prediction

POSITIVE = {"goals": "reached", "defects": "defect"}  # tasks of one question; the others ask for each class
NAMES = {"goals": "goal_success"}  # in results, where they differ from the task


class Predictor(Protocol):
    """What `evaluate` tests: `LabelModel`, `TfidfRidge`, or anything else that was fitted."""

    @property
    def classes(self) -> Classes:
        """The names that `predict` speaks of, by task."""
        ...

    def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
        """Of each dialogue."""
        ...


Fit = Callable[[list[Dialogue]], Predictor]


@dataclass(frozen=True, eq=False)
class Detection:
    """A yes or no that was asked of items, e.g. whether a goal was reached, and how it was answered.

    Attributes:
        counts: float64 [num_draws, num_dialogues, 7], of `detection_counts`, summed over the items of a dialogue.
        agreed: the same, of the items whose three annotators agree.
        scores: float32 [num_items], probabilities of a yes.
        thresholds: by fold; of the human, none.
    """

    counts: Tensor
    agreed: Tensor
    scores: Tensor
    thresholds: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """Each of DETECTION_FIGURES, the mean over draws."""
        return _means(self.counts)

    def figures_agreed(self) -> dict[str, float]:
        """The same, of items whose three annotators agree."""
        return _means(self.agreed)

    def above(self, other: Detection, *, resamples: int = 10_000, seed: int = 0) -> dict[str, Difference]:
        """How far each figure is above another's, by a paired bootstrap over dialogues.

        The surest half is that of all items in every resample.
        """
        return paired_bootstrap(self.counts, other.counts, detection_figures, resamples=resamples, seed=seed)


def folds_of(num_dialogues: int, folds: int, seed: int) -> list[Tensor]:
    """The dialogues of each fold, ascending; sizes differ by one at most.

    Raises:
        ValueError: fewer than two folds, or fewer dialogues than folds.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= num_dialogues:
        raise ValueError(f"tercet.evaluate: folds must be in 2..{num_dialogues}, the number of dialogues, got {folds}")
    order = torch.randperm(num_dialogues, generator=torch.Generator().manual_seed(seed))
    return [part.sort().values for part in order.tensor_split(folds)]


def cross_predict(
    dialogues: Sequence[Dialogue],
    fit: Fit,
    folds: Sequence[Tensor],
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Prediction], list[Classes]]:
    """What is predicted of each dialogue by the predictor that was fitted on the other folds, and its classes.

    Raises:
        ValueError: a predictor does not give one prediction for each dialogue.
    """
    predictions: list[Prediction | None] = [None] * len(dialogues)
    classes = [Classes()] * len(dialogues)
    for number, fold in enumerate(folds):
        held_out = set(fold.tolist())
        predictor = fit([dialogue for place, dialogue in enumerate(dialogues) if place not in held_out])
        made = predictor.predict([dialogues[place] for place in fold.tolist()])
        if len(made) != len(fold):
            raise ValueError(f"tercet.evaluate: predict must give {len(fold)} predictions, got {len(made)}")
        for place, prediction in zip(fold.tolist(), made, strict=True):
            predictions[place], classes[place] = prediction, predictor.classes
        if progress is not None:
            progress(number + 1)
    return [prediction for prediction in predictions if prediction is not None], classes


def scores_of(asked: Questions, name: str, predictions: Sequence[Prediction], classes: Sequence[Classes]) -> Tensor:
    """The probability of class `name` for every item: float32 [num_items]; 0 where nothing is said of the item, NaN
    where the task was not predicted."""
    pairs = zip(asked.dialogues.tolist(), asked.places, strict=True)
    return torch.tensor([_score(asked.task, name, predictions[d], classes[d], place) for d, place in pairs])


def choose_by_fold(scores: Tensor, gold: Tensor, fold_of_item: Tensor) -> Tensor:
    """The threshold of each fold, chosen on the items of the other folds: float64 [num_folds].

    It lies halfway between two scores; of equally good ones it is the highest.

    Args:
        scores: [num_items].
        gold: bool [num_draws, num_items].
        fold_of_item: int64 [num_items].
    """
    wanted = gold.double().mean(0)  # the figures of a threshold are then close to their mean over draws
    found = []
    for fold in range(int(fold_of_item.max()) + 1):
        rest = fold_of_item != fold
        found.append(_best_threshold(scores[rest].double(), wanted[rest]))
    return torch.tensor(found, dtype=torch.float64)


def detect(asked: Questions, name: str, scores: Tensor, folds: Sequence[Tensor], num_dialogues: int) -> Detection:
    """How well `scores` answer whether items are of class `name`, with thresholds by fold."""
    gold = asked.gold == asked.classes.index(name)
    fold_of_item = _fold_of(folds, num_dialogues)[asked.dialogues]
    thresholds = choose_by_fold(scores, gold, fold_of_item)
    predicted = scores.double() >= thresholds[fold_of_item]
    return _detection(asked, gold, predicted, scores, num_dialogues, tuple(thresholds.tolist()))


def detect_by_human(asked: Questions, name: str, num_dialogues: int) -> Detection | None:
    """The same of the one other annotator; None where there is none for every item."""
    if asked.human is None:
        return None
    label = asked.classes.index(name)
    even = torch.zeros(len(asked))
    return _detection(asked, asked.gold == label, asked.human == label, even, num_dialogues, ())


def evaluate(
    dialogues: Sequence[Dialogue],
    fit: Fit,
    *,
    baseline: Fit | None = None,
    folds: int = 5,
    draws: int = 20,
    seed: int = 0,
    resamples: int = 10_000,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate by dialogue and count, task by task.

    Args:
        dialogues: annotated, or with gold labels, or both.
        fit: gives a predictor from dialogues.
        baseline: another one, for comparison.
        folds: how many.
        draws: of three annotators for gold and one for the human (see `questions`).
        seed: of folds, draws and resamples.
        resamples: of the bootstrap.
        progress: called with the number of predictors that were fitted and used.

    Returns:
        JSON, by task: goal_success and defects hold DETECTION_FIGURES, and the same under `agreed` (items whose three
        annotators agree), `human` and `baseline`, each with its own `agreed` and, as `below`, how far each figure is
        below ours; intents and failure_point hold accuracy and macro_f1 of the likeliest class, and the former by
        class under `classes`. Of gold labels also what `matching_figures` gives. Tasks without labels or predictions
        are absent.

    Raises:
        ValueError: an argument is out of range, or no task has both labels and predictions.
    """
    parts = folds_of(len(dialogues), folds, seed)
    asked_of = {task: questions(dialogues, task, draws=draws, seed=seed) for task in TASKS_OF_CLASSES}
    systems = {"": cross_predict(dialogues, fit, parts, progress=progress)}
    if baseline is not None:
        after = None if progress is None else lambda done: progress(folds + done)
        systems["baseline"] = cross_predict(dialogues, baseline, parts, progress=after)
    results: dict[str, Any] = {}
    for task, asked in asked_of.items():
        if asked is None:
            continue
        found = _Task(asked, systems, parts, len(dialogues), resamples, seed).results()
        if found:
            results[NAMES.get(task, task)] = found
    matched = matching_figures(dialogues, *systems[""], resamples=resamples, seed=seed)
    if not results and not matched:
        raise ValueError(
            "tercet.evaluate: no task has both predictions and items that are labelled, or judged by three annotators"
        )
    return results | matched


class _Task:
    """One task's results."""

    def __init__(
        self,
        asked: Questions,
        systems: dict[str, tuple[list[Prediction], list[Classes]]],
        folds: Sequence[Tensor],
        num_dialogues: int,
        resamples: int,
        seed: int,
    ) -> None:
        self.asked, self.systems, self.folds, self.num_dialogues = asked, systems, folds, num_dialogues
        self.resamples, self.seed = resamples, seed

    def results(self) -> dict[str, Any]:
        """JSON; empty where the system does not do the task."""
        asked = self.asked
        names = [POSITIVE[asked.task]] if asked.task in POSITIVE else list(asked.classes)
        by_class = {name: self._of_class(name) for name in names if name in asked.classes}
        by_class = {name: found for name, found in by_class.items() if found}
        if not by_class:
            return {}
        head = {"items": len(asked), "left_out": asked.left_out}
        if asked.task in POSITIVE:
            return head | by_class[POSITIVE[asked.task]]
        return head | self._of_likeliest() | {"classes": by_class}

    def _of_likeliest(self) -> dict[str, Any]:
        """Of the likeliest class of each item, over all classes."""
        made: dict[str, Any] = {}
        for who, (predictions, classes) in self.systems.items():
            scores = torch.stack([scores_of(self.asked, name, predictions, classes) for name in self.asked.classes])
            if not scores.isnan().any():
                likeliest = scores.argmax(0).masked_fill(scores.amax(0) == 0, NOTHING)
                figures = _figures_of_classes(self.asked, likeliest.expand_as(self.asked.gold))
                made |= {who: figures} if who else figures
        if self.asked.human is not None:
            made["human"] = _figures_of_classes(self.asked, self.asked.human)
        return made

    def _of_class(self, name: str) -> dict[str, Any]:
        scores = {who: scores_of(self.asked, name, *made) for who, made in self.systems.items()}
        found = {
            who: detect(self.asked, name, score, self.folds, self.num_dialogues)
            for who, score in scores.items()
            if not score.isnan().any()
        }
        if "" not in found:
            return {}
        human = detect_by_human(self.asked, name, self.num_dialogues)
        others = ({} if human is None else {"human": human}) | {who: each for who, each in found.items() if who}
        ours = found[""]
        made: dict[str, Any] = _as_json(ours)
        for who, other in others.items():
            above = ours.above(other, resamples=self.resamples, seed=self.seed)
            made[who] = _as_json(other) | {"below": {figure: vars(each) for figure, each in above.items()}}
        return made


def _as_json(found: Detection) -> dict[str, Any]:
    made: dict[str, Any] = found.figures() | {"agreed": found.figures_agreed()}
    return made | ({"thresholds": list(found.thresholds)} if found.thresholds else {})


def _detection(
    asked: Questions, gold: Tensor, predicted: Tensor, scores: Tensor, num_dialogues: int, thresholds: tuple[float, ...]
) -> Detection:
    counts = detection_counts(gold, predicted, scores)
    sums = torch.zeros(len(gold), num_dialogues, counts.shape[-1], dtype=counts.dtype)
    return Detection(
        counts=sums.index_add(1, asked.dialogues, counts),
        agreed=sums.index_add(1, asked.dialogues, counts * asked.agreed[..., None]),
        scores=scores,
        thresholds=thresholds,
    )


def _figures_of_classes(asked: Questions, labels: Tensor) -> dict[str, float]:
    """Of labels [num_draws, num_items]: accuracy where there is gold, mean F1 of classes; both averaged over draws."""
    known = asked.gold != NOTHING
    accuracy = ((labels == asked.gold) & known).sum(1) / known.sum(1).clamp(min=1)
    by_class = []
    for number in range(len(asked.classes)):
        gold, predicted = asked.gold == number, (labels == number) & known
        by_class.append(f1(torch.stack([(gold & predicted).sum(1), predicted.sum(1), gold.sum(1)], 1).double()))
    return {"accuracy": float(accuracy.double().mean()), "macro_f1": float(torch.stack(by_class).mean())}


def _means(counts: Tensor) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in detection_figures(counts.sum(1)).items()}


def _fold_of(folds: Sequence[Tensor], num_dialogues: int) -> Tensor:
    found = torch.zeros(num_dialogues, dtype=torch.int64)
    for number, fold in enumerate(folds):
        found[fold] = number
    return found


def _score(task: str, name: str, prediction: Prediction, classes: Classes, place: Place) -> float:
    if task == "goals":
        if place:
            return float("nan") if prediction.success is None else float(prediction.success[place[0]])
        return float("nan") if prediction.whole_success is None else prediction.whole_success
    shares = getattr(prediction, task)
    if shares is None:
        return float("nan")
    if task != "defects":
        names = getattr(classes, task)
        shares = shares[:, names.index(name)] if name in names else torch.zeros(len(shares))
    said = float(shares[place[0]])
    return 0.0 if math.isnan(said) else said


def _best_threshold(scores: Tensor, wanted: Tensor) -> float:
    """Of scores [num_items] and the probability of a yes, `wanted`."""
    scores, order = scores.sort(descending=True, stable=True)
    right = wanted[order].cumsum(0)
    accepted = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    total = right[-1]
    accuracy = (len(scores) - total - accepted + 2 * right) / len(scores)
    value = accuracy + torch.where(total > 0, 2 * right / (accepted + total), 0.0)
    value[:-1][scores[:-1] == scores[1:]] = -1.0  # equal scores stay together
    last = int(value.argmax())
    nobody = float(1 - total / len(scores))
    if value[last] < nobody:
        return float("inf")
    return float((scores[last] + scores[min(last + 1, len(scores) - 1)]) / 2)
