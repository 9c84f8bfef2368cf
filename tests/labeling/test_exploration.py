"""Exploration: what a question is worth, against sums over all answers; where it asks, and what it never asks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Dialogue, Labels, Prediction, Turn
from tercet.labeling.feedback.exploration import _after_answers, _beliefs, explore
from tercet.labeling.feedback.requests import Request
from tercet.labeling.feedback.signals import Signal, fit_feedback
from tercet.labeling.feedback.votes import GRID

ANSWER = Signal(0.8, 0.1, good=True)


def call(number: int, text: str, user: str | None = None, labels: Labels = Labels(), **feedback: bool) -> Dialogue:  # noqa: B008
    turns = Turn("user", text), Turn("system", "Done.", feedback=feedback)
    return Dialogue(f"d{number}", turns, labels, metadata={} if user is None else {"user": user})


def believed(*shares: float) -> list[Prediction]:
    """Of calls, P(defect) of the answer."""
    return [Prediction(defects=torch.tensor([0.0, share])) for share in shares]


def entropy(share: float) -> float:
    return -sum(each * math.log2(each) for each in (share, 1 - share) if each > 0)


def information(share: float) -> float:
    """Of a question about a turn that is wrong with this probability, by what can happen."""
    joint = np.array([[share * 0.8, share * 0.2], [(1 - share) * 0.1, (1 - share) * 0.9]])  # [wrong, answer]
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    return float((joint * np.log2(np.where(joint > 0, joint / np.where(apart > 0, apart, 1), 1))).sum())


def test_what_is_left_open_after_answers() -> None:
    rng = np.random.default_rng(0)
    rates = rng.dirichlet(np.full(len(GRID), 0.3), 3)
    found, told = _after_answers(rates, ANSWER, 3)
    says = GRID * 0.8 + (1 - GRID) * 0.1
    for row, asked in itertools.product(range(3), range(4)):
        total = tells = 0.0
        for answers in itertools.product((0, 1), repeat=asked):
            joint = rates[row] * np.prod([np.where(each, says, 1 - says) for each in answers], axis=0)
            mean = float(joint @ GRID / joint.sum())
            total += joint.sum() * entropy(mean)
            tells += joint.sum() * information(mean)
        assert found[row, asked] == pytest.approx(total)
        assert told[row, asked] == pytest.approx(tells)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 0.99), st.floats(0.01, 0.5))
def test_answers_never_make_less_sure(seed: int, sensitivity: float, false_alarm: float) -> None:
    rates = np.random.default_rng(seed).dirichlet(np.full(len(GRID), 0.1), 5)
    left, told = _after_answers(rates, Signal(sensitivity, false_alarm), 5)
    assert (told >= -1e-12).all()
    assert (np.diff(left, axis=1) <= 1e-12).all()
    assert (left >= 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 40), st.integers(1, 4))
def test_what_is_chosen(seed: int, size: int, budget: int, per_request: int) -> None:
    rng = np.random.default_rng(seed)
    calls = [call(n, f"ask {rng.integers(6)}", f"u{rng.integers(8)}") for n in range(size)]
    shares = believed(*rng.random(size))
    chosen = explore(calls, shares, budget=budget, per_request=per_request)
    fewer = explore(calls, shares, budget=1, per_request=per_request)
    assert fewer == chosen[:1]
    places = [(each.dialogue, each.turn) for each in chosen]
    assert len(set(places)) == len(places)
    by_request: dict[Request, int] = {}
    for each in chosen:
        by_request[each.request] = by_request.get(each.request, 0) + 1
    requests = {f"ask {n}": [c for c in calls if c.turns[0].text == f"ask {n}"] for n in range(6)}
    assert max(by_request.values()) <= per_request
    assert len(chosen) == min(budget, sum(min(per_request, len(each)) for each in requests.values()))
    assert all(each.gain >= 0 and each.turn == 1 for each in chosen)
    for each in chosen:
        assert each.users == len({c.metadata["user"] for c in requests[each.request.text]})
    more = explore(
        calls, believed(*np.random.default_rng(seed).random(size)), budget=budget + 3, per_request=per_request
    )
    del more  # of other predictions: it must not fail


def test_it_asks_where_the_model_is_unsure() -> None:
    shares = 0.001, 0.5, 0.999, 0.3
    chosen = explore([call(n, f"ask {n}") for n in range(4)], believed(*shares), budget=4)
    assert [each.dialogue for each in chosen[:2]] == ["d1", "d3"]
    assert [each.probability for each in chosen[:2]] == pytest.approx([0.5, 0.3])
    assert chosen[0].gain == pytest.approx(entropy(0.45) - (entropy(0.8) + entropy(0.1)) / 2)  # of this turn alone


def test_it_asks_of_what_many_users_say_but_not_a_hundred_times() -> None:
    calls = [call(n, "often", f"u{n % 10}") for n in range(100)] + [call(100 + n, f"once {n}") for n in range(50)]
    chosen = explore(calls, believed(*[0.3] * 150), budget=30, per_request=50, strength=2)
    texts = [each.request.text for each in chosen]
    assert texts[0] == "often"
    assert 3 < texts.count("often") < 20
    gains = [each.gain for each in chosen]
    assert gains == sorted(gains, reverse=True)
    alone = [Dialogue(each.id, each.turns, metadata={"user": "one"}) for each in calls]
    first = explore(alone, believed(*[0.3] * 150), budget=1)[0]
    assert first.gain == pytest.approx(explore(calls[100:], believed(*[0.3] * 50), budget=1)[0].gain)


def test_disagreement_of_models_is_uncertainty() -> None:
    calls = [call(n, f"ask {n % 2}", f"u{n}") for n in range(20)]
    same, apart = (0.5, 0.5), (0.1, 0.9)
    given = [
        [Prediction(defects=torch.tensor([0.0, share])) for share in (apart if n % 2 else same)] for n in range(20)
    ]
    one = [Prediction(defects=torch.tensor([0.0, 0.45 if n % 2 else 0.5])) for n in range(20)]
    assert explore(calls, one, budget=1)[0].request.text == "ask 0"
    beliefs = [
        [each[k].defects[1].item() + 0.01 * (k if n % 2 == 0 else 0) for k in (0, 1)] for n, each in enumerate(given)
    ]
    given = [[Prediction(defects=torch.tensor([0.0, share])) for share in pair] for pair in beliefs]
    assert explore(calls, given, budget=1)[0].request.text == "ask 1"


def test_what_feedback_tells_is_not_asked_again() -> None:
    calls = [call(n, "known" if n % 2 else "open", f"u{n}") for n in range(40)]
    told = [call(100 + n, "known", f"v{n}", answer=True, stop=False) for n in range(60)]
    told += [call(200 + n, f"other {n % 9}", f"v{n}", answer=n % 3 > 0, stop=n % 3 == 0) for n in range(60)]
    chosen = explore(calls, believed(*[0.3] * 40), budget=3, feedback=fit_feedback(told))
    assert {each.request.text for each in chosen} == {"open"}


def test_beliefs_without_feedback_are_those_of_the_model() -> None:
    from tercet.labeling.feedback.exploration import _Asked

    asked = [(Request("a", ""), _Asked(count=2, mean=0.6)), (Request("b", ""), _Asked(count=1, mean=0.5, spread=0.05))]
    rates = _beliefs(asked, None, 10.0)
    assert rates.sum(1) == pytest.approx([1, 1])
    assert rates @ GRID == pytest.approx([0.3, 0.5], abs=0.01)
    variances = rates @ np.square(GRID) - np.square(rates @ GRID)
    assert variances == pytest.approx([0.3 * 0.7 / 11, 0.05], abs=0.005)


def test_known_turns_are_not_asked_about() -> None:
    calls = [
        call(0, "a", labels=Labels(defects=())), call(1, "b", answer=True), call(2, "c", stop=True), call(3, "d"),
    ]  # fmt: skip
    assert {each.dialogue for each in explore(calls, believed(*[0.5] * 4), budget=9)} == {"d2", "d3"}
    partly = [call(n, f"ask {n}", labels=Labels(defects=(), judged={"defects": (n,)})) for n in (0, 1)]
    assert [each.dialogue for each in explore(partly, believed(0.5, 0.5), budget=9)] == ["d0"]


def test_what_the_model_says_nothing_of_may_be_either() -> None:
    calls = [call(n, f"ask {n}") for n in range(3)]
    chosen = explore(calls, believed(0.3, float("nan"), 0.4), budget=9)
    assert [each.dialogue for each in chosen] == ["d1", "d2", "d0"]
    assert chosen[0].probability == pytest.approx(0.5)


@pytest.mark.parametrize("task", ["intents", "failure_point"])
def test_other_tasks_ask_whether_the_likeliest_label_is_right(task: str) -> None:
    calls = [call(n, f"ask {n}", labels=Labels(**({task: {0: "play"}} if n == 2 else {}))) for n in range(3)]
    shares = [torch.tensor([[each, 1 - each], [0.5, 0.5]]) for each in (0.95, 0.6, 0.5)]
    chosen = explore(calls, [Prediction(**{task: each}) for each in shares], budget=9, task=task)
    assert [(each.dialogue, each.turn) for each in chosen] == [("d1", 0), ("d0", 0)]
    assert [each.probability for each in chosen] == pytest.approx([0.4, 0.05])
    assert chosen[0].to_json().keys() == {"dialogue", "turn", "text", "action", "probability", "users", "gain"}


def test_errors() -> None:
    calls = [call(0, "a"), call(1, "b")]
    for options, message in (
        ({"budget": 0}, r"budget must be positive and per_request in 1\.\.50, got 0 and 3"),
        ({"budget": 1, "task": "goals"}, "task must be one of defects, intents, failure_point, got 'goals'"),
        ({"budget": 1, "strength": 0.0}, "strength must be above 0, got 0.0"),
        ({"budget": 1, "answer": Signal(1.0, 0.1)}, "rates of answers must be between 0 and 1"),
        ({"budget": 1, "task": "intents"}, "predictions must be of a model that does intents"),
    ):
        with pytest.raises(ValueError, match=f"tercet.explore: {message}"):
            explore(calls, believed(0.5, 0.5), **options)
    with pytest.raises(ValueError, match="one for each dialogue, got 1 and more dialogues"):
        explore(calls, believed(0.5), budget=1)
    with pytest.raises(ValueError, match="one for each dialogue, got more than dialogues"):
        explore(calls, believed(0.5, 0.5, 0.5), budget=1)
    with pytest.raises(ValueError, match="predictions must be of the 2 turns of dialogue 'd0', got 3"):
        explore(calls, [Prediction(defects=torch.zeros(3))] * 2, budget=1)
