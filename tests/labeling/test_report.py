"""The report: what it compares, by hand and on random dialogues, and that its page is whole, inert and escaped."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import error_of, run
from dialogue_strategies import dialogues
from tercet.labeling import (
    Annotation,
    Dialogue,
    Goal,
    Labels,
    Slot,
    Turn,
    dialogue_from_json,
    dialogue_to_json,
    write_dialogues,
)
from tercet.labeling.evaluation.report import Judged, TaskComparison, compare, compared, write_report

VOID = {"meta", "line", "circle", "polyline", "br"}
TURNS = (Turn("user", "play <jazz> & stop"), Turn("system", "Playing."), Turn("user", "no"))


class Page(HTMLParser):
    """Text of a page, and what would make it less than whole and inert."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.counts: Counter[str] = Counter()
        self.feed(html)
        self.close()
        assert not self.open
        assert not {"script", "link", "img", "iframe", "object", "base"} & self.counts.keys()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        assert not {name for name, _ in attrs} & {"src", "href", "srcset", "action"}
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def by(annotator: str, confidence: dict[str, tuple[float, ...]] | None = None, **tasks: object) -> Annotation:
    return Annotation(annotator, Labels(**tasks), confidence or {})  # type: ignore[arg-type]


def read(path: Path) -> Page:
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    return Page(html)


# ---- what is compared


def test_turns_that_gold_names() -> None:
    model = by("tercet", {"intents": (0.9, 0.4)}, intents={0: "play", 1: "inform"})
    dialogue = Dialogue("1", TURNS, Labels(intents={0: "play", 2: "stop"}), (model,))
    assert compared(dialogue, "tercet") == {
        "intents": [
            Judged((0,), "play", "play", 0.9),
            Judged((1,), None, "inform", 0.4),
            Judged((2,), "stop", None, None),
        ]
    }
    found = compare([dialogue], "tercet")["intents"]
    assert (found.labels, found.judged, found.right, found.gold) == (2, 1, 1, 2)
    assert found.confusions == {("play", "play"): 1, ("stop", "(abstained)"): 1}
    assert found.scored == [(0.9, True)]


def test_goals_with_other_turns_are_wrong() -> None:
    gold = Labels(goals=(Goal((0, 1), success=True), Goal((2,), success=False)))
    model = by("tercet", {"goals": (0.9, 0.8)}, goals=(Goal((0, 1), success=True), Goal((1, 2), success=False)))
    assert compared(Dialogue("1", TURNS, gold, (model,)), "tercet")["goals"] == [
        Judged((0, 1), "reached", "reached", 0.9),
        Judged((1, 2), "no goal", "missed", 0.8),
        Judged((2,), "missed", "no goal", None),
    ]


def test_the_only_goal_of_a_dialogue_needs_no_turns() -> None:
    model = by("tercet", {"goals": (0.9,)}, goals=(Goal(None, success=False),))
    dialogue = Dialogue("1", TURNS, Labels(goals=(Goal((0, 1), success=True),)), (model,))
    assert compared(dialogue, "tercet")["goals"] == [Judged((), "reached", "missed", 0.9)]


def test_slots_and_defects() -> None:
    gold = Labels(slots=(Slot(0, 5, 11, "genre"), Slot(0, 14, 18, "act")), defects=(1,))
    model = by("tercet", {"slots": (0.7, 0.6)}, slots=(Slot(0, 5, 11, "artist"), Slot(1, 0, 7, "act")), defects=())
    found = compare([Dialogue("1", TURNS, gold, (model,))], "tercet")
    slots = found["slots"]
    assert (slots.labels, slots.judged, slots.right, slots.gold) == (2, 2, 0, 2)
    assert slots.confusions == {("genre", "artist"): 1, ("act", ""): 1, ("", "act"): 1}
    assert "defects" not in found  # no label: it found none

    one = compare([Dialogue("1", TURNS, gold, (by("tercet", defects=(1, 2)),))], "tercet")["defects"]
    assert (one.labels, one.judged, one.right, one.gold) == (2, 2, 1, 1)


def test_turns_that_were_not_judged() -> None:
    gold = Labels(
        goals=(Goal((0, 1), success=True),), defects=(1,), slots=(Slot(0, 5, 11, "genre"),),
        judged={"goals": (0, 1), "defects": (0, 1), "slots": (0,)},
    )  # fmt: skip
    made = Labels(
        goals=(Goal((1,), success=True), Goal((2,), success=False)), defects=(2,), slots=(Slot(1, 0, 7, "act"),),
        judged={"goals": (1, 2), "defects": (1, 2), "slots": (2,)},
    )  # fmt: skip
    sure = {"goals": (0.5, 0.6), "success": (0.7, 0.8), "defects": (0.9, 0.95), "slots": (0.6,)}
    found = compared(Dialogue("1", TURNS, gold, (Annotation("tercet", made, sure),)), "tercet")
    assert found["defects"] == [
        Judged((0,), "none", None, None), Judged((1,), "defect", "none", 0.9), Judged((2,), None, "defect", 0.95),
    ]  # fmt: skip
    assert found["slots"] == [Judged((0, 5, 11), "genre", None, None), Judged((1, 0, 7), None, "act", 0.6)]
    assert found["goals"] == [
        Judged((0, 1), "reached", None, None), Judged((1,), "no goal", "reached", 0.7), Judged((2,), None, "missed", 0.8),
    ]  # fmt: skip


def test_gold_is_else_what_most_others_say() -> None:
    others = [
        by(name, intents=said) for name, said in zip("abc", ({0: "x"}, {0: "x", 1: "y"}, {0: "z", 1: "x"}), strict=True)
    ]
    model = by("tercet", intents={0: "x", 1: "y"})
    found = compared(Dialogue("1", TURNS, annotations=(*others, model)), "tercet")
    assert found == {"intents": [Judged((0,), "x", "x", None), Judged((1,), None, "y", None)]}
    weak = Annotation("feedback", Labels(defects=()), weight={"defects": (1.0,) * len(TURNS)})
    said = [weak, *(by(name, defects=(1,)) for name in ("tercet", "ann"))]
    judged = compared(Dialogue("1", TURNS, annotations=tuple(said)), "tercet")["defects"]
    assert {each.gold for each in judged if each.place == (1,)} == {"defect"}


def test_dialogues_that_were_not_labelled_do_not_count() -> None:
    gold = Labels(intents={0: "play"})
    assert compare([Dialogue("1", TURNS, gold)], "tercet") == {}
    silent = Dialogue("2", TURNS, gold, (by("tercet", defects=(1,)),))  # it abstained from intents
    spoke = Dialogue("3", TURNS, gold, (by("tercet", intents={0: "play"}),))
    found = compare([silent, spoke], "tercet")["intents"]
    assert (found.gold, found.right) == (2, 1)
    assert found.confusions["play", "(abstained)"] == 1


@given(st.lists(dialogues(), max_size=4), st.booleans())
def test_counts_add_up(drawn: list[Dialogue], perfect: bool) -> None:
    made = []
    for number, dialogue in enumerate(drawn):
        labels = replace(dialogue.labels, goals=tuple(g for g in dialogue.labels.goals or () if g.turns is not None))
        own = labels if perfect else (dialogue.annotations[0].labels if dialogue.annotations else Labels())
        made.append(replace(dialogue, id=str(number), labels=labels, annotations=(Annotation("tercet", own),)))
    for task, each in compare(made, "tercet").items():
        assert each.right <= min(each.judged, each.gold)
        assert each.judged <= each.labels
        nothing = {"goals": "no goal", "defects": "none", "slots": ""}.get(task)
        named = sum(count for (_, given), count in each.confusions.items() if given not in (nothing, "(abstained)"))
        assert named == each.judged
        assert sum(count for (gold, _), count in each.confusions.items() if gold != nothing) == each.gold
        assert sum(count for (gold, given), count in each.confusions.items() if gold == given != nothing) == each.right
        if perfect:
            assert each.right == each.gold == each.judged


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.5001, 0.9, 1.0]), st.booleans()), min_size=1, max_size=500))
def test_points_are_precision_at_thresholds(scored: list[tuple[float, bool]]) -> None:
    points = TaskComparison(gold=len(scored), scored=scored).points()
    expected = {}
    for threshold in {confidence for confidence, _ in scored}:
        kept = [right for confidence, right in scored if confidence >= threshold]
        expected[len(kept) / len(scored)] = sum(kept) / len(kept)
    assert points[-1][0] == 1
    assert len(points) <= 202
    assert [across for across, _ in points] == sorted({across for across, _ in points})
    assert all(up == pytest.approx(expected[across]) for across, up in points)


# ---- the page


@given(dialogues())
def test_any_dialogue_is_a_whole_page(tmp_path_factory: pytest.TempPathFactory, dialogue: Dialogue) -> None:
    if not dialogue.annotations:
        return
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_report(path, [dialogue], annotator=dialogue.annotations[0].annotator, title=dialogue.id)
    page = read(path)
    assert page.counts["tr"] >= len(dialogue.turns)


def test_text_stands_on_the_page_as_it_is(tmp_path: Path) -> None:
    nasty = "</td><script>alert(1)</script>&amp;\"'"
    gold = Labels(intents={0: nasty}, slots=(Slot(0, 5, 11, nasty),), goals=(Goal((0, 1, 2), success=True),))
    model = by(
        "tercet",
        {"intents": (0.9,), "slots": (0.75,), "goals": (0.5,)},
        intents={0: "play"},
        slots=(Slot(0, 5, 11, nasty),),
        goals=(Goal((0, 1), success=True),),
    )
    dialogue = Dialogue(nasty, TURNS, gold, (model,))
    figures = {nasty: {nasty: 0.5, "other": {"f1": None, "names": [1]}}, "plain": nasty}
    found = write_report(tmp_path / "page.html", [dialogue], title=nasty, figures=figures)
    page = read(tmp_path / "page.html")
    assert "".join(page.text).count(nasty) >= 8
    assert "<jazz>" in "".join(page.text)
    assert {"svg", "mark", "table", "details"} <= page.counts.keys()
    assert found["slots"].right == 1
    assert (found["intents"].right, found["goals"].right) == (0, 1)


def test_dialogues_are_drawn_by_seed(tmp_path: Path) -> None:
    made = [Dialogue(str(number), TURNS, annotations=(by("tercet", intents={0: "x"}),)) for number in range(50)]
    pages = {}
    for seed in (0, 1):
        write_report(tmp_path / "page.html", iter(made), examples=5, seed=seed)
        pages[seed] = (tmp_path / "page.html").read_text()
        assert read(tmp_path / "page.html").counts["summary"] == 5
    write_report(tmp_path / "page.html", made, examples=5, seed=0)
    assert (tmp_path / "page.html").read_text() == pages[0] != pages[1]
    write_report(tmp_path / "page.html", made, examples=0)
    assert read(tmp_path / "page.html").counts["summary"] == 0


def test_nobody_of_that_name(tmp_path: Path) -> None:
    dialogue = Dialogue("1", TURNS, annotations=(by("ann", defects=()),))
    with pytest.raises(ValueError, match=r"tercet.write_report: annotator must have labels in the dialogues, .* ann$"):
        write_report(tmp_path / "page.html", [dialogue])
    assert not [*tmp_path.iterdir()]


# ---- the command


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, page = tmp_path / "labelled.jsonl", tmp_path / "labelled.html"
    model = by("tercet", {"intents": (0.9,)}, intents={0: "play"})
    dialogue = Dialogue("1", TURNS, Labels(intents={0: "play", 2: "stop"}), (model,))
    assert dialogue_from_json(dialogue_to_json(dialogue)) == dialogue
    write_dialogues(data, [dialogue])
    (tmp_path / "eval.json").write_text(json.dumps({"goal_success": {"f1": 0.625, "human": {"f1": 0.5}}}))
    said = run("label", "report", data, "--out", page, "--figures", tmp_path / "eval.json")
    assert "intents: 1 labels, 1 of 1 right" in said
    text = "".join(read(page).text)
    assert "Labels of labelled.jsonl" in text
    assert "0.625" in text
    found = json.loads(run("label", "report", data, "--out", page, "--title", "Ours", "--json"))
    assert found == {"file": str(page), "tasks": {"intents": {"labels": 1, "judged": 1, "right": 1, "gold": 2}}}
    assert "Ours" in "".join(read(page).text)
    assert "annotator must have labels" in error_of(
        capsys, "label", "report", data, "--out", page, "--annotator", "bob"
    )
