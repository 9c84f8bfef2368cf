"""Feedback in place of annotation: what users show or say about turns, as weak labels of defects.

Each signal (an answer to "did that help?", a barge-in, a stop, a rephrase ...) is a vote on whether the system got a
turn wrong, with a rate of false alarms and of misses of its own. Turns are pooled over users by their request (see
`requests`), each user's part in a request is capped, and all rates are learnt together without gold, or anchored by
what gold there is: the model is that of `votes`, with requests as groups.

A signal that is absent was not observed, and says nothing; one that is false was, and did not occur. Of a log that
writes down what occurs alone, name such signals in `always`: absent is then read as false on every turn of the system.
A signal that is only ever true, or only ever false, cannot be learnt and keeps its prior.

What to beware of: signals that go together for other reasons than a defect (a barge-in that is also a stop) are counted
as independent evidence, so that probabilities are too sure; and whether a signal is observed must not depend on the
defect but through the request.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tercet.labeling.data.dialogues import SPEAKERS, Annotation, Dialogue, Labels
from tercet.labeling.feedback.requests import ACTIONS, Request, request_of
from tercet.labeling.feedback.votes import Cells, Floats, Ids, Votes, entropy, fit_votes

ANNOTATOR = "feedback"  # of weak labels that are put into dialogues


class Pattern(NamedTuple):
    """What is known of a turn: gold (-1: none), and whether each signal that was observed speaks of a defect."""

    gold: int
    votes: tuple[tuple[str, bool], ...]


class Signal(NamedTuple):
    """What is expected of a signal before there is data; it counts for as many turns as `fit_feedback` is told.

    Attributes:
        sensitivity: how often it speaks of a defect where there is one.
        false_alarm: how often it does where there is none.
        good: true means that all was well, as of an answer.
    """

    sensitivity: float
    false_alarm: float
    good: bool = False


# Guesses to start from, not measurements. An unknown signal may turn out to speak for or against a defect.
SIGNALS: Mapping[str, Signal] = {
    "answer": Signal(0.8, 0.1, good=True),
    "stop": Signal(0.4, 0.1),
    "barge_in": Signal(0.4, 0.1),
    "rephrase": Signal(0.5, 0.1),
}
UNKNOWN = Signal(0.5, 0.5)


@dataclass(frozen=True)
class SignalRates:
    """How a signal errs, as it was learnt.

    Attributes:
        sensitivity, false_alarm: as in `Signal`.
        observed: on how many turns it was, true or false.
        shown: on how many of them it spoke of a defect.
        learnt: false: it only ever said one thing, and its rates are its prior's.
    """

    sensitivity: float
    false_alarm: float
    observed: int
    shown: int
    learnt: bool


@dataclass(frozen=True)
class Evidence:
    """What is known of a request.

    Attributes:
        request: its text, and what the system did.
        turns, users: of which there is feedback or gold, and by how many users.
        defect_rate: posterior mean of how often the system gets it wrong.
        lower, upper: the rate is below (above) with probability alpha.
    """

    request: Request
    turns: int
    users: int
    defect_rate: float
    lower: float
    upper: float

    def to_json(self) -> dict[str, Any]:
        """All figures, the request in its parts."""
        figures = {name: value for name, value in vars(self).items() if name != "request"}
        return {**self.request._asdict(), **figures}


@dataclass(frozen=True, eq=False)
class WeakLabels:
    """Of a dialogue of T turns.

    Attributes:
        defects: float32 [T], P(the system got the turn wrong): a soft target.
        weight: float32 [T], in 0..1. 1 where there is feedback on the turn itself or gold; where there is only of its
            request, the share of the entropy of a turn without any evidence that this takes away, if it does.
    """

    defects: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class FeedbackModel:
    """What `fit_feedback` learnt.

    Attributes:
        signals: by name.
        votes: the model of rates; its groups are the requests.
        requests: ids of requests.
        turns, users: int64 [num_requests], as in `Evidence`.
        speakers: whose turns bear feedback, or without any gold; turns of others are taken to have no defects.
        reading: how feedback is read.
    """

    signals: Mapping[str, SignalRates]
    votes: Votes
    requests: Mapping[Request, int]
    turns: Ids
    users: Ids
    speakers: frozenset[str]
    reading: Reading

    def ranked(self, *, alpha: float = 0.05, top: int | None = None) -> list[Evidence]:
        """Requests by the lower bound of their defect rate, the worst first; of equal ones that of more users.

        Raises:
            ValueError: alpha is not between 0 and 0.5.
        """
        if not 0 < alpha < 0.5:
            raise ValueError(f"tercet.FeedbackModel.ranked: alpha must be between 0 and 0.5, got {alpha}")
        lower, upper, mean = self.votes.quantile(alpha), self.votes.quantile(1 - alpha), self.votes.moments[0]
        order = np.lexsort((-self.users, -lower))[:top]
        names = list(self.requests)
        return [
            Evidence(names[each], int(self.turns[each]), int(self.users[each]), float(mean[each]), float(lower[each]),
                     float(upper[each]))
            for each in order.tolist()
        ]  # fmt: skip

    def weak_labels(self, dialogue: Dialogue) -> WeakLabels:
        """P(defect) of every turn of a dialogue that the model was fitted to; of others too, a little less exactly."""
        defects, weight = np.zeros(len(dialogue.turns)), np.zeros(len(dialogue.turns))
        means, _ = self.votes.moments
        prior_mean, _ = self.votes.prior_moments
        for turn, each in enumerate(dialogue.turns):
            if each.speaker not in self.speakers:
                continue
            group = self.requests.get(request_of(dialogue, turn, self.reading.actions))
            pattern = self.reading.pattern(dialogue, turn)
            if pattern is not None:
                votes, gold = _table([pattern], list(self.signals))
                defects[turn], weight[turn] = self.votes.wrong(group, votes, gold)[0], 1.0
            elif group is not None:
                left = float(entropy(means[group]) / entropy(prior_mean))
                defects[turn], weight[turn] = means[group], max(0.0, 1 - left)
            else:
                defects[turn] = prior_mean
        return WeakLabels(torch.from_numpy(defects).float(), torch.from_numpy(weight).float())

    def annotated(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with its weak labels as an annotation that training takes as soft targets.

        It judges the turns of which there is evidence, by what is likelier, with the probability of this as confidence
        and with their weight. A dialogue with gold or annotated defects, or without any evidence, stays as it is.
        """
        if any(labels.defects is not None for labels in (dialogue.labels, *(a.labels for a in dialogue.annotations))):
            return dialogue
        weak = self.weak_labels(dialogue)
        turns = weak.weight.nonzero().flatten().tolist()
        if not turns:
            return dialogue
        shares, weights = weak.defects[turns].tolist(), weak.weight[turns].tolist()
        defects = tuple(turn for turn, share in zip(turns, shares, strict=True) if share >= 0.5)
        labels = Labels(defects=defects, judged={"defects": tuple(turns)})
        sure = tuple(max(share, 1 - share) for share in shares)
        soft = Annotation(ANNOTATOR, labels, {"defects": sure}, {"defects": tuple(weights)})
        return replace(dialogue, annotations=(*dialogue.annotations, soft))


@dataclass(frozen=True)
class Reading:
    """How feedback is read off dialogues.

    Attributes:
        user: the key of metadata that names the user; where it is absent each dialogue has a user of its own.
        actions: categorical features that say what the system did.
        always: signals that count as false where they are absent.
        good: signals whose truth says that all was well.
    """

    user: str = "user"
    actions: tuple[str, ...] = ACTIONS
    always: tuple[str, ...] = ()
    good: frozenset[str] = frozenset()

    def pattern(self, dialogue: Dialogue, turn: int) -> Pattern | None:
        """What is known of a turn; None: nothing."""
        each, labels = dialogue.turns[turn], dialogue.labels
        said = dict.fromkeys(self.always, False) if each.speaker == "system" else {}
        said |= each.feedback
        known = turn in labels.judged_turns("defects", len(dialogue.turns))
        if not said and not known:
            return None
        votes = tuple(sorted((name, shown != (name in self.good)) for name, shown in said.items()))
        return Pattern(int(turn in (labels.defects or ())) if known else -1, votes)


def fit_feedback(
    dialogues: Iterable[Dialogue],
    *,
    user: str = "user",
    actions: Sequence[str] = ACTIONS,
    always: Sequence[str] = (),
    signals: Mapping[str, Signal] = SIGNALS,
    strength: float = 20.0,
    cap: float = 1.0,
) -> FeedbackModel:
    """Learn how signals err and how often requests go wrong, from the feedback and the gold defects of dialogues.

    The turns that a user contributes to a request weigh `cap` together at most; turns with gold weigh 1. One pass;
    memory follows the turns with feedback (32 bytes each), distinct requests and users.

    Args:
        dialogues: any.
        user: the key of metadata that names the user; where it is absent each dialogue has a user of its own.
        actions: categorical features that say what the system did; without them its words do.
        always: signals that count as false where they are absent, on the system's turns.
        signals: what is expected of them; others start without an opinion.
        strength: how many turns these expectations count for.
        cap: above 0.

    Raises:
        ValueError: there is neither feedback nor gold of defects, or an argument is out of range.

    Example:
        >>> from tercet.labeling import Dialogue, Turn
        >>> from tercet.labeling.feedback.signals import fit_feedback
        >>> def call(number, asked, stopped):
        ...     said = Turn("user", asked), Turn("system", "Here you are.", feedback={"stop": stopped})
        ...     return Dialogue(str(number), said)
        >>> log = [call(n, "play jaz" if n % 2 else "play jazz", stopped=n % 2 and n % 5 > 0) for n in range(40)]
        >>> worst = fit_feedback(log).ranked(top=1)[0]
        >>> worst.request.text, worst.users, worst.lower > 0.3
        ('play jaz', 20, True)
    """
    op = "tercet.fit_feedback"
    if not 0 < cap < float("inf"):
        raise ValueError(f"{op}: cap must be above 0, got {cap}")
    if not 0 < strength < float("inf"):
        raise ValueError(f"{op}: strength must be above 0, got {strength}")
    for name, signal in signals.items():
        if not (0 < signal.sensitivity < 1 and 0 < signal.false_alarm < 1):
            raise ValueError(f"{op}: rates of signals must be between 0 and 1, got {signal} of {name!r}")
    good = frozenset(name for name, signal in signals.items() if signal.good)
    reading = Reading(user, tuple(actions), tuple(always), good)
    seen = _Seen(reading)
    for dialogue in dialogues:
        seen.add(dialogue)
    return seen.fitted(signals, strength, cap)


def weak_labels(dialogues: Sequence[Dialogue], **options: Any) -> list[WeakLabels]:
    """P(defect) of every turn of each dialogue, from the feedback in all of them: `fit_feedback`, and what it learnt.

    Args:
        dialogues: in memory; of more, fit once and take `FeedbackModel.weak_labels` of each.
        options: of `fit_feedback`.
    """
    model = fit_feedback(dialogues, **options)
    return [model.weak_labels(dialogue) for dialogue in dialogues]


class _Seen:
    """Turns with feedback or gold, while they grow: four columns."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._requests: dict[Request, int] = {}
        self._users: dict[tuple[str, bool], int] = {}
        self._patterns: dict[Pattern, int] = {}
        self._columns = {name: array("q") for name in ("request", "user", "pattern", "speaker")}

    def add(self, dialogue: Dialogue) -> None:
        named = self._reading.user in dialogue.metadata
        user = (dialogue.metadata[self._reading.user] if named else dialogue.id, named)
        for turn, each in enumerate(dialogue.turns):
            pattern = self._reading.pattern(dialogue, turn)
            if pattern is None:
                continue
            request = request_of(dialogue, turn, self._reading.actions)
            ids = (
                self._requests.setdefault(request, len(self._requests)),
                self._users.setdefault(user, len(self._users)),
                self._patterns.setdefault(pattern, len(self._patterns)),
                SPEAKERS.index(each.speaker),
            )
            for column, value in zip(self._columns.values(), ids, strict=True):
                column.append(value)

    def fitted(self, signals: Mapping[str, Signal], strength: float, cap: float) -> FeedbackModel:
        patterns = list(self._patterns)
        names = sorted({name for pattern in patterns for name, _ in pattern.votes})
        votes, gold = _table(patterns, names)
        request, user, pattern, speaker = (np.array(column, np.int64) for column in self._columns.values())
        spoken = np.asarray((votes >= 0).any(1))
        bearing = speaker[spoken[pattern]] if spoken.any() else speaker[gold[pattern] == 1]
        speakers = np.unique(bearing)
        if not len(request):
            raise ValueError("tercet.fit_feedback: dialogues must have feedback on turns, or gold of defects, got none")
        kept = np.isin(speaker, speakers) if len(speakers) else np.ones(len(speaker), bool)
        request, user, pattern = request[kept], user[kept], pattern[kept]
        known, request = np.unique(request, return_inverse=True)
        every = list(self._requests)
        requests = {every[old]: new for new, old in enumerate(known.tolist())}

        weights = np.ones(len(request))
        pair, counts = _pairs(request, user, weights=(gold[pattern] < 0).astype(np.float64))
        weights = np.where(gold[pattern] < 0, np.minimum(1.0, cap / np.maximum(counts[pair], 1)), 1.0)
        of_request = np.unique(np.stack([request, user]), axis=1)[0]
        cell, sums = _pairs(request, pattern, weights=weights)
        places = np.unique(cell, return_index=True)[1]
        cells = Cells(request[places], pattern[places], sums, votes, gold, len(requests))
        expected = [signals.get(name, UNKNOWN) for name in names]
        fitted = fit_votes(
            cells, np.array([each.sensitivity for each in expected]), np.array([each.false_alarm for each in expected]),
            strength=strength,
        )  # fmt: skip
        rates = {}
        for place, name in enumerate(names):
            observed, shown = (int(counted[pattern].sum()) for counted in (votes[:, place] >= 0, votes[:, place] == 1))
            figures = float(fitted.sensitivity[place]), float(fitted.false_alarm[place])
            rates[name] = SignalRates(*figures, observed, shown, bool(fitted.learnt[place]))
        return FeedbackModel(
            rates, fitted, requests, np.bincount(request), np.bincount(of_request),
            frozenset(SPEAKERS[each] for each in speakers.tolist()) or frozenset(SPEAKERS), self._reading,
        )  # fmt: skip


def _pairs(first: Ids, second: Ids, weights: Floats) -> tuple[Ids, Floats]:
    """The id of each pair, in the order of pairs, and the sum of the weights of each."""
    keys = first * (int(second.max(initial=0)) + 1) + second
    ids = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return ids, np.bincount(ids, weights).astype(np.float64)


def _table(patterns: Sequence[Pattern], names: Sequence[str]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Votes [num_patterns, num_signals] and gold [num_patterns], -1: not known. Other signals are left out."""
    votes = np.full((len(patterns), len(names)), -1, np.int8)
    places = {name: place for place, name in enumerate(names)}
    for row, pattern in enumerate(patterns):
        for name, vote in pattern.votes:
            if name in places:
                votes[row, places[name]] = vote
    return votes, np.array([pattern.gold for pattern in patterns], np.int8)
