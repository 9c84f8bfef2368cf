"""`tercet graph`: build, info and neighbors, for people and for programs, and their errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from commands import error_of
from tercet import KnowledgeGraph
from tercet.cli.graph import app

run = CliRunner().invoke


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "kb.txt"
    path.write_text("Heat|actor|Al [Pacino]\nHeat|year|1995\nHeat|year|1995\n", encoding="utf-8")
    return path


def test_build_info_neighbors_for_programs(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "kb"
    built = run(app, ["build", str(text), "--out", str(out), "--inverses", "--json"], catch_exceptions=False)
    summary = json.loads(built.stdout)
    graph = KnowledgeGraph.load(out)
    expected = {
        "entities": 3, "relations": 4, "edges": 4, "inverses": True, "named": True, "attributes": [], "max_degree": 2,
        "fingerprint": graph.fingerprint, "file": str(out),
    }  # fmt: skip
    assert summary.pop("seconds") >= 0
    assert summary == expected
    info = json.loads(run(app, ["info", str(out), "--json"], catch_exceptions=False).stdout)
    assert info == expected | {"bytes": out.stat().st_size}
    found = json.loads(run(app, ["neighbors", str(out), "Heat", "--json"], catch_exceptions=False).stdout)
    assert found == {
        "entities": [{"id": 0, "name": "Heat", "edges": 2, "neighbors": [["actor", "Al [Pacino]"], ["year", "1995"]]}]
    }
    one = json.loads(run(app, ["neighbors", str(out), "Heat", "--json", "--limit", "1"]).stdout)
    assert one["entities"][0]["neighbors"] == [["actor", "Al [Pacino]"]]


def test_the_same_for_people(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "kb"
    built = run(app, ["build", str(text), "--out", str(out)], catch_exceptions=False)
    assert "edges" in built.stdout
    assert "2" in built.stdout
    assert "fingerprint" in run(app, ["info", str(out)], catch_exceptions=False).stdout
    shown = run(app, ["neighbors", str(out), "Heat"], catch_exceptions=False).stdout
    assert "Al [Pacino]" in shown
    assert "(id 0, 2 edges)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{text}", "--out", "{tmp}/none/kb"], "its folder does not exist"),
        (["build", "{tmp}/none.txt", "--out", "{tmp}/kb"], "none.txt is not a file"),
        (["build", "{bad}", "--out", "{tmp}/kb"], "bad.txt, line 1: expected 3 fields"),
        (["info", "{text}"], "not a graph file"),
        (["neighbors", "{kb}", "heat"], "no entity is named 'heat'; near names: 'Heat'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    KnowledgeGraph.read(text).save(tmp_path / "graph")
    (tmp_path / "bad.txt").write_text("a|b\n")
    places = {"tmp": tmp_path, "text": text, "kb": tmp_path / "graph", "bad": tmp_path / "bad.txt"}
    assert message in error_of(capsys, "graph", *(a.format(**places) for a in arguments))
    assert not (tmp_path / "kb").exists()
