"""The protocols of real dialogues: what systems see, how they are told apart, and their figures, on small examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bench_labels_dstc2 as dstc2
import bench_labels_sgd as sgd
import bench_labels_slurp as slurp
from label_protocols import difference, measured
from tercet.labeling import Dialogue, Goal, Labels, Slot, Trace, Turn

HEARD = Turn(
    "user",
    "play jaz for kim",
    categorical={"domain": "play", "intent": "play_music"},
    numeric={"entities": 2.0},
    traces={
        "recognition": Trace(("play jaz for kim",), decision="play jaz for kim"),
        "understanding": Trace(decision="play_music [music_genre : jaz] [person : kim]"),
    },
)


def call(name: str, *pairs: tuple[str, str]) -> Dialogue:
    turns = [turn for heard, _ in pairs for turn in (Turn("system", "What?"), Turn("user", heard))]
    said = {2 * place + 1: text for place, (_, text) in enumerate(pairs)}
    return Dialogue(name, tuple(turns), Labels(transcription=said))


# ---- what was measured before


def test_measured_once_and_with_the_same_settings(tmp_path: Path) -> None:
    path, runs = tmp_path / "part.json", []

    def run() -> dict[str, Any]:
        runs.append(1)
        return {"figure": len(runs)}

    settings = {"shares": (1, 2)}
    assert [measured(path, settings, run)["figure"] for _ in range(2)] == [1, 1]
    with pytest.raises(ValueError, match=r"part.json: it was measured with other settings than today's"):
        measured(path, {"shares": (1, 3)}, run)


# ---- SLURP


def test_what_systems_see() -> None:
    assert slurp.text_alone(HEARD) == Turn("user", "play jaz for kim")
    seen = slurp.metadata_alone(HEARD)
    assert seen.text == ""
    assert seen.traces == {"understanding": Trace(decision="play_music music_genre person")}
    assert "jaz" not in repr(seen)
    assert "jaz" not in repr(slurp.metadata(HEARD))
    assert slurp.words(HEARD) == ["play", "jaz", "for", "kim", "play jaz", "jaz for", "for kim"]
    assert {"type person | jaz", "intent play_music person", "person : kim]"} <= set(slurp.crossed(HEARD))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(2, 5), st.integers(0, 9))
def test_recordings_of_a_sentence_are_in_one_fold(sentences: list[int], folds: int, seed: int) -> None:
    made = [
        Dialogue(str(place), (HEARD,), metadata={"slurp_id": str(sentence)}) for place, sentence in enumerate(sentences)
    ]
    found: dict[int, set[int]] = {}
    for sentence, dialogue in zip(sentences, made, strict=True):
        found.setdefault(sentence, set()).add(slurp.fold_of(dialogue, folds, seed))
    assert all(len(each) == 1 for each in found.values())
    assert set.union(*found.values()) <= set(range(folds))


def test_nobody_learns_from_the_folds_held_out() -> None:
    made = [
        Dialogue(str(n), (HEARD,), Labels(failure_point={0: "ab"[n % 2]}), metadata={"slurp_id": str(n // 2)})
        for n in range(60)
    ]
    met: list[str] = []

    def fit(own: list[Dialogue], others: list[list[Dialogue]]) -> list[slurp.Probabilities]:
        parts = [{dialogue.metadata["slurp_id"] for dialogue in part} for part in (own, *others)]
        assert not any(parts[a] & parts[b] for a, b in ((0, 1), (0, 2), (1, 2)))
        met.extend(dialogue.id for dialogue in others[1])
        shares = [[0.6, 0.4] if int(d.id) % 2 == 0 else [0.4, 0.6] for d in [*others[0], *others[1]]]
        return [
            (torch.tensor(part, dtype=torch.float64), ("a", "b"))
            for part in (shares[: len(others[0])], shares[len(others[0]) :])
        ]

    found = slurp.cross_predict(made, fit, 4, seed=0)
    assert sorted(met, key=int) == [dialogue.id for dialogue in made]
    assert found["given"] == {dialogue.id: slurp.gold_of(dialogue) for dialogue in made}


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_macro_f1_is_scikit_learns(seed: int, size: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (extra `labels`)")
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c"]
    gold, given_names = ([names[place] for place in rng.integers(0, 3, size)] for _ in range(2))
    counted = slurp.counts(gold, given_names, rng.integers(0, 5, size).tolist(), names).sum(0)
    expected = metrics.f1_score(gold, given_names, labels=names, average="macro", zero_division=0)
    assert float(slurp.macro_f1(counted.flatten())) == pytest.approx(expected)


def test_rare_classes_weigh_more() -> None:
    found = torch.tensor([[0.7, 0.3]], dtype=torch.float64), ("often", "rare")
    shares = {"often": 0.9, "rare": 0.1}
    assert [slurp.weighted(found, shares, power) for power in (0.0, 1.0)] == [["often"], ["rare"]]


# ---- DSTC2


def test_one_spelling() -> None:
    assert dstc2.spelled("okay i don't care goodbye") == "ok i dont care good bye"
    assert dstc2.spelled("gastro pub by the center") == "gastropub by the centre"
    assert dstc2.without_tags("noise thank you goodbye sil") == "thank you good bye"


def test_rivals_learn_from_pairs() -> None:
    own = [call("1", ("i don't care", "i dont care"), ("don't", "dont")), call("2", ("tie food", "thai food"))]
    others = [[call("3", ("don't know", ""), ("tie food", ""), ("tie", ""))]]
    assert [text for text, _ in dstc2.spelling(own, others)[0][0].values()] == ["dont know", "thai food", "thai"]
    assert dstc2.memory(own, others)[0][0] == {
        1: ("don't know", 0.0),
        3: ("thai food", 0.5),
        5: ("tie", 0.0),
    }
    assert [text for text, _ in dstc2.live(own, others)[0][0].values()] == ["don't know", "tie food", "tie"]


def test_thresholds_keep_what_helps() -> None:
    pytest.importorskip("jiwer", reason="jiwer is not installed (extra `labels`)")
    dialogues = [call("1", ("tie food", "thai food"), ("yes", "yes"))]
    helps_if_sure = [{1: ("thai food", 0.9), 3: ("no", 0.1)}]
    threshold = dstc2.threshold_of(dialogues, helps_if_sure)
    assert 0.1 < threshold <= 0.9
    assert dstc2.counts(dialogues, helps_if_sure, threshold, "as written").tolist() == [[0.0, 3.0]]
    assert dstc2.effect(dialogues, helps_if_sure, threshold) == {"changed": 0.5, "better": 0.5, "worse": 0.0}
    assert dstc2.threshold_of(dialogues, [{1: ("bad", 0.9), 3: ("no", 0.1)}]) == float("inf")


# ---- Schema-Guided Dialogue


@given(st.integers(1, 100), st.integers(0, 9))
def test_shares_are_nested(size: int, seed: int) -> None:
    made = [Dialogue(str(number), (HEARD,)) for number in range(size)]
    parts = [{dialogue.id for dialogue in sgd.share_of(made, share, seed)} for share in sgd.SHARES]
    assert parts[0] <= parts[1] <= parts[2]
    assert len(parts[2]) == size


def test_figures_of_known_names_leave_out_the_others() -> None:
    gold = Labels(goals=(Goal((0,)),), intents={0: "old"}, slots=(Slot(0, 0, 4, "old"), Slot(0, 5, 8, "new")))
    said = Labels(goals=(Goal((0,)),), intents={0: "old"}, slots=(Slot(0, 0, 4, "old"),))
    found = sgd.counts([Dialogue("1", (HEARD,), gold)], [said], ({"old"}, {"old"}))
    assert found["slots"] == [[1.0, 1.0, 2.0]]
    assert found["slots of dev"] == found["slot_values of dev"] == [[1.0, 1.0, 1.0]]
    assert found["intents"] == found["intents of dev"] == [[1.0, 1.0, 1.0]]
    new = sgd.counts([Dialogue("1", (HEARD,), gold)], [said], (set(), set()))
    assert new["intents of dev"] == new["slots of dev"] == [[0.0, 0.0, 0.0]]


def test_differences_are_ours_less_theirs() -> None:
    ours, theirs = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[0.0, 2.0], [1.0, 2.0]])
    found = difference(ours, theirs, dstc2.rate, resamples=100)
    assert (found["ours"], found["theirs"], found["difference"]) == (0.5, 0.25, 0.25)
