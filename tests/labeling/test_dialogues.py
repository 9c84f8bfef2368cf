"""The format of labelled dialogues: what is refused, and in which words; what JSON keeps."""

from __future__ import annotations

import json
import re
from array import array
from typing import Any

import pytest
from hypothesis import given

from dialogue_strategies import a_dialogue, dialogues
from tercet.labeling import (
    Annotation,
    Audio,
    Dialogue,
    Goal,
    Labels,
    Slot,
    Trace,
    Turn,
    dialogue_from_json,
    dialogue_to_json,
)
from tercet.labeling.data.json_lines import dialogue_from_line, dialogue_to_line

USER = Turn("user", "play jazz")


@given(dialogue=dialogues())
def test_a_line_of_json_keeps_a_dialogue(dialogue: Dialogue) -> None:
    line = dialogue_to_line(dialogue)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert dialogue_from_line(line) == dialogue
    assert dialogue_to_line(dialogue_from_line(line)) == line


def test_json_is_what_the_format_says() -> None:
    dialogue = dialogue_from_json(a_dialogue())
    assert dialogue_to_json(dialogue) == a_dialogue()
    assert dialogue.turns[0].traces["recognition"] == Trace(("play jaz", "play jazz"), (-1.0, -2.0), "play jaz")
    assert dialogue.turns[2].audio == Audio(path="call-1.wav")
    assert dialogue.labels.slots == (Slot(2, 3, 7, "genre"),)
    assert dialogue.labels.goals == (Goal((0, 1, 2, 3), success=True),)
    assert dialogue.annotations[0] == Annotation(
        "ann", Labels(defects=(), intents={0: "play"}), confidence={"intents": (0.75,)}
    )


def test_a_task_that_was_not_done_differs_from_one_without_labels() -> None:
    turns = [{"speaker": "user", "text": "stop"}]
    absent, empty = ({"id": "1", "turns": turns, "labels": labels} for labels in ({}, {"defects": [], "intents": {}}))
    assert dialogue_from_json(absent).labels.tasks() == ()
    assert dialogue_from_json(empty).labels.tasks() == ("defects", "intents")
    assert dialogue_to_json(dialogue_from_json(empty)) == empty
    null = {"id": "1", "turns": [turns[0] | {"time": None, "audio": None}], "labels": {"goals": None}, "metadata": None}
    assert dialogue_from_json(null) == dialogue_from_json(absent)


def changed(path: str, value: Any) -> Any:
    """The example with one member changed: `turns.0.text`."""
    record: Any = a_dialogue()
    *parents, last = path.split(".")
    place = record
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    return record


WRONG = [
    ("id", "", "id must not be empty"),
    ("id", 7, "id must be text, got 7"),
    ("turns", [], "turns must not be empty"),
    ("turns", {}, "turns must be a list, got {}"),
    ("turns.3", "hello", 'turns[3] must be an object, got "hello"'),
    ("turns.3", {"speaker": "user"}, "turns[3].text is missing"),
    ("turns.3.speaker", "bot", "turns[3].speaker must be user or system, got 'bot'"),
    ("turns.1.text", None, "turns[1].text is missing"),
    ("turns.1.txet", "hm", "turns[1].txet is not a field of the format; did you mean text?"),
    ("notes", "hm", "notes is not a field of the format; it has id, turns, labels, annotations, metadata"),
    ("turns.0.time", "0.5", 'turns[0].time must be a number, got "0.5"'),
    ("turns.0.time", True, "turns[0].time must be a number, got true"),
    ("turns.0.time", float("nan"), "turns[0].time must be finite, got nan"),
    ("turns.0.numeric.confidence", float("inf"), "turns[0].numeric.confidence must be finite, got inf"),
    (
        "turns.0.numeric.confidence",
        10**400,
        "turns[0].numeric.confidence must be finite, got an integer beyond any float",
    ),
    ("turns.1.categorical.domain", 3, "turns[1].categorical.domain must be text, got 3"),
    ("turns.1.feedback.stop", "yes", 'turns[1].feedback.stop must be true or false, got "yes"'),
    (
        "turns.0.traces.recognition.scores",
        [-1.0],
        "turns[0].traces.recognition.scores must be one for each of the 2 hypotheses of n_best, got 1",
    ),
    (
        "turns.0.traces.recognition.scores",
        [-1.0, float("nan")],
        "turns[0].traces.recognition.scores must be finite, got [-1.0, nan]",
    ),
    (
        "turns.0.traces.recognition.nbest",
        [],
        "turns[0].traces.recognition.nbest is not a field of the format; did you mean n_best?",
    ),
    ("turns.2.audio", [0.5], "turns[2].audio must be a path or an object with samples and rate, got [0.5]"),
    ("turns.2.audio", {"samples": [0.5]}, "turns[2].audio.rate is missing"),
    ("turns.2.audio", {"samples": [0.5], "rate": 0}, "turns[2].audio.rate must be positive, got 0"),
    ("turns.2.audio", {"samples": [1e300], "rate": 8000}, "turns[2].audio.samples must be finite"),
    ("labels.goals.0", {"turns": [0, 4]}, "labels.goals[0].turns must be a turn of the dialogue, 0..3, got 4"),
    ("labels.goals.0", {"turns": [1, 0]}, "labels.goals[0].turns must be ascending, got [1, 0]"),
    ("labels.goals.0", {"turns": []}, "labels.goals[0].turns must not be empty; leave it out where it is not known"),
    ("labels.goals.0", {"turns": [0.5]}, "labels.goals[0].turns[0] must be an integer, got 0.5"),
    ("labels.goals.0", {"sucess": True}, "labels.goals[0].sucess is not a field of the format; did you mean success?"),
    ("labels.goal", [], "labels.goal is not a field of the format; did you mean goals?"),
    ("labels.defects", [-1], "labels.defects must be a turn of the dialogue, 0..3, got -1"),
    ("labels.defects", [2, 2], "labels.defects must be ascending, got [2, 2]"),
    ("labels.intents", {"4": "play"}, "labels.intents must be a turn of the dialogue, 0..3, got 4"),
    ("labels.intents", {"01": "play"}, "labels.intents must have turn numbers as keys, got '01'"),
    ("labels.intents", {"two": "play"}, "labels.intents must have turn numbers as keys, got 'two'"),
    ("labels.intents", {"0": ""}, "labels.intents.0 must not be empty"),
    ("labels.failure_point", {"0": ""}, "labels.failure_point.0 must not be empty"),
    ("labels.transcription", {"0": None}, "labels.transcription.0 must be text, got null"),
    (
        "labels.slots.0.end",
        8,
        "labels.slots[0] must have 0 <= start < end <= 7, the length of its turn's text, got 3..8",
    ),
    (
        "labels.slots.0.start",
        7,
        "labels.slots[0] must have 0 <= start < end <= 7, the length of its turn's text, got 7..7",
    ),
    ("labels.slots.0.turn", 9, "labels.slots[0].turn must be a turn of the dialogue, 0..3, got 9"),
    ("labels.slots.0.name", "", "labels.slots[0].name must not be empty"),
    ("annotations.1.annotator", "", "annotations[1].annotator must not be empty"),
    ("annotations.1", {"defects": [1]}, "annotations[1].annotator is missing"),
    ("annotations.1.defects", [9], "annotations[1].defects must be a turn of the dialogue, 0..3, got 9"),
    (
        "annotations.1.annotator",
        "ann",
        "annotations[1].defects contradicts annotations[0]: both are by annotator 'ann'",
    ),
    (
        "annotations.2.intents",
        {"2": "play", "0": "stop"},
        "annotations[2].intents.0 contradicts annotations[0]: both are by annotator 'ann'",
    ),
    (
        "annotations.0.confidence",
        {"goals": []},
        "annotations[0].confidence.goals must be of a task that the annotator did",
    ),
    ("labels.judged", {"defects": [2]}, "labels.judged.defects must hold every defect, lacks 1"),
    ("labels.judged", {"goals": [1, 2]}, "labels.judged.goals must hold the first turn of every goal, lacks 0"),
    ("labels.judged", {"slots": [4]}, "labels.judged.slots must be a turn of the dialogue, 0..3, got 4"),
    ("labels.judged", {"slots": [1, 0]}, "labels.judged.slots must be ascending, got [1, 0]"),
    ("labels.judged", {"slots": [True]}, "labels.judged.slots[0] must be an integer, got true"),
    (
        "labels.judged",
        {"intents": [0]},
        "labels.judged.intents is not a field of the format; it has goals, defects, slots",
    ),
    ("annotations.1.judged", {"slots": [0]}, "annotations[1].judged.slots must be of a task that was done"),
    (
        "annotations.1.confidence",
        {"defects": [0.5, 0.5]},
        "annotations[1].confidence.defects must be one for each of the 1 labels or 4 turns that are judged, got 2",
    ),
    (
        "annotations.1.confidence",
        {"success": [0.5]},
        "annotations[1].confidence.success must be of a task that the annotator did",
    ),
    (
        "annotations.1",
        {"annotator": "bob", "goals": [{"turns": [0]}], "confidence": {"success": [0.5]}},
        "annotations[1].confidence.success must be one for each of the 0 goals whose success is said, got 1",
    ),
    (
        "annotations.1.weight",
        {"defects": [1]},
        "annotations[1].weight.defects must be one for each of the 4 turns that are judged, got 1",
    ),
    (
        "annotations.1.weight",
        {"defects": [1, 1, 2, 1]},
        "annotations[1].weight.defects must be in 0..1, got [1.0, 1.0, 2.0, 1.0]",
    ),
    (
        "annotations.2.weight",
        {"defects": []},
        "annotations[2].weight.defects must be of defects that the annotator judged",
    ),
    (
        "annotations.1.weight",
        {"slots": [1]},
        "annotations[1].weight.slots is not a field of the format; it has defects",
    ),
    (
        "annotations.0.confidence",
        {"intents": []},
        "annotations[0].confidence.intents must be one for each of the 1 labels, got 0",
    ),
    ("annotations.0.confidence", {"intents": [1.5]}, "annotations[0].confidence.intents must be in 0..1, got [1.5]"),
    (
        "annotations.0.confidence",
        {"intent": [1]},
        "annotations[0].confidence.intent is not a field of the format; did you mean intents?",
    ),
    ("metadata.speaker", ["kim"], 'metadata.speaker must be text, got ["kim"]'),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'tercet.Dialogue: {message}')}$"):
        dialogue_from_json(changed(path, value))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\n", "a line must be one JSON object: Expecting value: line 2 column 1 (char 1)"),
        (b"[1]\n", "a dialogue must be an object, got [1]"),
        (b'{"id": "1"', "a line must be one JSON object: Expecting ',' delimiter: line 1 column 11 (char 10)"),
        (b'{"id": "1", "id": "2", "turns": []}', "an object must name each field once, got 'id' twice"),
        (b'{"id": "\xff"}', "a line must be UTF-8: 'utf-8' codec can't decode byte 0xff in position 8: invalid start byte"),
        (b'{"id": "\\ud83c"}', "a line must be UTF-8: 'utf-8' codec can't encode character '\\ud83c' in position 8: surrogates not allowed"),
    ],
)  # fmt: skip
def test_lines_that_hold_no_dialogue(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'tercet.Dialogue: {message}')}$"):
        dialogue_from_line(line)


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}"])
def test_lines_beyond_the_decoder_are_malformed_too(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^tercet.Dialogue: a line must be one JSON object"):
        dialogue_from_line(line)


def test_escaped_pairs_of_surrogates_are_one_character() -> None:
    line = b'{"id": "\\ud83c\\udfb7", "turns": [{"speaker": "user", "text": ""}]}'
    assert dialogue_from_line(line).id == "🎷"


def test_the_same_labels_twice_contradict_nothing() -> None:
    goals = (Goal((0,), success=True), Goal(success=False))
    twice = (Annotation("ann", Labels(goals=goals)), Annotation("ann", Labels(goals=goals[::-1])))
    assert Dialogue("1", (USER,), annotations=twice).annotations == twice
    later = (Annotation("ann", Labels(intents={0: "play"})), Annotation("ann", Labels(defects=())))
    assert Dialogue("1", (USER,), annotations=later).annotations == later


def test_an_annotator_may_come_back_for_other_turns() -> None:
    turns = (USER,) * 3
    first = {"defects": Labels(defects=(1,), judged={"defects": (1,)}),
             "goals": Labels(goals=(Goal((1, 2)),), judged={"goals": (1,)}),
             "slots": Labels(slots=(Slot(1, 0, 4, "act"),), judged={"slots": (1,)})}  # fmt: skip
    more = {"defects": Labels(defects=(2,), judged={"defects": (0, 2)}),
            "goals": Labels(goals=(Goal((0,)),), judged={"goals": (0, 2)}),
            "slots": Labels(slots=(), judged={"slots": (0, 2)})}  # fmt: skip
    other = {
        "defects": Labels(defects=(), judged={"defects": (1,)}),
        "goals": Labels(goals=()),
        "slots": Labels(slots=()),
    }
    for task, labels in first.items():
        both = Annotation("ann", labels), Annotation("ann", more[task])
        assert Dialogue("1", turns, annotations=both).annotations == both
        with pytest.raises(ValueError, match=rf"annotations\[1\]\.{task}\.1 contradicts annotations\[0\]: both are by"):
            Dialogue("1", turns, annotations=(Annotation("ann", labels), Annotation("ann", other[task])))


def test_which_turns_are_judged() -> None:
    goals = Labels(goals=(Goal((0,)), Goal(None, success=True)))
    assert tuple(goals.judged_turns("goals", 3)) == ()
    assert Labels(goals=goals.goals, judged={"goals": (0, 1)}).judged_turns("goals", 3) == (0, 1)
    assert tuple(Labels(goals=()).judged_turns("goals", 3)) == (0, 1, 2)
    assert tuple(Labels().judged_turns("slots", 3)) == ()
    made = Annotation("m", Labels(defects=(1,)), {"defects": (0.7,)})
    assert made.sure_of_defects(3) == {1: 0.7}
    assert Annotation("m", made.labels, {"defects": (0.9, 0.7, 0.8)}).sure_of_defects(3) == {0: 0.9, 1: 0.7, 2: 0.8}
    assert Annotation("m", made.labels).sure_of_defects(3) == {}
    assert Annotation("m", goals, {"goals": (0.5, 0.6)}).sure_of_success() == {1: 0.6}
    assert Annotation("m", goals, {"goals": (0.5, 0.6), "success": (0.9,)}).sure_of_success() == {1: 0.9}


def test_dialogues_made_in_python_are_checked() -> None:
    with pytest.raises(
        ValueError, match=r"^tercet.Dialogue: labels.defects must be a turn of the dialogue, 0..0, got 1$"
    ):
        Dialogue("1", (USER,), Labels(defects=(1,)))
    with pytest.raises(ValueError, match=r"labels.judged must be of goals, defects, slots, got 'intents'$"):
        Dialogue("1", (USER,), Labels(intents={}, judged={"intents": (0,)}))
    for audio in (
        Audio(),
        Audio("a.wav", array("f", [0.0]), 8000),
        Audio(samples=array("f", [0.0])),
        Audio("a.wav", rate=8),
    ):
        with pytest.raises(ValueError, match=r"turns\[0\].audio must be a path, or samples with their rate$"):
            Dialogue("1", (Turn("user", "hm", audio=audio),))


def test_json_has_no_other_fields() -> None:
    full = json.loads(dialogue_to_line(dialogue_from_json(a_dialogue())))
    assert list(full) == ["id", "turns", "labels", "annotations", "metadata"]
