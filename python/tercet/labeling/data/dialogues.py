"""Dialogues, what was logged of them, and what is known or said about them: the terms of the label generator.

A dialogue that exists is valid: its constructor checks everything that one record can get wrong.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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

    Goals, defects and slots speak of all turns, or of those that are judged: there, what they do not name is not there,
    and an empty tuple says that there is none. The other three speak of the turns that they name, and leave the rest
    open.

    Attributes:
        goals: with their turns and success.
        defects: turns that the system got wrong, ascending.
        intents: by turn; also any other class of a turn, such as its dialogue act.
        slots: in the text of turns.
        transcription: by turn, what was really said.
        failure_point: by turn, the first component whose error was not recovered from, or correct.
        judged: by task, of JUDGED, the turns of which all is said, ascending; a task that is absent was done for all
            turns. Of goals: every goal that begins at such a turn is named, with all of its turns, and no other goal
            but those whose turns are not known. Of defects: those turns without one are right. Of slots: every slot in
            the text of such a turn is named; a slot in another turn stands for itself, the rest of its turn is open.
    """

    goals: tuple[Goal, ...] | None = None
    defects: tuple[int, ...] | None = None
    intents: Mapping[int, str] | None = None
    slots: tuple[Slot, ...] | None = None
    transcription: Mapping[int, str] | None = None
    failure_point: Mapping[int, str] | None = None
    judged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def tasks(self) -> tuple[str, ...]:
        """The tasks that were done, in the order of TASKS.

        Example:
            >>> Labels(defects=(), intents={0: "play"}).tasks()
            ('defects', 'intents')
        """
        return tuple(task for task in TASKS if getattr(self, task) is not None)

    def judged_turns(self, task: str, num_turns: int) -> Sequence[int]:
        """The turns, ascending, of which these labels say all that there is to say; none where the task was not done.

        Goals of which one has no turns say that of no turn, unless `judged` does.

        Example:
            >>> Labels(defects=(1,)).judged_turns("defects", 3), Labels(intents={2: "play"}).judged_turns("intents", 3)
            (range(0, 3), [2])
            >>> Labels(defects=(1,), judged={"defects": (1, 2)}).judged_turns("defects", 3)
            (1, 2)
        """
        labels = getattr(self, task)
        if isinstance(labels, Mapping):
            return sorted(labels)
        if labels is None or (task not in self.judged and any(turn_of(label) is None for label in labels)):
            return ()
        return self.judged.get(task, range(num_turns))


JUDGED = ("goals", "defects", "slots")
TASKS = tuple(task.name for task in fields(Labels) if task.name != "judged")


def turn_of(label: Goal | Slot | int) -> int | None:
    """Where a goal begins, a slot or a defect is; None of a goal whose turns are not known."""
    if isinstance(label, Goal):
        return None if label.turns is None else label.turns[0]
    return label.turn if isinstance(label, Slot) else label


@dataclass(frozen=True, slots=True)
class Annotation:
    """The labels of one annotator, person or model.

    Attributes:
        annotator: a name that is the same in all dialogues.
        labels: those of the tasks that this annotator did here.
        confidence: in 0..1, by task, one for each label in its order; for tasks by turn, in the order of the mapping.
            Of defects, one for each defect, or for each turn that is judged: of what is said there. That of goals is
            of all that is said of them, unless `success` has one for each goal whose success is said.
        weight: in 0..1, of defects, one for each turn that is judged: how much evidence there is for what is said of
            it. Training counts the turn by it; where it is absent, in full.
    """

    annotator: str
    labels: Labels
    confidence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    weight: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def judges(self, task: str) -> bool:
        """Whether these labels are a judgement of the task; those that have a weight are guesses, to learn from."""
        return getattr(self.labels, task) is not None and task not in self.weight

    def sure_of_defects(self, num_turns: int) -> dict[int, float]:
        """By turn, how sure the annotator is that it has a defect, or that it has none; what is absent was not said.

        Example:
            >>> labels = Labels(defects=(1,), judged={"defects": (1, 2)})
            >>> Annotation("ann", labels, {"defects": (0.9, 0.6)}).sure_of_defects(4)
            {1: 0.9, 2: 0.6}
        """
        sure, defects = self.confidence.get("defects"), self.labels.defects or ()
        if sure is None:
            return {}
        turns = defects if len(sure) == len(defects) else self.labels.judged_turns("defects", num_turns)
        return dict(zip(turns, sure, strict=True))

    def sure_of_success(self) -> dict[int, float]:
        """By the number of the goal, how sure the annotator is of its success; what is absent was not said."""
        goals = self.labels.goals or ()
        said = [number for number, goal in enumerate(goals) if goal.success is not None]
        if "success" in self.confidence:
            return dict(zip(said, self.confidence["success"], strict=True))
        whole = self.confidence.get("goals")
        return {} if whole is None else {number: whole[number] for number in said}


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
            _check_confidence(annotation, len(self.turns), where)
        _check_agreement_with_oneself(self.annotations, len(self.turns))


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
    _check_judged(labels, len(turns), f"{where}.judged")


def _check_judged(labels: Labels, num_turns: int, where: str) -> None:
    for task, judged in labels.judged.items():
        if task not in JUDGED:
            fail(f"{where} must be of {', '.join(JUDGED)}, got {task!r}")
        if task not in labels.tasks():
            fail(f"{where}.{task} must be of a task that was done")
        _check_ascending(judged, num_turns, f"{where}.{task}")
        for turn in map(turn_of, getattr(labels, task)) if task != "slots" else ():
            if turn is not None and turn not in judged:
                what = "every defect" if task == "defects" else "the first turn of every goal"
                fail(f"{where}.{task} must hold {what}, lacks {turn}")


def _check_turn_number(turn: int, num_turns: int, where: str) -> None:
    if not 0 <= turn < num_turns:
        fail(f"{where} must be a turn of the dialogue, 0..{num_turns - 1}, got {turn}")


def _check_ascending(numbers: Sequence[int], num_turns: int, where: str) -> None:
    for number in numbers:
        _check_turn_number(number, num_turns, where)
    if any(first >= second for first, second in pairwise(numbers)):
        fail(f"{where} must be ascending, got {list(numbers)}")


def _check_confidence(annotation: Annotation, num_turns: int, where: str) -> None:
    labels, judged = annotation.labels, "turns that are judged"
    for name, values in annotation.confidence.items():
        task = "goals" if name == "success" else name
        said = getattr(labels, task) if task in TASKS else None
        if said is None:
            fail(f"{where}.confidence.{name} must be of a task that the annotator did")
        counts = {"labels": len(said)}
        if name == "success":
            counts = {"goals whose success is said": sum(goal.success is not None for goal in said)}
        if name == "defects":
            counts[judged] = len(labels.judged_turns(name, num_turns))
        _check_shares(values, counts, f"{where}.confidence.{name}")
    for name, values in annotation.weight.items():
        if name != "defects" or labels.defects is None:
            fail(f"{where}.weight.{name} must be of defects that the annotator judged")
        _check_shares(values, {judged: len(labels.judged_turns(name, num_turns))}, f"{where}.weight.{name}")


def _check_shares(values: Sequence[float], counts: Mapping[str, int], where: str) -> None:
    """One for each of something, `counts` says of what it may be."""
    if len(values) not in counts.values():
        meant = " or ".join(f"{count} {name}" for name, count in counts.items())
        fail(f"{where} must be one for each of the {meant}, got {len(values)}")
    if not all(0 <= value <= 1 for value in values):
        fail(f"{where} must be in 0..1, got {list(values)}")


def _check_agreement_with_oneself(annotations: Sequence[Annotation], num_turns: int) -> None:
    """An annotator may come back for another task or turn, but not with another answer."""
    said: dict[tuple[str, ...], tuple[int, object]] = {}
    counts = Counter(annotation.annotator for annotation in annotations)
    for index, annotation in enumerate(annotations):
        for place, answer in _answers(annotation.labels, num_turns) if counts[annotation.annotator] > 1 else ():
            first, before = said.setdefault((annotation.annotator, *place), (index, answer))
            if before != answer:
                fail(
                    f"annotations[{index}].{'.'.join(place)} contradicts annotations[{first}]:"
                    f" both are by annotator {annotation.annotator!r}"
                )


def _answers(labels: Labels, num_turns: int) -> Iterator[tuple[tuple[str, ...], object]]:
    """What is said, by task and turn; of all turns together too, where a task was done for all."""
    for task in labels.tasks():
        given = getattr(labels, task)
        if isinstance(given, Mapping):
            yield from (((task, str(turn)), name) for turn, name in given.items())
            continue
        if task not in labels.judged:
            yield (task,), frozenset(given)
        for turn in labels.judged_turns(task, num_turns):
            yield (task, str(turn)), frozenset(label for label in given if turn_of(label) == turn)
