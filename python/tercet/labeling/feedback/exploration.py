"""Exploration: which turns to ask for feedback on, so that a budget of questions makes labels surest.

A question is "was this right?" about one turn. Its answer, which errs at known rates, tells of that turn, and of all
turns of the same request (see `requests`). With rate[r] ~ P(rate | model, feedback) of how often request r goes wrong,
the k-th question about it is worth

    I(share of the turn) left[r, k - 1] + (users[r] - 1) (open[r, k - 1] - open[r, k])        in bits

    I(share) = H(answer) - H(answer | wrong), what an answer tells of a turn that is wrong with this probability
    open[r, k] = E[H(mean of rate[r] after k answers)], over the answers that may come
    left[r, k] = E[I(mean of rate[r] after k answers)] / I(mean of rate[r])

with H the binary entropy. So it pays to ask where the model is uncertain, of what many users say, and not of the same
request again and again: what is left to learn of it falls with each question. Questions are taken greedily.

The belief in rate[r] is the posterior that feedback gave, if there is one, times Beta(strength m, strength (1 - m)) for
the mean m of what the model predicts of its turns. Where several models are given, the strength is that at which a Beta
would vary as much as they disagree.

Source: greedy choice by expected reduction of entropy as in Krause, Guestrin: Near-optimal Nonmyopic Value of
Information in Graphical Models, 2005; disagreement of models as in Houlsby et al.: Bayesian Active Learning for
Classification and Preference Learning, 2011.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.feedback.requests import ACTIONS, Request, request_of
from tercet.labeling.feedback.signals import SIGNALS, FeedbackModel, Signal
from tercet.labeling.feedback.votes import GRID, Floats, entropy
from tercet.labeling.model.predictions import Prediction

EXPLORED = {
    "defects": "system",
    "intents": "user",
    "failure_point": "user",
}  # the tasks, and whose turns they ask about
_CHUNK = 4096  # requests at a time
_MOST = 50  # questions of a request


@dataclass(frozen=True)
class Question:
    """A turn to ask for feedback on.

    Attributes:
        dialogue, turn: which.
        request: that it belongs to.
        probability: that the turn is wrong (of defects), or the likeliest label of it is (of other tasks).
        users: who made the request.
        gain: expected, in bits, given that the questions before it in the list are asked.
    """

    dialogue: str
    turn: int
    request: Request
    probability: float
    users: int
    gain: float

    def to_json(self) -> dict[str, Any]:
        """All of it, the request in its parts."""
        rest = {name: value for name, value in vars(self).items() if name != "request"}
        return {**rest, **self.request._asdict()}


@dataclass
class _Asked:
    """A request while the dialogues pass by. Its turns: the most uncertain ones, as a heap of (bits, place, turn)."""

    turns: list[tuple[float, int, str, int, float]] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    count: int = 0
    mean: float = 0.0  # sums, until they are divided
    spread: float = 0.0


def explore(
    dialogues: Iterable[Dialogue],
    predictions: Iterable[Prediction | Sequence[Prediction]],
    *,
    budget: int,
    task: str = "defects",
    feedback: FeedbackModel | None = None,
    user: str = "user",
    actions: Sequence[str] = ACTIONS,
    answer: Signal = SIGNALS["answer"],
    strength: float = 40.0,
    per_request: int = 3,
) -> list[Question]:
    """The turns whose feedback would help most, the best first, `budget` at most.

    Turns whose label is known (gold), and turns with an explicit answer, are not asked about. Memory follows the
    requests and their users.

    Args:
        dialogues: any.
        predictions: of each dialogue; or several, by as many models.
        budget: how many questions.
        task: defects, intents or failure_point.
        feedback: what is known of requests already.
        user: the key of metadata that names the user.
        actions: categorical features that say what the system did.
        answer: how answers err.
        strength: how many observed turns a model's prediction of a request counts for, where there is one model.
        per_request: the most questions about one request, up to 50.

    Raises:
        ValueError: an argument is out of range, a prediction lacks the task, or their number is not that of dialogues.

    Example:
        >>> from tercet.labeling import Dialogue, Prediction, Turn
        >>> def call(number, text):
        ...     return Dialogue(str(number), (Turn("user", text), Turn("system", "Done.")))
        >>> calls = [call(n, "play jazz" if n < 8 else f"play {n}") for n in range(12)]
        >>> believed = [Prediction(defects=torch.tensor([0.0, 0.01 if n == 11 else 0.4])) for n in range(12)]
        >>> [each.request.text for each in explore(calls, believed, budget=4, per_request=3)]
        ['play jazz', 'play jazz', 'play jazz', 'play 8']
    """
    op = "tercet.explore"
    if budget < 1 or not 1 <= per_request <= _MOST:
        raise ValueError(f"{op}: budget must be positive and per_request in 1..{_MOST}, got {budget} and {per_request}")
    if task not in EXPLORED:
        raise ValueError(f"{op}: task must be one of {', '.join(EXPLORED)}, got {task!r}")
    if not 0 < strength < math.inf:
        raise ValueError(f"{op}: strength must be above 0, got {strength}")
    if not (0 < answer.sensitivity < 1 and 0 < answer.false_alarm < 1):
        raise ValueError(f"{op}: rates of answers must be between 0 and 1, got {answer}")
    asked: dict[Request, _Asked] = {}
    for place, (dialogue, given) in enumerate(_paired(op, dialogues, predictions)):
        models = [given] if isinstance(given, Prediction) else list(given)
        wrong = np.stack([_wrong(op, task, each, dialogue) for each in models])
        name = dialogue.metadata.get(user, f"\0{dialogue.id}")
        for turn in _open_turns(dialogue, task):
            mean, spread = float(wrong[:, turn].mean()), float(wrong[:, turn].var())
            of = asked.setdefault(request_of(dialogue, turn, actions), _Asked())
            of.users.add(name)
            of.count, of.mean, of.spread = of.count + 1, of.mean + mean, of.spread + spread
            bits = float(_information(np.array(mean), answer))
            item = (bits, -place, dialogue.id, turn, mean)  # of equal ones the first stays
            (heapq.heappush if len(of.turns) < per_request else heapq.heappushpop)(of.turns, item)
    return _chosen(asked, budget, feedback, answer, strength, per_request)


def _paired(
    op: str, dialogues: Iterable[Dialogue], predictions: Iterable[Prediction | Sequence[Prediction]]
) -> Iterable[tuple[Dialogue, Prediction | Sequence[Prediction]]]:
    remaining = iter(predictions)
    for number, dialogue in enumerate(dialogues):
        given = next(remaining, None)
        if given is None:
            raise ValueError(f"{op}: predictions must be one for each dialogue, got {number} and more dialogues")
        yield dialogue, given
    if next(remaining, None) is not None:
        raise ValueError(f"{op}: predictions must be one for each dialogue, got more than dialogues")


def _wrong(op: str, task: str, prediction: Prediction, dialogue: Dialogue) -> Floats:
    """P(the turn, or the label that the model gives it, is wrong), [T]; a half where the model says nothing."""
    shares: Tensor | None = getattr(prediction, task)
    if shares is None:
        raise ValueError(f"{op}: predictions must be of a model that does {task}, got one that does not")
    if len(shares) != len(dialogue.turns):
        raise ValueError(
            f"{op}: predictions must be of the {len(dialogue.turns)} turns of dialogue {dialogue.id!r},"
            f" got {len(shares)}"
        )
    found = shares.double() if task == "defects" else 1 - shares.double().amax(1)
    return np.asarray(found.nan_to_num(0.5).clamp(0, 1).numpy())


def _open_turns(dialogue: Dialogue, task: str) -> list[int]:
    """Turns that may be asked about."""
    known = set(dialogue.labels.judged_turns(task, len(dialogue.turns)))
    return [
        turn
        for turn, each in enumerate(dialogue.turns)
        if each.speaker == EXPLORED[task] and "answer" not in each.feedback and turn not in known
    ]


def _chosen(
    asked: dict[Request, _Asked],
    budget: int,
    feedback: FeedbackModel | None,
    answer: Signal,
    strength: float,
    most: int,
) -> list[Question]:
    """Greedily, by a heap of what each request is worth next."""
    requests = list(asked.items())
    rest, left = np.empty((len(requests), most)), np.empty((len(requests), most))
    for start in range(0, len(requests), _CHUNK):
        part = requests[start : start + _CHUNK]
        rates = _beliefs(part, feedback, strength)
        others = np.array([len(of.users) - 1 for _, of in part])
        uncertain, told = _after_answers(rates, answer, most)
        rest[start : start + len(part)] = others[:, None] * -np.diff(uncertain, axis=1)
        left[start : start + len(part)] = told[:, :-1] / told[:, :1]
    order = [sorted(of.turns, reverse=True) for _, of in requests]
    heap = [(-float(turns[0][0] + rest[row, 0]), row, 0) for row, turns in enumerate(order)]
    heapq.heapify(heap)
    found: list[Question] = []
    while heap and len(found) < budget:
        gain, row, number = heapq.heappop(heap)
        request, of = requests[row]
        _, _, dialogue, turn, share = order[row][number]
        found.append(Question(dialogue, turn, request, share, len(of.users), -gain))
        if number + 1 < len(order[row]):
            worth = order[row][number + 1][0] * left[row, number + 1] + rest[row, number + 1]
            heapq.heappush(heap, (-float(worth), row, number + 1))
    return found


def _beliefs(requests: Sequence[tuple[Request, _Asked]], feedback: FeedbackModel | None, strength: float) -> Floats:
    """Of how often each request goes wrong, on the grid of rates, [num_requests, grid]."""
    count = np.array([of.count for _, of in requests])
    mean = np.clip(np.array([of.mean for _, of in requests]) / count, 1e-3, 1 - 1e-3)
    spread = np.array([of.spread for _, of in requests]) / count
    disagreement = mean * (1 - mean) / np.maximum(spread, 1e-12) - 1
    weight = np.where(spread > 0, np.clip(disagreement, 0.1, 1000), strength)[:, None]
    logs = (weight * mean[:, None] - 1) * np.log(GRID) + (weight * (1 - mean[:, None]) - 1) * np.log1p(-GRID)
    if feedback is not None:
        for row, (request, _) in enumerate(requests):
            group = feedback.requests.get(request)
            if group is not None:  # the prior is the model's
                logs[row] += np.log(np.maximum(feedback.votes.groups[group], 1e-30)) - np.log(feedback.votes.prior)
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _after_answers(rates: Floats, answer: Signal, most: int) -> tuple[Floats, Floats]:
    """Expected entropy of the mean rate after 0..most answers, and what another tells, [num_requests, most + 1]."""
    says_wrong = GRID * answer.sensitivity + (1 - GRID) * answer.false_alarm
    uncertain, told = (np.empty((len(rates), most + 1)) for _ in range(2))
    for asked in range(most + 1):
        wrong = np.arange(asked + 1)
        ways = np.array([math.comb(asked, each) for each in wrong], np.float64)
        given = ways * says_wrong[:, None] ** wrong * (1 - says_wrong[:, None]) ** (asked - wrong)  # [grid, answers]
        likely = rates @ given
        means = (rates * GRID) @ given / np.maximum(likely, 1e-300)
        uncertain[:, asked] = (likely * entropy(means)).sum(1)
        told[:, asked] = (likely * _information(means, answer)).sum(1)
    return uncertain, told


def _information(share: Floats, answer: Signal) -> Floats:
    """Bits that an answer tells of a turn that is wrong with this probability."""
    says = share * answer.sensitivity + (1 - share) * answer.false_alarm
    noise = share * entropy(np.array(answer.sensitivity)) + (1 - share) * entropy(np.array(answer.false_alarm))
    return np.asarray(entropy(says) - noise)
