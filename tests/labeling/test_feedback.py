"""Feedback on turns as weak labels: how it is read, pooled over users, ranked, and what it leaves open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Annotation, Classes, Dialogue, Labels, Turn
from tercet.labeling.feedback.requests import Request, normalised, request_of
from tercet.labeling.feedback.signals import Signal, fit_feedback, weak_labels
from tercet.labeling.model.targets import targets_of

ASK, DONE = "play jazz", "Playing jazz."


def call(
    number: int, text: str = ASK, user: str | None = None, defects: tuple[int, ...] | None = None, **feedback: bool
) -> Dialogue:
    """A request and the answer to it, on which there is feedback."""
    turns = Turn("user", text), Turn("system", DONE, feedback=feedback)
    return Dialogue(f"d{number}", turns, Labels(defects=defects), metadata={} if user is None else {"user": user})


# ---- requests


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalised("  ＰＬＡＹ 3 Straßen-Songs,  don’t!\n") == "play 3 strassen songs don't"
    assert normalised("?!") == ""


def test_requests_of_turns() -> None:
    turns = (
        Turn("system", "Hello, you have 3 messages."), Turn("user", "Play jazz!"),
        Turn("system", "Which one?", categorical={"domain": "music", "mood": "calm", "intent": "ask"}),
        Turn("system", "Hm."), Turn("user", "stop"),
    )  # fmt: skip
    dialogue = Dialogue("1", turns)
    assert [request_of(dialogue, turn) for turn in range(5)] == [
        Request("", "hello you have messages"), Request("play jazz", "domain=music intent=ask"),
        Request("play jazz", "domain=music intent=ask"), Request("play jazz", "hm"), Request("stop", ""),
    ]  # fmt: skip
    assert request_of(dialogue, 2, actions=("mood",)).action == "mood=calm"


# ---- learning


def log(rng: np.random.Generator, num_requests: int, size: int) -> tuple[list[Dialogue], np.ndarray, np.ndarray]:
    """Requests with a rate of defects each, answers and stops; what was wrong, and the rates."""
    rates = rng.choice([0.05, 0.9], num_requests, p=[0.8, 0.2])
    dialogues, wrong = [], rng.random((num_requests, size)) < rates[:, None]
    for (request, turn), defect in np.ndenumerate(wrong):
        said = {
            "answer": bool(rng.random() < (0.15 if defect else 0.95)), "stop": bool(rng.random() < (0.4 if defect else 0.05)),
            "barge_in": bool(rng.random() < (0.5 if defect else 0.1)),
        }  # fmt: skip
        if rng.random() < 0.7:
            del said["answer"]
        dialogues.append(call(len(dialogues), f"ask {request}", f"u{turn}", **said))
    return dialogues, wrong.ravel(), rates


def test_rates_requests_and_turns_are_found_without_gold() -> None:
    dialogues, wrong, rates = log(np.random.default_rng(0), 150, 20)
    model = fit_feedback(dialogues)
    found = {name: (each.sensitivity, each.false_alarm) for name, each in model.signals.items()}
    assert list(found) == ["answer", "barge_in", "stop"]
    np.testing.assert_allclose([*found.values()], [(0.85, 0.05), (0.5, 0.1), (0.4, 0.05)], atol=0.08)
    assert model.signals["answer"].observed == sum("answer" in each.turns[1].feedback for each in dialogues)
    assert model.signals["answer"].shown == sum(not each.turns[1].feedback.get("answer", True) for each in dialogues)
    worst = {each.request.text for each in model.ranked(top=int((rates > 0.5).sum()))}
    assert worst == {f"ask {request}" for request in np.flatnonzero(rates > 0.5)}
    soft = torch.stack([each.defects[1] for each in weak_labels(dialogues)]).double().numpy()
    truth = wrong.astype(float)
    assert np.mean((soft - truth) ** 2) < 0.5 * np.mean((truth.mean() - truth) ** 2)
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1)):  # probabilities are what they say
        inside = (soft >= low) & (soft <= high)
        assert soft[inside].mean() == pytest.approx(truth[inside].mean(), abs=0.08)


def test_one_user_counts_once_for_a_request() -> None:
    others = [call(n, f"other {n % 20}", f"u{n}", stop=n % 10 == 0, answer=n % 10 != 0) for n in range(200)]
    loud = [call(1000 + n, "loud", "one", stop=True, answer=False) for n in range(50)]
    many = [call(2000 + n, "many", f"v{n}", stop=True, answer=False) for n in range(50)]
    ranked = {each.request.text: each for each in fit_feedback([*others, *loud, *many]).ranked()}
    assert (ranked["loud"].users, ranked["loud"].turns, ranked["many"].users) == (1, 50, 50)
    assert ranked["loud"].lower < 0.5 < 0.9 < ranked["many"].lower
    once = {each.request.text: each for each in fit_feedback([*others, loud[0], *many]).ranked()}
    assert ranked["loud"].lower == pytest.approx(once["loud"].lower, abs=1e-3)
    raised = {each.request.text: each for each in fit_feedback([*others, *loud, *many], cap=50).ranked()}
    assert raised["loud"].lower == pytest.approx(raised["many"].lower, abs=1e-3)


def test_without_a_user_each_dialogue_has_one_of_its_own() -> None:
    (found,) = fit_feedback([call(n, stop=True, answer=n == 0) for n in range(9)]).ranked()
    assert (found.users, found.turns) == (9, 9)
    named = [
        Dialogue(each.id, each.turns, metadata={"caller": "kim"}) for each in (call(n, stop=True) for n in range(9))
    ]
    (found,) = fit_feedback(named, user="caller").ranked()
    assert found.users == 1


def test_absent_is_not_false_but_where_it_is_said_to_be() -> None:
    calls = [call(n, "bad" if n < 20 else "good", **({"stop": True} if n < 15 else {})) for n in range(200)]
    silent = fit_feedback(calls)
    assert (silent.signals["stop"].observed, silent.signals["stop"].learnt) == (15, False)
    assert [each.request.text for each in silent.ranked()] == ["bad"]
    read = fit_feedback(calls, always=("stop",))
    assert (read.signals["stop"].observed, read.signals["stop"].shown, read.signals["stop"].learnt) == (200, 15, True)
    assert [each.request.text for each in read.ranked()] == ["bad", "good"]


def test_a_false_answer_speaks_of_a_defect_and_a_false_stop_against_one() -> None:
    said = {"no": {"answer": False}, "yes": {"answer": True}, "stop": {"stop": True}, "none": {"stop": False}}
    model = fit_feedback([call(n, word, **feedback) for n in range(30) for word, feedback in said.items()])
    assert [each.request.text for each in model.ranked()][:2] in (["no", "stop"], ["stop", "no"])
    for word, feedback in said.items():
        (share,) = model.weak_labels(call(0, word, **feedback)).defects[1:].tolist()
        assert (share > 0.5) == (word in ("no", "stop"))


def test_an_unknown_signal_is_read_by_what_goes_with_it() -> None:
    rng = np.random.default_rng(0)
    dialogues = []
    for number in range(400):
        defect = rng.random() < 0.3
        thanks = bool(rng.random() < (0.05 if defect else 0.7))
        dialogues.append(
            call(number, f"ask {number % 40}", answer=bool(rng.random() < (0.1 if defect else 0.9)), thanks=thanks)
        )
    thanks = fit_feedback(dialogues).signals["thanks"]
    assert thanks.sensitivity < 0.25 < 0.5 < thanks.false_alarm  # it speaks of what is right


def test_gold_outweighs_what_was_expected_of_a_signal() -> None:
    rng = np.random.default_rng(0)
    calls = []
    for number in range(300):
        defect = rng.random() < 0.5
        gold = ((1,) if defect else ()) if number < 150 else None
        calls.append(call(number, f"ask {number}", defects=gold, stop=bool(rng.random() < (0.1 if defect else 0.9))))
    model = fit_feedback(calls)
    assert model.signals["stop"].sensitivity < 0.3 < 0.7 < model.signals["stop"].false_alarm
    assert model.weak_labels(calls[0]).defects.tolist() == [0, float(bool(calls[0].labels.defects))]
    assert model.speakers == {"system"}  # gold says nothing of turns that never have feedback


# ---- weak labels


def test_weights_say_what_a_label_stands_on() -> None:
    dialogues = [
        call(n, "bad" if n % 4 == 0 else f"fine {n % 7}", stop=n % 4 == 0, answer=n % 4 > 0) for n in range(80)
    ]
    model = fit_feedback(dialogues)
    own, pooled, unknown = (model.weak_labels(call(99, *given)) for given in (("bad",), ("bad",), ("never asked",)))
    (with_signal,) = weak_labels([*dialogues, call(100, "bad", stop=True)])[-1:]
    assert with_signal.weight.tolist() == [0, 1]
    assert 0.5 < pooled.weight[1] < 1
    assert own.defects[1] > 0.8
    assert unknown.weight.tolist() == [0, 0]
    assert unknown.defects[1] == pytest.approx(model.votes.prior_moments[0], abs=1e-6)
    assert unknown.defects.dtype == unknown.weight.dtype == torch.float32


def test_soft_targets_for_training() -> None:
    dialogues = [call(n, "bad" if n % 4 == 0 else "fine", stop=n % 4 == 0, answer=n % 4 > 0) for n in range(80)]
    model = fit_feedback(dialogues)
    soft = model.annotated(dialogues[0])
    assert soft.turns == dialogues[0].turns
    (made,) = soft.annotations
    weak = model.weak_labels(dialogues[0])
    assert (made.labels.defects, made.labels.judged) == ((1,), {"defects": (1,)})  # of the user's turn nothing is known
    assert made.confidence["defects"] == (float(weak.defects[1]),)
    assert made.weight["defects"] == (1.0,)
    pooled = model.annotated(call(500, "fine"))  # of its request there is evidence
    (made,) = pooled.annotations
    fine = model.weak_labels(pooled)
    assert (made.labels.defects, made.labels.judged) == ((), {"defects": (1,)})
    assert made.confidence["defects"] == pytest.approx((1 - float(fine.defects[1]),))
    assert 0 < made.weight["defects"][0] < 1
    for dialogue, labels in ((soft, weak), (pooled, fine)):
        targets = targets_of(dialogue, Classes())
        np.testing.assert_allclose(targets.defects, labels.defects.numpy(), atol=1e-6)
        np.testing.assert_allclose(targets.defects_weight, labels.weight.numpy())
    gold, never = call(0, "bad", defects=(1,), stop=True), call(0, "never asked")
    by_hand = Dialogue("1", dialogues[0].turns, annotations=(Annotation("ann", Labels(defects=())),))
    for other in (gold, never, by_hand):
        assert model.annotated(other) is other


def test_gold_of_some_turns_says_nothing_of_the_others() -> None:
    told = [
        replace(call(n, stop=True), labels=Labels(defects=(1,) if n else (), judged={"defects": (n,)})) for n in (0, 1)
    ]
    calls = [call(n, stop=n % 3 == 0) for n in range(9)]
    model = fit_feedback([*calls, *told])
    assert model.weak_labels(told[1]).defects[1] == 1.0
    own, like = (model.weak_labels(each) for each in (told[0], call(1, stop=True)))
    assert own.defects[1] == like.defects[1] < 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 40))
def test_labels_are_probabilities_and_the_order_of_dialogues_does_not_matter(
    seed: int, requests: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ["answer", "stop", "thanks"]
    dialogues = []
    for number in range(size):
        feedback = {name: bool(rng.integers(2)) for name in names if rng.random() < 0.5}
        defects = [None, (), (1,)][rng.choice(3, p=[0.8, 0.1, 0.1])]
        dialogues.append(call(number, f"ask {rng.integers(requests)}", f"u{rng.integers(5)}", defects, **feedback))
    if not any(each.turns[1].feedback or each.labels.defects is not None for each in dialogues):
        return
    order = rng.permutation(size)
    first, second = weak_labels(dialogues), weak_labels([dialogues[place] for place in order])
    for place, other in zip(order, second, strict=True):
        torch.testing.assert_close(first[place].defects, other.defects, atol=1e-4, rtol=0)
    every = torch.cat([torch.cat([each.defects, each.weight]) for each in first])
    assert ((every >= 0) & (every <= 1)).all()
    for dialogue, soft in zip(dialogues, first, strict=True):
        if dialogue.labels.defects is not None:
            assert soft.defects[1] == float(dialogue.labels.defects == (1,))


def test_evidence_is_ordered_by_its_bound() -> None:
    few = [call(n, "few", stop=True, answer=False) for n in range(2)]
    many = [call(10 + n, "many", stop=n < 18, answer=n >= 18) for n in range(20)]
    fine = [call(100 + n, f"fine {n % 10}", stop=False, answer=True) for n in range(100)]
    found = fit_feedback([*few, *many, *fine]).ranked()
    assert [each.request.text for each in found[:2]] == ["many", "few"]
    assert all(each.lower <= each.defect_rate <= each.upper for each in found)
    assert found[0].to_json().keys() == {"text", "action", "turns", "users", "defect_rate", "lower", "upper"}


# ---- errors


def test_errors() -> None:
    with pytest.raises(ValueError, match="must have feedback on turns, or gold of defects, got none"):
        fit_feedback([call(0)])
    with pytest.raises(ValueError, match="got none"):
        fit_feedback([])
    for options, message in (
        ({"cap": 0.0}, "cap must be above 0, got 0.0"),
        ({"strength": float("nan")}, "strength must be above 0, got nan"),
        ({"signals": {"stop": Signal(1.0, 0.1)}}, "rates of signals must be between 0 and 1, .* of 'stop'"),
    ):
        with pytest.raises(ValueError, match=f"tercet.fit_feedback: {message}"):
            fit_feedback([call(0, stop=True)], **options)
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 0\.5, got 0\.5"):
        fit_feedback([call(0, stop=True)]).ranked(alpha=0.5)
