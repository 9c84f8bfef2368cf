"""Annotations as judgements, and how far annotators agree: against definitions by loops, and against the library."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dialogue_strategies import a_dialogue, dialogues
from tercet.labeling import (
    CONVERTERS,
    TASKS,
    Annotation,
    Dialogue,
    Goal,
    Item,
    Judgements,
    Labels,
    Slot,
    Turn,
    agreement,
    answers,
    consensus,
    dialogue_from_json,
    judgements,
    krippendorff_alpha,
    least_certain,
)

seeds = st.integers(0, 2**32 - 1)
TURNS = (Turn("user", "play jazz in the kitchen"), Turn("system", "Playing jazz."))


def by_hand(judged: Judgements) -> list[tuple[Item, str, str]]:
    columns = (judged.items, judged.annotators, judged.labels)
    names = (judged.item_names, judged.annotator_names, judged.label_names)
    return [
        tuple(name[number] for name, number in zip(names, row, strict=True))
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def said(task: str, *annotations: tuple[str, Labels], turns: tuple[Turn, ...] = TURNS) -> list[tuple[object, ...]]:
    """(place, annotator, label) of a dialogue's judgements."""
    dialogue = Dialogue("1", turns, annotations=tuple(Annotation(*each) for each in annotations))
    found = judgements([dialogue])
    return [(item.place, *rest) for item, *rest in by_hand(found[task])] if task in found else []


# ---- annotations as judgements


def test_one_goal_is_that_of_the_dialogue() -> None:
    assert said(
        "goals",
        ("ann", Labels(goals=(Goal((0, 1), success=True),))),
        ("bob", Labels(goals=(Goal(None, success=False),))),
        ("eve", Labels(goals=())),
        ("kim", Labels(goals=(Goal((0,)),))),
        ("sam", Labels(defects=())),
    ) == [((), "ann", "reached"), ((), "bob", "missed")]


def test_several_goals_are_compared_by_their_turns() -> None:
    assert said(
        "goals",
        ("ann", Labels(goals=(Goal((0,), success=True), Goal((0, 1), success=False)))),
        ("bob", Labels(goals=(Goal((0, 1), success=True),))),
        ("eve", Labels(goals=(Goal(None, success=True),))),
    ) == [((0,), "ann", "reached"), ((0, 1), "ann", "missed"), ((0, 1), "bob", "reached")]


def test_defects_are_said_of_every_turn() -> None:
    assert said("defects", ("ann", Labels(defects=(1,))), ("bob", Labels(defects=()))) == [
        ((0,), "ann", "none"), ((1,), "ann", "defect"), ((0,), "bob", "none"), ((1,), "bob", "none"),
    ]  # fmt: skip


def test_slots_are_said_of_every_span_that_somebody_named() -> None:
    assert said(
        "slots",
        ("ann", Labels(slots=(Slot(0, 17, 24, "room"), Slot(0, 5, 9, "song")))),
        ("bob", Labels(slots=(Slot(0, 5, 9, "song"), Slot(0, 5, 9, "genre")))),
        ("eve", Labels(intents={})),
    ) == [
        ((0, 5, 9), "ann", "song"), ((0, 17, 24), "ann", "room"),
        ((0, 5, 9), "bob", "genre+song"), ((0, 17, 24), "bob", ""),
    ]  # fmt: skip


def test_a_turn_that_was_not_judged_is_no_judgement() -> None:
    assert said(
        "defects",
        ("ann", Labels(defects=(), judged={"defects": (0,)})), ("bob", Labels(defects=(1,), judged={"defects": (1,)})),
    ) == [((0,), "ann", "none"), ((1,), "bob", "defect")]  # fmt: skip
    song, room = Slot(0, 5, 9, "song"), Slot(0, 17, 24, "room")
    assert said(
        "slots",
        ("ann", Labels(slots=(song,), judged={"slots": (1,)})), ("bob", Labels(slots=(room,), judged={"slots": (0,)})),
        ("eve", Labels(slots=(), judged={"slots": (1,)})),
    ) == [((0, 5, 9), "ann", "song"), ((0, 5, 9), "bob", ""), ((0, 17, 24), "bob", "room")]  # fmt: skip


def test_weak_labels_are_no_judgements() -> None:
    weak = Annotation("feedback", Labels(defects=(1,)), weight={"defects": (0.5,) * 4})
    sure = Annotation("ann", Labels(defects=()))
    dialogue = dialogue_from_json(a_dialogue())
    both = Dialogue("1", dialogue.turns, annotations=(weak, sure))
    assert judgements([both])["defects"].annotator_names == ("ann",)
    assert not judgements([Dialogue("1", dialogue.turns, annotations=(weak,))])


@pytest.mark.parametrize("task", ["intents", "transcription", "failure_point"])
def test_names_are_said_of_the_turns_that_have_them(task: str) -> None:
    assert said(
        task,
        ("ann", Labels(**{task: {0: "play"}})),
        ("bob", Labels(**{task: {0: "stop", 1: "other"}})),
        ("ann", Labels(**{task: {0: "play", 1: "more"}})),  # the same again, and more
    ) == [((0,), "ann", "play"), ((1,), "ann", "more"), ((0,), "bob", "stop"), ((1,), "bob", "other")]


def test_gold_can_be_compared_likewise() -> None:
    dialogue = dialogue_from_json(a_dialogue())
    predicted = Labels(defects=(3,))
    gold, found = answers("defects", [dialogue.labels, predicted], len(dialogue.turns))
    assert [place for place in gold if gold[place] == found[place]] == [(0,), (2,)]
    assert answers("intents", [dialogue.labels, predicted], 4) == [{(0,): "play", (2,): "play"}, {}]


def test_a_goal_reached_and_missed() -> None:
    both = Labels(goals=(Goal((0, 1), success=True), Goal((0, 1), success=False)))
    with pytest.raises(
        ValueError, match=r"^tercet\.judgements: dialogue '1': goals must not call the turns \[0, 1\] both"
    ):
        said("goals", ("ann", both))


@given(st.lists(dialogues(), max_size=4))
def test_judgements_of_any_dialogues(given: list[Dialogue]) -> None:
    found = judgements(given)
    assert list(found) == [task for task in TASKS if task in found]
    for task, judged in found.items():
        rows = list(zip(judged.items.tolist(), judged.annotators.tolist(), strict=True))
        assert len(set(rows)) == len(rows) == len(judged) > 0
        for ids, names in zip(
            (judged.items, judged.annotators, judged.labels),
            (judged.item_names, judged.annotator_names, judged.label_names),
            strict=True,
        ):
            assert sorted(set(ids.tolist())) == list(range(len(names)))
        assert judgements(given, [task]).keys() == {task}
    assert judgements(given, ["goals"]).keys() <= {"goals"}


def test_dialogues_of_the_same_id_keep_their_items_apart() -> None:
    dialogue = Dialogue("1", TURNS, annotations=(Annotation("ann", Labels(defects=())),))
    assert len(judgements([dialogue, dialogue])["defects"].item_names) == 4


# ---- agreement


def judged_at_random(seed: int, num_items: int, num_annotators: int, num_labels: int) -> Judgements:
    """Generated: some items judged by some annotators, who mostly say the same."""
    rng = np.random.default_rng(seed)
    rows = np.argwhere(rng.random((num_items, num_annotators)) < rng.uniform(0.3, 1))
    truth = rng.integers(0, num_labels, num_items)[rows[:, 0]]
    labels = np.where(rng.random(len(rows)) < 0.6, truth, rng.integers(0, num_labels, len(rows)))
    columns = [torch.from_numpy(column.copy()) for column in (*rows.T, labels)]
    ids = [column.unique(return_inverse=True)[1] for column in columns]
    names = [[f"name {number}" for number in column.unique().tolist()] for column in columns]
    return Judgements(*ids, tuple(Item(name, ()) for name in names[0]), *map(tuple, names[1:]))


def by_item(judged: Judgements) -> dict[Item, dict[str, str]]:
    found: dict[Item, dict[str, str]] = defaultdict(dict)
    for item, annotator, label in by_hand(judged):
        found[item][annotator] = label
    return found


def alpha_by_pairs(judged: Judgements) -> float | None:
    """From the coincidences of pairs, as Krippendorff defines it."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for labels in by_item(judged).values():
        for pair in permutations(labels.values(), 2):
            coincidences[pair] += 1 / (len(labels) - 1)
    totals: Counter[str] = Counter()
    for (one, _), weight in coincidences.items():
        totals[one] += weight
    total = sum(totals.values())
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    expected = sum(totals[one] * totals[other] for one in totals for other in totals if one != other) / max(
        total - 1, 1
    )
    return 1 - observed / expected if expected else None


@given(seeds, st.sampled_from([2, 9, 60]), st.integers(2, 6), st.integers(1, 5))
def test_figures_are_their_definitions(seed: int, num_items: int, num_annotators: int, num_labels: int) -> None:
    judged = judged_at_random(seed, num_items, num_annotators, num_labels)
    items = by_item(judged)
    shared = [labels for labels in items.values() if len(labels) > 1]
    if not shared:
        with pytest.raises(ValueError, match=r"^tercet\.agreement: (annotators|two annotators) must "):
            agreement(judged)
        return
    found = agreement(judged)
    assert (found.judgements, found.items, found.compared_items) == (len(judged), len(items), len(shared))
    pairs = [one == other for labels in shared for one, other in permutations(labels.values(), 2)]
    assert found.pairwise == pytest.approx(sum(pairs) / len(pairs))
    assert found.alpha == pytest.approx(alpha_by_pairs(judged))
    for name, figures in found.annotators.items():
        agrees = []
        for labels in items.values():
            others = Counter(label for other, label in labels.items() if other != name).most_common(2)
            clear = others and (len(others) == 1 or others[0][1] > others[1][1])
            if name in labels and clear:
                agrees.append(labels[name] == others[0][0])
        assert figures.judgements == sum(name in labels for labels in items.values())
        assert figures.compared == len(agrees)
        assert figures.agreement == (pytest.approx(sum(agrees) / len(agrees)) if agrees else None)


@given(seeds, st.sampled_from([9, 60]), st.integers(2, 6), st.integers(2, 5))
def test_alpha_is_the_librarys(seed: int, num_items: int, num_annotators: int, num_labels: int) -> None:
    library = pytest.importorskip("krippendorff", reason="krippendorff is not installed (extra `test`)")
    judged = judged_at_random(seed, num_items, num_annotators, num_labels)
    table = np.full((len(judged.annotator_names), len(judged.item_names)), np.nan)
    table[judged.annotators, judged.items] = judged.labels
    found = krippendorff_alpha(judged.items, judged.labels)
    if found is not None:
        assert found == pytest.approx(library.alpha(table, level_of_measurement="nominal"))


def test_perfect_agreement_and_none() -> None:
    items, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 7, 7])
    assert krippendorff_alpha(items, labels) == 1
    assert krippendorff_alpha(items, torch.tensor([0, 1, 1, 0])) == pytest.approx(-0.5)
    assert krippendorff_alpha(items, labels * 0) is None
    assert krippendorff_alpha(torch.arange(4), labels) is None
    assert krippendorff_alpha(items[:0], labels[:0]) is None


def test_consensus_sees_who_errs_and_which_items_are_open() -> None:
    """Generated: seven annotators of 300 items of three labels; the first two are right nearly always, two never care."""
    rng = np.random.default_rng(4)
    truth, skill = rng.integers(0, 3, 300), [0.95, 0.95, 0.6, 0.6, 0.6, 0.0, 0.0]
    labels = np.stack([np.where(rng.random(300) < p, truth, rng.integers(0, 3, 300)) for p in skill], 1)
    items, annotators = (torch.from_numpy(each.ravel()) for each in np.indices(labels.shape))
    judged = Judgements(items, annotators, torch.from_numpy(labels.ravel()), tuple(Item(str(n), ()) for n in range(300)),
                        tuple(map(str, range(7))), ("0", "1", "2"))  # fmt: skip
    model = consensus(judged)
    found = [each.accuracy for each in agreement(judged, model).annotators.values()]
    assert found == pytest.approx([p + (1 - p) / 3 for p in skill], abs=0.1)
    assert {each.accuracy for each in agreement(judged).annotators.values()} == {None}
    order = least_certain(judged, model, 300)
    right = [truth[int(each.item.dialogue)] == int(each.label) for each in order]
    assert sum(right[:60]) < sum(right[60:120]) <= sum(right[-60:]) == 60
    assert [each.confidence for each in order] == sorted(each.confidence for each in order)
    assert {each.judgements for each in order} == {7}
    assert least_certain(judged, model, 3) == order[:3]
    assert least_certain(judged, model, 0) == []


def test_too_little_to_compare() -> None:
    def found(*annotations: Annotation) -> Judgements:
        return judgements([Dialogue("1", TURNS, annotations=annotations)])["intents"]

    ann, bob = Annotation("ann", Labels(intents={0: "play"})), Annotation("bob", Labels(intents={1: "play"}))
    with pytest.raises(ValueError, match=r"^tercet\.agreement: annotators must be two or more, got 'ann'$"):
        agreement(found(ann))
    with pytest.raises(
        ValueError, match=r"^tercet\.agreement: two annotators must have judged the same item, got 2 items"
    ):
        agreement(found(ann, bob))


def test_real_stc3(data: Path) -> None:
    folder = data / "dialogue" / "stc3_dch1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    found = judgements(CONVERTERS["stc3"](folder))
    assert list(found) == ["goals", "intents"]
    figures = {task: agreement(judged) for task, judged in found.items()}
    assert {task: (each.items, each.compared_items, each.judgements) for task, each in figures.items()} == {
        "goals": (1672, 1672, 19 * 1672),
        "intents": (6917, 6917, 19 * 6917),
    }
    assert {task: (round(each.pairwise, 3), round(each.alpha or 0, 3)) for task, each in figures.items()} == {
        "goals": (0.752, 0.320),
        "intents": (0.584, 0.385),
    }
    least = min(figures["intents"].annotators.items(), key=lambda each: each[1].agreement or 0)
    assert (least[0], round(least[1].agreement or 0, 3)) == ("annotator-13", 0.228)
