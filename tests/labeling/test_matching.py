"""Goals, slots and transcriptions of a model against gold: by hand."""

from __future__ import annotations

import pytest
import torch

from tercet.labeling import Dialogue, Goal, Labels, Slot, Turn
from tercet.labeling.evaluation.matching import matching_figures, segmentation_by_dialogue
from tercet.labeling.model.predictions import Classes, Prediction

TURNS = (Turn("user", "play jaz"), Turn("system", "Playing."), Turn("user", "a taxi"), Turn("system", "Coming."))
GOLD = Labels(
    goals=(Goal((0, 1)), Goal((2, 3))),
    slots=(Slot(0, 5, 8, "genre"),),
    transcription={0: "play jazz", 2: "a taxi"},
)
CLASSES = Classes(slots=("genre",))


def prediction(second: int) -> Prediction:
    """Two goals, the second from turn `second` on."""
    begins, membership = torch.zeros(4), torch.eye(4)
    begins[[0, second]] = 0.9
    membership[0, 1:second] = membership[second, second:] = 0.8
    slots = ((Slot(0, 5, 8, "genre"), 0.7), (Slot(2, 2, 6, "genre"), 0.6))
    return Prediction(begins=begins, membership=membership, slots=slots, transcription={0: ("play jazz", 0.6)})


def test_figures_by_hand() -> None:
    dialogues = [Dialogue("x", TURNS, GOLD), Dialogue("y", TURNS, GOLD), Dialogue("z", TURNS)]
    made = [prediction(2), prediction(1), prediction(3)]
    found = matching_figures(dialogues, made, [CLASSES] * 3, resamples=20)
    assert found["goals"]["goal_boundary"]["f1"] == pytest.approx(1 / 2)
    # x: all 6 pairs. y: 00, 11 12 13 22 23 33, of which 00 11 22 23 33 are gold's.
    assert found["goals"]["goal_membership"] == pytest.approx({"precision": 11 / 13, "recall": 11 / 12, "f1": 22 / 25})
    # Segments of two turns: a window of one turn; of 6 places between turns two are wrong.
    assert found["goals"]["window_diff"] == found["goals"]["pk"] == pytest.approx(2 / 6)
    assert (
        found["slots"]["slots"]
        == found["slots"]["slot_values"]
        == pytest.approx({"precision": 1 / 2, "recall": 1.0, "f1": 2 / 3})
    )
    assert found["transcription"]["word_error_rate"] == 0.0
    assert found["transcription"]["logged"] == pytest.approx(1 / 4)
    assert found["transcription"]["gain"]["low"] == pytest.approx(1 / 4)


def test_tasks_without_gold_or_predictions_are_absent() -> None:
    assert matching_figures([Dialogue("z", TURNS)], [prediction(2)], [CLASSES]) == {}
    assert matching_figures([Dialogue("x", TURNS, GOLD)], [Prediction(whole_success=0.5)], [CLASSES]) == {}
    turnless = Dialogue("w", TURNS, Labels(goals=(Goal(None, True),)))
    assert matching_figures([turnless], [prediction(2)], [CLASSES]) == {}
    assert segmentation_by_dialogue([turnless], [Labels()]) is None
    partly = Dialogue("v", TURNS, Labels(goals=(Goal((0, 1)),), judged={"goals": (0, 1)}))
    assert segmentation_by_dialogue([partly], [Labels()]) is None
    assert set(matching_figures([partly], [prediction(2)], [CLASSES])["goals"]) == {"goal_boundary", "goal_membership"}
