"""What is learnt from labels of some turns: by hand, and that turns which nobody judged change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from dialogue_strategies import dialogues
from label_models import SHORT, SIZES, music
from tercet.labeling import Annotation, Classes, Dialogue, Goal, Labels, Slot, TrainingSettings, Turn, train
from tercet.labeling.annotation.consensus import consensus_of
from tercet.labeling.model.targets import targets_of

TURNS = (Turn("user", "play jazz"), Turn("system", "Playing."), Turn("user", "stop it"), Turn("system", "Bye."))


def by(*annotations: Annotation, gold: Labels | None = None) -> Dialogue:
    return Dialogue("1", TURNS, gold or Labels(), annotations)


def test_defects_of_judged_turns_by_confidence_and_weight() -> None:
    labels = Labels(defects=(1,), judged={"defects": (1, 3)})
    made = Annotation("m", labels, {"defects": (0.9, 0.8)}, {"defects": (1.0, 0.25)})
    found = targets_of(by(made), Classes())
    np.testing.assert_allclose(found.defects, [0, 0.9, 0, 0.2], atol=1e-6)
    assert found.defects_weight.tolist() == [0, 1, 0, 0.25]
    other = Annotation("ann", Labels(defects=(3,), judged={"defects": (2, 3)}))
    both = targets_of(by(made, other), Classes())  # of turn 3 the mean by weight, 0.25 to 1
    np.testing.assert_allclose(both.defects, [0, 0.9, 0, (0.25 * 0.2 + 1) / 1.25], atol=1e-6)
    assert both.defects_weight.tolist() == [0, 1, 1, 1]
    gold = targets_of(by(made, gold=Labels(defects=(0,), judged={"defects": (0,)})), Classes())
    assert (gold.defects.tolist(), gold.defects_weight.tolist()) == ([1, 0, 0, 0], [1, 0, 0, 0])


def test_the_consensus_of_those_who_judged() -> None:
    said = (((1,), (0, 1)), ((1,), (1, 2)), ((1,), (0, 1, 2)))
    notes = [
        Annotation(name, Labels(defects=defects, judged={"defects": judged}))
        for name, (defects, judged) in zip("abc", said, strict=True)
    ]
    several = [replace(by(*notes), id=f"{number}") for number in range(20)]
    found = targets_of(several[0], Classes(), consensus_of(lambda: several))
    assert found.defects_weight.tolist() == [1, 1, 1, 0]
    assert found.defects[1] > 0.5 > found.defects[2]
    assert not found.defects[3]


def test_goals_that_begin_at_judged_turns() -> None:
    first = Labels(goals=(Goal((0, 1), success=True),), judged={"goals": (0, 1)})
    second = Labels(goals=(Goal((0, 2)), Goal((2, 3), success=False)), judged={"goals": (0, 2)})
    sure = Annotation("a", first, {"goals": (0.5,), "success": (0.75,)})
    found = targets_of(by(sure, Annotation("b", second)), Classes())
    assert found.begins.tolist() == [1, 0, 1, 0]
    assert found.begins_weight.tolist() == [1, 1, 1, 0]
    assert found.membership[0].tolist() == [0, 0.5, 0.5, 0]
    assert found.membership[2].tolist() == [0, 0, 0, 1]
    assert found.membership_weight.tolist() == [[0, 1, 1, 1], [0] * 4, [0, 0, 0, 1], [0] * 4]
    assert (found.success.tolist(), found.success_weight.tolist()) == ([0.75, 0, 0, 0], [0.5, 0, 1, 0])
    open_ended = Labels(goals=(Goal((0, 1)), Goal(None, success=True)))
    assert not targets_of(by(gold=open_ended), Classes()).begins_weight.any()
    told = replace(open_ended, judged={"goals": (0,)})
    assert targets_of(by(gold=told), Classes()).begins_weight.tolist() == [1, 0, 0, 0]


def test_slots_of_judged_turns() -> None:
    genre, act, other = Slot(0, 5, 9, "genre"), Slot(2, 0, 4, "act"), Slot(0, 0, 4, "act")
    first = Labels(slots=(genre, act), judged={"slots": (0,)})
    second = Labels(slots=(), judged={"slots": (1, 2)})
    found = targets_of(by(Annotation("a", first), Annotation("b", second)), Classes())
    assert found.slots == (genre, act)  # one of two sees act
    assert found.slots_known.tolist() == [1, 1, 1, 0]
    third = Annotation("c", Labels(slots=(other,), judged={"slots": (0, 2)}))
    found = targets_of(by(Annotation("a", first), Annotation("b", second), third), Classes())
    assert found.slots == (other, genre)  # of three who speak of it one sees act, of two who judge it each sees its own
    assert targets_of(by(), Classes()).slots_known.tolist() == [0] * 4


def test_words_of_a_slot_in_a_turn_that_was_not_judged() -> None:
    """They are known, the rest of their turn is not."""
    dialogue = next(each for number in range(9) if (each := music(number, ("slots",))).labels.slots)
    (slot,) = dialogue.labels.slots or ()
    whole = train([dialogue], replace(SHORT, held_out=0.0, epochs=1), SIZES).model
    for judged, weights in (((), [0, 0, 1, 0]), ((0,), [1, 1, 1, 1])):
        some = replace(dialogue, labels=Labels(slots=(slot,), judged={"slots": judged}))
        tags, known = whole.batch([whole.prepare(some, learn=True)]).targets["slots"]
        assert tags[:4].tolist() == [0, 0, 1, 0]
        assert known[:4].tolist() == weights
        assert not known[4:].any()


@given(dialogues())
def test_what_is_not_judged_has_no_weight(dialogue: Dialogue) -> None:
    names = [
        tuple(sorted({
            name
            for labels in (dialogue.labels, *(each.labels for each in dialogue.annotations))
            for name in (getattr(labels, task) or {}).values()
        }))
        for task in ("intents", "failure_point")
    ]  # fmt: skip
    found = targets_of(dialogue, Classes(*names))
    size = len(dialogue.turns)
    for task, weights in (
        ("defects", found.defects_weight), ("goals", found.begins_weight), ("slots", found.slots_known),
        ("intents", found.intents_weight), ("failure_point", found.failure_point_weight),
    ):  # fmt: skip
        gold = getattr(dialogue.labels, task) is not None
        speakers = [dialogue.labels] if gold else [each.labels for each in dialogue.annotations]
        judged = {turn for labels in speakers for turn in labels.judged_turns(task, size)}
        weighted = any(each.weight for each in dialogue.annotations) and task == "defects"
        assert set(np.flatnonzero(weights).tolist()) <= judged
        if not weighted and not any(each.confidence for each in dialogue.annotations):
            assert set(np.flatnonzero(weights).tolist()) == judged
    for name in ("begins", "defects", "success", "membership"):
        values, weights = getattr(found, name), getattr(found, f"{name}_weight")
        assert ((values >= 0) & (values <= 1 + 1e-6)).all()
        assert not values[weights == 0].any()


@pytest.mark.parametrize("weight", [None, 0.05])
def test_turns_that_nobody_judged_teach_nothing(weight: float | None) -> None:
    """Half of the dialogues do not say whether turn 1 has a defect, or say that it has none on little evidence."""
    half = Labels(defects=(), judged={"defects": (0, 2, 3)})
    doubted = Annotation("weak", Labels(defects=()), weight={"defects": (1.0, weight or 0.0, 1.0, 1.0)})
    some = [
        each
        if number % 2
        else replace(each, labels=half)
        if weight is None
        else replace(each, labels=Labels(), annotations=(doubted,))
        for number, each in enumerate(music(number, ("defects",)) for number in range(48))
    ]
    settings = TrainingSettings(epochs=15, batch_size=8, held_out=0.0, learning_rate=5e-3)
    found = train(some, settings, SIZES).model.predict([music(number) for number in range(100, 130)])
    wrong = [bool(music(number).labels.defects) for number in range(100, 130)]
    shares = [
        float(each.defects[1]) for each, bad in zip(found, wrong, strict=True) if bad and each.defects is not None
    ]
    assert sum(shares) / len(shares) > 0.8  # about a half, if the others said that there is none
