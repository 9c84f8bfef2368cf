"""Dialogues, what was logged of them, and what is known or said about them: the terms of the label generator.

A dialogue that exists is valid: its constructor checks everything that one record can get wrong.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import NoReturn

SPEAKERS = ("user", "system")
# The failure points of a spoken assistant; data sets may use other names.
FAILURE_POINTS = ("false_wake", "recognition", "understanding", "entity_resolution", "result", "correct")
PREFIX = "tercet.Dialogue: "  # of every message here; what reads files puts the file and line in its place


def fail(message: str) -> NoReturn:
    """Raise ValueError about a dialogue."""
    raise ValueError(PREFIX + message)


@dataclass(frozen=True, slots=True)
class Audio:
    """What was heard in a turn: a sound file, or samples with their rate.

    Attributes:
        path: of a sound file, as it stands in the log; None where samples are given.
        samples: float32 in -1..1; None where a path is given.
        rate: of the samples, in Hz.
    """

    path: str | None = None
    samples: array[float] | None = None
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What a component (recognition, understanding, ...) made of a turn.

    Attributes:
        n_best: its hypotheses, best first.
        scores: one for each hypothesis, or none at all.
        decision: what it passed on.
    """

    n_best: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    decision: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said, and what was logged of it. All of it is input; what is known about it stands in labels.

    Attributes:
        speaker: user or system.
        text: as the system had it: of a user's spoken turn, what was recognised. May be empty.
        time: when it began, in seconds from any origin that its dialogue shares.
        categorical: names by feature: domain, intent, device, place ...
        numeric: finite numbers by feature: number of tokens, confidence ...
        traces: by component.
        feedback: what the user showed or said about this turn, by signal: barge_in, stop, rephrase, answer (true: yes).
            A signal that was not observed is absent, which is not the same as false.
        audio: what was heard.
    """

    speaker: str
    text: str
    time: float | None = None
    categorical: Mapping[str, str] = field(default_factory=dict)
    numeric: Mapping[str, float] = field(default_factory=dict)
    traces: Mapping[str, Trace] = field(default_factory=dict)
    feedback: Mapping[str, bool] = field(default_factory=dict)
    audio: Audio | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """Something the user wants; goals may interleave and share turns.

    Attributes:
        turns: those that serve it, ascending; None where only its success is known.
        success: whether it was reached; None where nobody judged.
    """

    turns: tuple[int, ...] | None = None
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A named piece of a turn's text: characters start..end-1."""

    turn: int
    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known about a dialogue, by task; turns count from 0. None: the task was not done here.

    Goals, defects and slots speak of the whole dialogue: a turn that they do not name has none, and an empty tuple says
    that there are none. The other three speak of the turns that they name, and leave the rest open.

    Attributes:
        goals: with their turns and success.
        defects: turns that the system got wrong, ascending.
        intents: by turn; also any other class of a turn, such as its dialogue act.
        slots: in the text of turns.
        transcription: by turn, what was really said.
        failure_point: by turn, the first component whose error was not recovered from, or correct.
    """

    goals: tuple[Goal, ...] | None = None
    defects: tuple[int, ...] | None = None
    intents: Mapping[int, str] | None = None
    slots: tuple[Slot, ...] | None = None
    transcription: Mapping[int, str] | None = None
    failure_point: Mapping[int, str] | None = None

    def tasks(self) -> tuple[str, ...]:
        """The tasks that were done, in the order of TASKS.

        Example:
            >>> Labels(defects=(), intents={0: "play"}).tasks()
            ('defects', 'intents')
        """
        return tuple(task for task in TASKS if getattr(self, task) is not None)


TASKS = tuple(task.name for task in fields(Labels))


@dataclass(frozen=True, slots=True)
class Annotation:
    """The labels of one annotator, person or model.

    Attributes:
        annotator: a name that is the same in all dialogues.
        labels: those of the tasks that this annotator did here.
        confidence: in 0..1, by task, one for each label in its order; for tasks by turn, in the order of the mapping.
    """

    annotator: str
    labels: Labels
    confidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue of a log or data set.

    Attributes:
        id: unique in its file.
        turns: in their order; at least one.
        labels: what holds (gold), as far as it is known.
        annotations: what annotators said, who may disagree; one annotator may have several, for different tasks.
        metadata: names by key, to split and group by (speaker, split, ...). Never an input of a model.

    Raises:
        ValueError: `tercet.Dialogue: FIELD must ...`, e.g. `turns[3].speaker must be user or system, got 'bot'`.

    Example:
        >>> turns = (Turn("user", "play jazz"), Turn("system", "Playing jazz."))
        >>> Dialogue("1", turns, Labels(goals=(Goal((0, 1), success=True),))).labels.tasks()
        ('goals',)
    """

    id: str
    turns: tuple[Turn, ...]
    labels: Labels = field(default_factory=Labels)
    annotations: tuple[Annotation, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            fail("id must not be empty")
        if not self.turns:
            fail("turns must not be empty")
        for index, turn in enumerate(self.turns):
            _check_turn(turn, f"turns[{index}]")
        _check_labels(self.labels, self.turns, "labels")
        for index, annotation in enumerate(self.annotations):
            where = f"annotations[{index}]"
            if not annotation.annotator:
                fail(f"{where}.annotator must not be empty")
            _check_labels(annotation.labels, self.turns, where)
            _check_confidence(annotation, f"{where}.confidence")
        _check_agreement_with_oneself(self.annotations)


def _check_turn(turn: Turn, where: str) -> None:
    if turn.speaker not in SPEAKERS:
        fail(f"{where}.speaker must be user or system, got {turn.speaker!r}")
    if turn.time is not None and not math.isfinite(turn.time):
        fail(f"{where}.time must be finite, got {turn.time}")
    for name, number in turn.numeric.items():
        if not math.isfinite(number):
            fail(f"{where}.numeric.{name} must be finite, got {number}")
    for name, trace in turn.traces.items():
        if trace.scores and len(trace.scores) != len(trace.n_best):
            fail(
                f"{where}.traces.{name}.scores must be one for each of the {len(trace.n_best)} hypotheses of n_best,"
                f" got {len(trace.scores)}"
            )
        if not all(map(math.isfinite, trace.scores)):
            fail(f"{where}.traces.{name}.scores must be finite, got {list(trace.scores)}")
    audio = turn.audio
    if audio is None:
        return
    if (audio.path is None) == (audio.samples is None) or (audio.samples is None) != (audio.rate is None):
        fail(f"{where}.audio must be a path, or samples with their rate")
    if audio.rate is not None and audio.rate < 1:
        fail(f"{where}.audio.rate must be positive, got {audio.rate}")
    if audio.samples is not None and not all(map(math.isfinite, audio.samples)):
        fail(f"{where}.audio.samples must be finite")


def _check_labels(labels: Labels, turns: Sequence[Turn], where: str) -> None:
    for index, goal in enumerate(labels.goals or ()):
        if goal.turns is not None:
            _check_ascending(goal.turns, len(turns), f"{where}.goals[{index}].turns")
            if not goal.turns:
                fail(f"{where}.goals[{index}].turns must not be empty; leave it out where it is not known")
    _check_ascending(labels.defects or (), len(turns), f"{where}.defects")
    for index, slot in enumerate(labels.slots or ()):
        field_name = f"{where}.slots[{index}]"
        _check_turn_number(slot.turn, len(turns), f"{field_name}.turn")
        length = len(turns[slot.turn].text)
        if not 0 <= slot.start < slot.end <= length:
            fail(
                f"{field_name} must have 0 <= start < end <= {length}, the length of its turn's text,"
                f" got {slot.start}..{slot.end}"
            )
        if not slot.name:
            fail(f"{field_name}.name must not be empty")
    for task in ("intents", "transcription", "failure_point"):
        for turn, name in (getattr(labels, task) or {}).items():
            _check_turn_number(turn, len(turns), f"{where}.{task}")
            if not name and task != "transcription":
                fail(f"{where}.{task}.{turn} must not be empty")


def _check_turn_number(turn: int, num_turns: int, where: str) -> None:
    if not 0 <= turn < num_turns:
        fail(f"{where} must be a turn of the dialogue, 0..{num_turns - 1}, got {turn}")


def _check_ascending(numbers: Sequence[int], num_turns: int, where: str) -> None:
    for number in numbers:
        _check_turn_number(number, num_turns, where)
    if any(first >= second for first, second in pairwise(numbers)):
        fail(f"{where} must be ascending, got {list(numbers)}")


def _check_confidence(annotation: Annotation, where: str) -> None:
    for task, values in annotation.confidence.items():
        if task not in annotation.labels.tasks():
            fail(f"{where}.{task} must be of a task that the annotator did")
        count = len(getattr(annotation.labels, task))
        if len(values) != count:
            fail(f"{where}.{task} must be one for each of the {count} labels, got {len(values)}")
        if not all(0 <= value <= 1 for value in values):
            fail(f"{where}.{task} must be in 0..1, got {list(values)}")


def _check_agreement_with_oneself(annotations: Iterable[Annotation]) -> None:
    """An annotator may come back for another task or turn, but not with another answer."""
    said: dict[tuple[str, ...], tuple[int, object]] = {}
    for index, annotation in enumerate(annotations):
        for task in annotation.labels.tasks():
            labels = getattr(annotation.labels, task)
            answers: dict[tuple[str, ...], object] = (
                {(annotation.annotator, task, str(turn)): name for turn, name in labels.items()}
                if isinstance(labels, Mapping)
                else {(annotation.annotator, task): frozenset(labels)}
            )
            for key, answer in answers.items():
                first, before = said.setdefault(key, (index, answer))
                if before != answer:
                    fail(
                        f"annotations[{index}].{'.'.join(key[1:])} contradicts annotations[{first}]:"
                        f" both are by annotator {annotation.annotator!r}"
                    )
