"""Training a label model: it learns, it is the same again, also after a kill, and it says what it cannot do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue_strategies import dialogues
from label_models import NAMES, SHORT, SIZES, annotated, music
from tercet.labeling import (
    KINDS,
    TASKS,
    Annotation,
    Dialogue,
    LabelModel,
    Labels,
    Prediction,
    Reporter,
    TrainingSettings,
    Turn,
    decide,
    load_model,
    pretrain,
    train,
)
from tercet.labeling.model.predictions import task_of
from tercet.labeling.training import stacking

DIALOGUES = [music(number) for number in range(48)]
LEARN = TrainingSettings(epochs=15, batch_size=8, held_out=0.0, learning_rate=5e-3)


def same(a: Prediction, b: Prediction) -> bool:
    """Bit for bit, NaN included."""
    for name, value in vars(a).items():
        other = vars(b)[name]
        if isinstance(value, torch.Tensor):
            if not torch.equal(value.view(torch.int32), other.view(torch.int32)):
                return False
        elif value != other:
            return False
    return True


@pytest.fixture(scope="module")
def model() -> LabelModel:
    return train(DIALOGUES, LEARN, SIZES).model


def test_every_task_is_learnt(model: LabelModel) -> None:
    """What decides it is in the words; dialogues are new."""
    new = [music(number) for number in range(100, 130)]
    made = [decide(prediction, model.classes).labels for prediction in model.predict(new)]
    for task in TASKS:
        right = [getattr(labels, task) == getattr(each.labels, task) for labels, each in zip(made, new, strict=True)]
        if task == "transcription":  # of what was never heard right in training, nothing can be known
            right = [
                labels.transcription[0] == each.labels.transcription[0] for labels, each in zip(made, new, strict=True)
            ]  # type: ignore[index]
        if task == "intents":
            right = [{turn: labels.intents[turn] for turn in (0, 2)} == {0: "play", 2: "stop"} for labels in made]  # type: ignore[index]
        if task == "failure_point":
            right = [
                labels.failure_point[0] == each.labels.failure_point[0] for labels, each in zip(made, new, strict=True)
            ]  # type: ignore[index]
        assert sum(right) >= 0.9 * len(right), task


def test_predictions_are_probabilities_of_the_right_shape(model: LabelModel) -> None:
    found = model.predict([music(7)])[0]
    assert found.begins is not None
    assert found.begins.shape == (4,)
    assert found.membership is not None
    assert found.membership.shape == (4, 4)
    assert found.membership.diagonal().eq(1).all()
    assert not found.membership.tril(-1).any()
    assert found.intents is not None
    assert found.intents.shape == (4, 2)
    assert model.classes.intents == NAMES
    torch.testing.assert_close(found.intents.sum(1), torch.tensor([1.0, math.nan, 1.0, math.nan]), equal_nan=True)
    assert found.failure_point is not None
    assert found.failure_point.shape == (4, 2)
    assert found.success is not None
    assert found.defects is not None
    assert 0 <= (found.whole_success or 0) <= 1
    assert found.transcription is not None
    assert set(found.transcription) == {0, 2}
    assert found.no_slot is not None
    assert found.no_slot.shape == (4,)
    silent = replace(music(7), turns=(*music(7).turns, Turn("user", "")))
    last = model.predict([silent])[0].no_slot
    assert last is not None
    assert last[4] == 1  # no words, no slots
    assert bool((last[:4] < 1).all())
    for share in [found.begins, found.membership, found.success, found.defects, found.no_slot]:
        assert bool(((share >= 0) & (share <= 1)).all())


@given(dialogues(), st.integers(1, 6))
@settings(max_examples=15)
def test_no_dialogue_changes_another(model: LabelModel, dialogue: Dialogue, batch_size: int) -> None:
    """Any dialogue is taken, alone or among others, in batches of any size, by one thread or two: the same bits."""
    whole = [dialogue, *DIALOGUES[:5]]
    alone = [model.predict([each])[0] for each in whole]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            together = model.predict(whole, batch_size=batch_size)
            assert all(map(same, alone, together))
    finally:
        torch.set_num_threads(threads)


def test_no_length_changes_another(model: LabelModel) -> None:
    """Vector units take what is left over at the end of a batch otherwise than its middle: of no figure may that show."""
    whole = [
        replace(music(length), id=f"{length}", turns=(music(length).turns * 4)[:length]) for length in range(4, 14)
    ]
    alone = [model.predict([each])[0] for each in whole]
    for last in range(1, len(whole) + 1):
        assert all(map(same, alone, model.predict(whole[:last])))


@given(st.sets(st.sampled_from(TASKS), min_size=1), st.integers(0, 1000))
@settings(max_examples=8)
def test_only_the_tasks_that_are_there_are_learnt(tasks: set[str], seed: int) -> None:
    given_tasks = tuple(task for task in TASKS if task in tasks)
    some = [music(number, given_tasks) for number in range(seed, seed + 12)]
    result = train(some, replace(SHORT, epochs=1), SIZES)
    assert set(result.model.predict(some[:1])[0].kinds()) == {kind for kind in KINDS if task_of(kind) in tasks}
    assert result.dialogues + result.held_out == 12


def test_a_task_of_some_dialogues_is_masked_in_the_others() -> None:
    some = [music(n, ("intents",)) if n % 2 else music(n, ("defects",)) for n in range(24)]
    result = train(some, replace(SHORT, held_out=0.0), SIZES)
    assert set(result.epochs[-1].loss) == {"defects", "intents"}


def test_annotators_stand_in_for_gold() -> None:
    some = [annotated(number) for number in range(48)]
    for soft in ("share", "consensus"):
        found = train(some, replace(LEARN, soft=soft), SIZES).model
        shares = [float(found.predict([annotated(n)])[0].whole_success or 0) for n in range(100, 120)]
        reached = [music(n).labels.goals[0].success for n in range(100, 120)]  # type: ignore[index]
        assert sum((share > 0.5) == yes for share, yes in zip(shares, reached, strict=True)) >= 18
        if soft == "share":  # a third of them errs
            assert max(shares) < 0.9


def test_a_label_counts_by_its_confidence() -> None:
    """Weak labels that say themselves how often they err."""
    some = [
        replace(each, labels=Labels(), annotations=(
            Annotation("feedback", Labels(defects=each.labels.defects), {"defects": (0.7,) * len(each.labels.defects or ())}),
        ))
        for each in DIALOGUES
    ]  # fmt: skip
    found = train(some, LEARN, replace(SIZES, feedback=False)).model.predict(some)
    shares = [
        float(p.defects[1]) for p, d in zip(found, DIALOGUES, strict=True) if d.labels.defects and p.defects is not None
    ]
    assert sum(shares) / len(shares) == pytest.approx(0.7, abs=0.1)


class Stopped(Exception):
    pass


class StopAfter(Reporter):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        if epoch > self.epoch:
            raise Stopped


@pytest.mark.parametrize(("buffer", "fewest"), [(1000, 4000), (10, 4000), (1000, 20), (10, 20)])
def test_a_resumed_run_makes_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int, fewest: int
) -> None:
    monkeypatch.setattr(stacking, "_FEWEST", fewest)
    some = replace(SHORT, epochs=3, buffer=buffer)
    whole = train(DIALOGUES, some, SIZES, out=tmp_path / "whole")
    assert bool((whole.model.heads.factors != 1).all(1).any()) == (fewest == 20)
    with pytest.raises(Stopped):
        train(lambda: iter(DIALOGUES), some, SIZES, out=tmp_path / "broken", reporter=StopAfter(1))
    with pytest.raises(FileNotFoundError, match="--resume"):
        load_model(tmp_path / "broken")
    again = train(lambda: iter(DIALOGUES), some, SIZES, out=tmp_path / "broken", resume=True)
    finished = train(DIALOGUES, some, SIZES, out=tmp_path / "broken", resume=True)
    for other in (again.model, finished.model, load_model(tmp_path / "whole")[0]):
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
        assert all(map(same, whole.model.predict(DIALOGUES), other.predict(DIALOGUES)))
    assert not list(tmp_path.rglob("*.pkl"))
    for kind, judged in whole.calibration.kinds.items():
        loaded = load_model(tmp_path / "whole")[1].kinds[kind]
        assert torch.equal(judged.confidence, loaded.confidence)
        assert judged.temperature == loaded.temperature


def test_pretraining_is_taken_over(tmp_path: Path) -> None:
    start = pretrain(DIALOGUES, SHORT, SIZES, out=tmp_path / "start")
    assert start.model.parts == ("swapped",)
    assert start.epochs[-1].loss["swapped"] > 0
    begun = load_model(tmp_path / "start")[0]
    result = train(DIALOGUES, replace(SHORT, epochs=1, learning_rate=1e-12), start=begun)
    own, theirs = result.model.state_dict(), begun.state_dict()
    assert torch.allclose(own["encoder.words.weight"], theirs["encoder.words.weight"], atol=1e-6)
    assert result.model.facts.words == begun.facts.words
    assert result.model.settings.dim == SIZES.dim


@pytest.mark.parametrize(
    ("labelled", "speakers"), [((0, 2), ("user",)), ((1,), ("system",)), ((0, 1), ("system", "user"))]
)
def test_intents_and_defects_are_claimed_of_those_whose_turns_are_labelled(
    tmp_path: Path, labelled: tuple[int, ...], speakers: tuple[str, ...]
) -> None:
    labels = Labels(
        intents={turn: NAMES[turn % 2] for turn in labelled}, defects=labelled[:1], judged={"defects": labelled}
    )
    some = [replace(each, labels=labels) for each in DIALOGUES[:12]]
    made = train(some, replace(SHORT, epochs=1), SIZES, out=tmp_path / "m").model
    for model in (made, load_model(tmp_path / "m")[0]):
        for dialogue, prediction in zip(some, model.predict(some), strict=True):
            asked = {turn for turn, each in enumerate(dialogue.turns) if each.speaker in speakers}
            said = decide(prediction, model.classes).labels
            assert set(said.intents or ()) == asked
            assert set(said.judged_turns("defects", len(dialogue.turns))) == asked


def test_unknown_values_have_a_vector_that_is_learnt() -> None:
    """All devices are known in training."""
    before, after = (
        train(DIALOGUES[:16], replace(SHORT, epochs=1, held_out=0.0, learning_rate=rate), SIZES).model
        for rate in (1e-12, 5e-3)
    )
    place = before.vocabulary.names.index("device\nother")
    assert (before.names[place] - after.names[place]).abs().max() > 1e-3


def test_errors(tmp_path: Path, model: LabelModel) -> None:
    plain = [Dialogue("1", (Turn("user", "hi"),))]
    for args, message in (
        (([],), "there must be a dialogue to learn from"),
        ((plain, TrainingSettings(held_out=0.0)), "dialogues must have labels or annotations of a task"),
        ((DIALOGUES[:3], TrainingSettings(epochs=4, held_out=0.0, learning_rate=1e30), SIZES), "training diverged"),
    ):
        with pytest.raises(ValueError, match=message):
            train(*args)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there must be system turns that answer"):
        pretrain(plain, TrainingSettings(held_out=0.0))
    with pytest.raises(ValueError, match="resume needs out"):
        train(DIALOGUES, resume=True)
    train(DIALOGUES[:4], replace(SHORT, epochs=1, held_out=0.0), SIZES, out=tmp_path / "m")
    with pytest.raises(ValueError, match="must be empty"):
        train(DIALOGUES[:4], SHORT, SIZES, out=tmp_path / "m")
    with pytest.raises(ValueError, match="its run has seed = 0"):
        train(DIALOGUES[:4], replace(SHORT, epochs=1, held_out=0.0, seed=1), SIZES, out=tmp_path / "m", resume=True)
    changed: dict[str, Any] = {"model.safetensors": b"", "calibration.safetensors": b"{}"}
    for name, data in changed.items():
        before = (tmp_path / "m" / name).read_bytes()
        (tmp_path / "m" / name).write_bytes(data)
        with pytest.raises(ValueError, match="safetensors"):
            load_model(tmp_path / "m")
        (tmp_path / "m" / name).write_bytes(before)
