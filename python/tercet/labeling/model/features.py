"""What was logged of a turn beside its words, as the numbers a model reads: parts of a turn, by kind.

kind      from
name      categorical features and, where they are inputs, feedback signals: one vector for each value that two
          turns have, one for each feature's other values
number    numeric features, the time since the turn before and until the next one, the size of traces and their scores:
          piecewise linear in quantiles of the training data
text      the turn's own text, and what components decided and would have decided (traces), by the same encoder
sound     samples
Features that were never met in training are left out.

Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep Learning, 2022 (piecewise linear).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tercet.labeling.data.dialogues import SPEAKERS, Dialogue, Turn

BINS = 8
HYPOTHESES = 5  # of an n-best list, the first
_KEPT = 10_000  # values of a numeric feature that its quantiles are of
_LARGEST = 1e100  # differences of numbers are finite
_UNKNOWN = "other"


@dataclass(frozen=True)
class Vocabulary:
    """The features that a model knows.

    Attributes:
        names: NAME=VALUE, and NAME for the other values.
        numbers: features.
        edges: [len(numbers)][BINS + 1], ascending quantiles of each.
        texts: components whose decisions and hypotheses are read: COMPONENT decision, COMPONENT 0, COMPONENT 1 ...
        sound: whether turns have any.
    """

    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    texts: tuple[str, ...] = ()
    sound: bool = False

    def others(self) -> list[int]:
        """The number of each name's feature with a value that is not known."""
        places = {name: place for place, name in enumerate(self.names)}
        return [places[_other(name.partition("=")[0].partition("\n")[0])] for name in self.names]


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a dialogue's turns; `*_turn` is the turn of each.

    Attributes:
        speakers: int64 [T].
        texts: those of turns first, in their order. text_turn, text_kind: int64 [num_texts]; kind 0 is a turn's own.
        name_turn, names: int64 [num_names].
        number_turn, numbers: int64 [num_numbers]; shares: float32 [num_numbers, BINS], how far each bin is passed.
        sounds: by turn.
    """

    speakers: npt.NDArray[np.int64]
    texts: list[str]
    text_turn: npt.NDArray[np.int64]
    text_kind: npt.NDArray[np.int64]
    name_turn: npt.NDArray[np.int64]
    names: npt.NDArray[np.int64]
    number_turn: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]
    sounds: Mapping[int, object] = field(default_factory=dict)


class VocabularyMaker:
    """Counts what dialogues hold as they pass by."""

    def __init__(self, feedback: bool) -> None:
        self._feedback = feedback
        self._names: Counter[str] = Counter()
        self._numbers: dict[str, array[float]] = {}
        self._texts: set[str] = set()
        self._sound = False

    def add(self, dialogue: Dialogue) -> None:
        """Count a dialogue."""
        for place, turn in enumerate(dialogue.turns):
            self._names.update(f"{name}={value}" for name, value in _named(turn, self._feedback))
            for name, value in _numbers(dialogue, place):
                kept = self._numbers.setdefault(name, array("d"))
                if len(kept) < _KEPT:
                    kept.append(min(max(value, -_LARGEST), _LARGEST))
            self._texts.update(name for name, _ in _trace_texts(turn))
            self._sound |= turn.audio is not None

    def made(self) -> Vocabulary:
        """The vocabulary of all that was counted."""
        features = sorted({name.partition("=")[0] for name in self._names})
        values = sorted(name for name, count in self._names.items() if count > 1)
        numbers = sorted(self._numbers)
        steps = np.linspace(0, 1, BINS + 1)
        edges = (tuple(np.quantile(np.array(self._numbers[name]), steps).tolist()) for name in numbers)
        names = (*values, *(_other(name) for name in features))
        return Vocabulary(names, tuple(numbers), tuple(edges), tuple(sorted(self._texts)), self._sound)


class PartReader:
    """Dialogues -> parts by a vocabulary."""

    def __init__(self, vocabulary: Vocabulary, feedback: bool) -> None:
        self.vocabulary, self._feedback = vocabulary, feedback
        self._names = {name: place for place, name in enumerate(vocabulary.names)}
        self._numbers = {name: place for place, name in enumerate(vocabulary.numbers)}
        self._texts = {name: place for place, name in enumerate(vocabulary.texts, 1)}
        self._edges = np.array(vocabulary.edges, np.float64).reshape(-1, BINS + 1)

    def read(self, dialogue: Dialogue) -> Parts:
        """The parts of a dialogue."""
        turns = dialogue.turns
        texts: list[tuple[int, int, str]] = [(place, 0, turn.text) for place, turn in enumerate(turns)]
        names: list[tuple[int, int]] = []
        numbers: list[tuple[int, int, float]] = []
        for place, turn in enumerate(turns):
            for name, value in _named(turn, self._feedback):
                found = self._names.get(f"{name}={value}", self._names.get(_other(name)))
                if found is not None:
                    names.append((place, found))
            numbers += (
                (place, self._numbers[n], value) for n, value in _numbers(dialogue, place) if n in self._numbers
            )
            texts += ((place, self._texts[name], text) for name, text in _trace_texts(turn) if name in self._texts)
        named = np.array(names, np.int64).reshape(-1, 2)
        counted = np.array([pair[:2] for pair in numbers], np.int64).reshape(-1, 2)
        return Parts(
            speakers=np.array([SPEAKERS.index(turn.speaker) for turn in turns], np.int64),
            texts=[text for _, _, text in texts],
            text_turn=np.array([place for place, _, _ in texts], np.int64),
            text_kind=np.array([kind for _, kind, _ in texts], np.int64),
            name_turn=named[:, 0],
            names=named[:, 1],
            number_turn=counted[:, 0],
            numbers=counted[:, 1],
            shares=self._shares(counted[:, 1], np.array([value for _, _, value in numbers], np.float64)),
            sounds={p: turn.audio for p, turn in enumerate(turns) if turn.audio is not None and self.vocabulary.sound},
        )

    def _shares(self, numbers: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        edges = self._edges[numbers]
        low, width = edges[:, :-1], np.diff(edges, axis=1)
        passed = np.divide(values[:, None] - low, width, out=(values[:, None] > low).astype(float), where=width > 0)
        shares: npt.NDArray[np.float32] = passed.clip(0, 1).astype(np.float32)
        return shares


def _other(name: str) -> str:
    return f"{name}\n{_UNKNOWN}"


def _named(turn: Turn, feedback: bool) -> Iterator[tuple[str, str]]:
    for name, value in turn.categorical.items():
        yield name.replace("=", " "), value
    if feedback:
        for name, seen in turn.feedback.items():
            yield f"feedback {name}".replace("=", " "), str(seen)


def _numbers(dialogue: Dialogue, place: int) -> Iterator[tuple[str, float]]:
    turn = dialogue.turns[place]
    yield from ((f"number {name}", value) for name, value in turn.numeric.items())
    for name, other in (("since", place - 1), ("until", place + 1)):
        if turn.time is not None and 0 <= other < len(dialogue.turns):
            time = dialogue.turns[other].time
            if time is not None:
                yield name, abs(turn.time - time)
    for name, trace in turn.traces.items():
        yield f"hypotheses {name}", float(len(trace.n_best))
        yield from ((f"score {name} {rank}", score) for rank, score in enumerate(trace.scores[:HYPOTHESES]))
        if len(trace.scores) > 1:
            yield f"margin {name}", trace.scores[0] - trace.scores[1]


def _trace_texts(turn: Turn) -> Iterator[tuple[str, str]]:
    for name, trace in turn.traces.items():
        if trace.decision is not None:
            yield f"{name} decision", trace.decision
        yield from ((f"{name} {rank}", text) for rank, text in enumerate(trace.n_best[:HYPOTHESES]))
