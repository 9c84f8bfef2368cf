"""`tercet label`: data sets into the format, files of it checked, annotators compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dialogue_strategies import a_dialogue
from tercet.cli import app, main
from tercet.labeling import DialogueReader

CALL = {"session-id": "voip-f2-1", "turns": [["Hello", "thai food", "tie food", -0.5, "thai none none"]]}


def run(*args: object) -> str:
    result = CliRunner().invoke(app, ["label", *map(str, args)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output if "--json" not in args else result.stdout


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    path = tmp_path / "data.dstc2.dev.json"
    path.write_text(json.dumps([CALL, CALL | {"session-id": "voip-f3-2"}]))
    return path


COUNTS: dict[str, Any] = {
    "dialogues": 2,
    "turns": 4,
    "user_turns": 2,
    "annotations": 0,
    "annotators": 0,
    "tasks": {"transcription": {"dialogues": 2, "labels": 2, "annotated": 0, "judged": 2, "names": {}}},
}


def test_convert_and_check(calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "calls.jsonl"
    found = json.loads(run("convert", "dstc2", calls, "--out", out, "--json"))
    assert found.pop("seconds") >= 0
    assert found == COUNTS | {"file": str(out)}
    assert [dialogue.id for dialogue in DialogueReader(out)] == ["voip-f2-1", "voip-f3-2"]
    assert json.loads(run("check", out, "--json")) == COUNTS | {"file": str(out), "skipped": 0}
    said = run("check", out)
    assert "2 dialogues, 4 turns (2 of users), 0 annotations by 0 annotators" in " ".join(said.split())


def test_convert_to_parquet(calls: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
    for name in ("calls.jsonl", "calls.parquet"):
        run("convert", "dstc2", calls, "--out", tmp_path / name)
    assert list(DialogueReader(tmp_path / "calls.parquet")) == list(DialogueReader(tmp_path / "calls.jsonl"))


def test_what_annotators_said_is_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(a_dialogue()))
    tasks = json.loads(run("check", path, "--json"))["tasks"]
    names = {"play": 3, "stop": 1}
    assert tasks["intents"] == {"dialogues": 1, "labels": 2, "annotated": 2, "judged": 4, "names": names}
    assert tasks["defects"] == {"dialogues": 1, "labels": 1, "annotated": 1, "judged": 12, "names": {}}
    assert tasks["goals"]["names"] == {"reached": 1}
    assert "play 3, stop 1" in run("check", path)
    partly = a_dialogue()
    partly["annotations"][0]["judged"] = {"defects": [0, 2]}
    path.write_text(json.dumps(partly))
    assert json.loads(run("check", path, "--json"))["tasks"]["defects"]["judged"] == 10


def test_malformed_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(a_dialogue()) + "\n{}\n")
    found = json.loads(run("check", path, "--skip-malformed", "--json"))
    assert (found["dialogues"], found["skipped"]) == (1, 1)
    said = " ".join(run("check", path, "--skip-malformed").split())
    assert f"skipped 1 malformed; the first: {path}:2: id is missing" in said
    assert "1 malformed lines skipped" in said


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    path = tmp_path / "annotated.jsonl"
    path.write_text(json.dumps(a_dialogue()))
    return path


def test_agree(annotated: Path) -> None:
    found = json.loads(run("agree", annotated, "--json"))
    assert found["file"] == str(annotated)
    assert found["left_out"] == {"intents": "annotators must be two or more, got 'ann'"}
    (task,) = found["tasks"]
    assert task == "defects"
    figures = found["tasks"][task]
    for name in ("ann", "bob"):
        annotator = figures["annotators"].pop(name)
        assert 0 < annotator.pop("accuracy") < 1
        assert annotator == {"judgements": 4, "compared": 4, "agreement": 0.75}
    assert figures.pop("annotators") == {}
    assert figures == {"judgements": 8, "items": 4, "compared_items": 4, "pairwise": 0.75, "alpha": pytest.approx(0)}
    assert json.loads(run("agree", annotated, "--task", "defects", "--json"))["tasks"].keys() == {"defects"}
    printed = " ".join(run("agree", annotated).split())
    assert "0.750" in printed
    assert "intents: annotators must be two or more, got 'ann'" in printed


def test_agree_names_what_to_annotate_again(annotated: Path) -> None:
    (one,) = json.loads(run("agree", annotated, "--budget", "1", "--json"))["next"]
    assert 0.5 <= one.pop("confidence") < 1
    assert one.pop("label") in ("none", "defect")
    assert one == {"task": "defects", "dialogue": "call-1", "place": [1], "judgements": 2}
    assert len(json.loads(run("agree", annotated, "--budget", "9", "--json"))["next"]) == 4
    printed = run("agree", annotated, "--budget", "2")
    assert printed.count("call-1") == 2


def test_agree_shows_those_who_agree_least(annotated: Path) -> None:
    dialogue = a_dialogue() | {"annotations": [{"annotator": f"[{n}]", "defects": []} for n in range(30)]}
    dialogue["annotations"].append({"annotator": "odd", "defects": [0, 1]})
    annotated.write_text(json.dumps(dialogue))
    printed = run("agree", annotated)
    assert "odd" in printed
    assert "[0]" in printed
    assert "[29]" not in printed
    assert "and 11 who agree more; --json has all" in printed


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["convert", "sdg", "{tmp}", "--out", "a.jsonl"], "tercet: NAME must be one of stc3, sgd, dstc2, slurp, got 'sdg'; did you mean sgd?"),
        (["convert", "sgd", "{tmp}", "--out", "a.json"], "tercet: a.json: a file of dialogues must end in .jsonl or .parquet"),
        (["convert", "sgd", "{tmp}/none", "--out", "a.jsonl"], "tercet: {tmp}/none: no such file or folder"),
        (["convert", "sgd", "{tmp}", "--out", "{tmp}/a.jsonl"], "tercet: {tmp}: expected a file, or a folder with dialogues_*.json or */dialogues_*.json"),
        (["check", "{tmp}/none.jsonl"], "tercet: {tmp}/none.jsonl: no such file"),
        (["check", "{tmp}/twice.jsonl"], "tercet.Summary: ids must differ, got two dialogues with id 'call-1'"),
        (["check", "{tmp}/bad.jsonl"], "tercet: {tmp}/bad.jsonl:1: id is missing"),
        (["agree", "{tmp}/bad.jsonl"], "tercet: {tmp}/bad.jsonl:1: id is missing"),
        (["agree", "{tmp}/twice.jsonl"], "tercet.Summary: ids must differ, got two dialogues with id 'call-1'"),
        (["agree", "{tmp}/once.jsonl", "--task", "intent"], "tercet: --task must be one of goals, defects, intents, slots, transcription, failure_point, got 'intent'"),
        (["agree", "{tmp}/once.jsonl", "--task", "intents"], "tercet: {tmp}/once.jsonl: intents: annotators must be two or more, got 'ann'"),
        (["agree", "{tmp}/once.jsonl", "--task", "slots", "--task", "defects"], "tercet: {tmp}/once.jsonl: slots: no annotator has labels of it"),
        (["agree", "{tmp}/plain.jsonl"], "tercet: {tmp}/plain.jsonl: no annotator has labels of any task"),
    ],
)  # fmt: skip
def test_errors_take_one_line(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twice.jsonl").write_text(f"{json.dumps(a_dialogue())}\n" * 2)
    (tmp_path / "once.jsonl").write_text(json.dumps(a_dialogue()))
    (tmp_path / "plain.jsonl").write_text(json.dumps(a_dialogue() | {"annotations": []}))
    (tmp_path / "bad.jsonl").write_text("{}\n")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["tercet", "label", *(arg.replace("{tmp}", str(tmp_path)) for arg in args)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == message.replace("{tmp}", str(tmp_path)) + "\n"
    assert sorted(tmp_path.iterdir()) == before


def test_help_has_examples() -> None:
    assert "tercet label convert sgd" in " ".join(run("convert", "--help").split())
    assert "tercet label check" in " ".join(run("check", "--help").split())
    assert "tercet label agree" in " ".join(run("agree", "--help").split())
