"""Random dialogues with every field of the format, and a small one to read."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tercet.labeling import TASKS, Annotation, Audio, Dialogue, Goal, Labels, Slot, Trace, Turn
from tercet.labeling.data.dialogues import JUDGED

SIGNALS = ("barge_in", "stop", "rephrase", "answer")
_TURN_FIELDS = ("time", "categorical", "numeric", "traces", "feedback", "audio")
_LETTERS = [*"abcé ß", '"', "\\", "\n", "\r", "\x00", "\u2028", "中", "🎷", "0"]


def a_dialogue() -> dict[str, Any]:
    """The JSON of a dialogue with a bit of everything."""
    return {
        "id": "call-1",
        "turns": [
            {"speaker": "user", "text": "play jaz", "time": 0.5, "numeric": {"confidence": 0.25},
             "traces": {"recognition": {"n_best": ["play jaz", "play jazz"], "scores": [-1, -2], "decision": "play jaz"}}},
            {"speaker": "system", "text": "Playing Jaz.", "categorical": {"domain": "music"}, "feedback": {"stop": True}},
            {"speaker": "user", "text": "no jazz", "audio": "call-1.wav"},
            {"speaker": "system", "text": "Playing jazz."},
        ],
        "labels": {
            "goals": [{"turns": [0, 1, 2, 3], "success": True}],
            "defects": [1],
            "intents": {"0": "play", "2": "play"},
            "slots": [{"turn": 2, "start": 3, "end": 7, "name": "genre"}],
            "transcription": {"0": "play jazz"},
            "failure_point": {"0": "recognition"},
        },
        "annotations": [
            {"annotator": "ann", "defects": [], "intents": {"0": "play"}, "confidence": {"intents": [0.75]}},
            {"annotator": "bob", "defects": [1]},
            {"annotator": "ann", "intents": {"2": "stop"}},
        ],
        "metadata": {"speaker": "kim"},
    }  # fmt: skip


def _text(rng: np.random.Generator, shortest: int = 0) -> str:
    return "".join(_LETTERS[index] for index in rng.integers(0, len(_LETTERS), rng.integers(shortest, 9)))


def _turn(rng: np.random.Generator, given: set[str], audio: str) -> Turn:
    names = [_text(rng) for _ in range(3)]
    scored = int(rng.integers(0, 2))
    n_best = tuple(_text(rng) for _ in range(rng.integers(0, 4)))
    values: dict[str, Any] = {
        "time": float(rng.normal()),
        "categorical": {name: _text(rng) for name in names},
        "numeric": {name: float(10.0 ** rng.integers(-300, 300)) for name in names},
        "traces": {
            "recognition": Trace(n_best, tuple(map(float, rng.normal(size=scored * len(n_best)))), _text(rng)),
            _text(rng): Trace(),
        },
        "feedback": {signal: bool(rng.integers(0, 2)) for signal in SIGNALS},
        "audio": Audio(path=_text(rng)) if audio == "path" else Audio(None, array("f", rng.normal(size=5)), 8000),
    }  # fmt: skip
    chosen = {name: values[name] for name in _TURN_FIELDS if name in given}
    return Turn(("user", "system")[rng.integers(0, 2)], _text(rng), **chosen)


def _labels(
    rng: np.random.Generator, turns: tuple[Turn, ...], filled: dict[str, bool], parts: frozenset[str]
) -> Labels:
    """Tasks that `filled` lacks are None, those that are false are empty; those in `parts` are of some turns alone."""

    def some() -> tuple[int, ...]:
        return tuple(sorted(map(int, rng.choice(len(turns), rng.integers(1, len(turns) + 1), replace=False))))

    spans = [
        (turn, *sorted(map(int, rng.choice(len(turns[turn].text) + 1, 2, replace=False))))
        for turn in some()
        if turns[turn].text
    ]
    values: dict[str, Any] = {
        "goals": (Goal(some(), success=True), Goal(some()), Goal(None, success=False), Goal()),
        "defects": some(),
        "slots": tuple(Slot(*span, _text(rng, 1)) for span in spans),
        **{task: {turn: _text(rng, 1) for turn in some()} for task in ("intents", "transcription", "failure_point")},
    }
    given = {task: values[task] if full else type(values[task])() for task, full in filled.items()}
    named = {
        "goals": [goal.turns[0] for goal in given.get("goals", ()) if goal.turns],
        "defects": given.get("defects", ()),
        "slots": (),
    }
    judged = {task: tuple(sorted({*some(), *named[task]})) for task in sorted(parts & filled.keys())}
    return Labels(**given, judged=judged)


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    """Structure by hypothesis (turns, fields and tasks that are there), values by a drawn seed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    given = draw(st.sets(st.sampled_from(_TURN_FIELDS)))
    audio = draw(st.sampled_from(["path", "samples"]))
    turns = tuple(_turn(rng, given, audio) for _ in range(draw(st.sampled_from([1, 2, 7, 30]))))
    tasks = st.dictionaries(st.sampled_from(TASKS), st.booleans())
    parts = st.frozensets(st.sampled_from(JUDGED))
    annotations = []
    for number in range(draw(st.sampled_from([0, 1, 3]))):
        labels = _labels(rng, turns, draw(tasks), draw(parts))
        counts = {task: len(getattr(labels, task)) for task in labels.tasks()}
        weighed = {task: len(labels.judged_turns(task, len(turns))) for task in counts if task == "defects"}
        if draw(st.booleans()):
            counts |= weighed
        if labels.goals is not None:
            counts["success"] = sum(goal.success is not None for goal in labels.goals)
        sure, weight = (
            {task: tuple(map(float, rng.random(count))) for task, count in each.items()} for each in (counts, weighed)
        )
        given = (sure if draw(st.booleans()) else {}, weight if draw(st.booleans()) else {})
        annotations.append(Annotation(f"{number}{_text(rng)}", labels, *given))
    metadata = {_text(rng): _text(rng) for _ in range(draw(st.integers(0, 2)))}
    gold = _labels(rng, turns, draw(tasks), draw(parts))
    return Dialogue(_text(rng, 1), turns, gold, tuple(annotations), metadata)
