"""`tercet label sessions`: a log as dialogues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import error_of, run
from tercet.labeling import DialogueReader

pytest.importorskip("duckdb", reason="duckdb is not installed (extra `labels`)")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `labels`)")
from pyarrow import parquet  # noqa: E402 - behind the line above


@pytest.fixture
def log(tmp_path: Path) -> Path:
    table = pa.table({
        "who": ["kim", "lou", "kim", "kim"], "time": [0.0, 1.0, 2.0, 900.0],
        "speaker": ["user", "user", "system", "user"], "text": ["play jaz", "stop", "Playing Jaz.", "stop"],
        "barge_in": [None, None, True, None], "device": ["tv", "tv", None, "tv"],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_sessions(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "calls.jsonl"
    given = ("label", "sessions", log, "--out", out, "--gap", "300", "--user", "who", "--memory-limit", "200MB")
    found = json.loads(run(*given, "--temp-directory", tmp_path, "--threads", "1", "--json"))
    assert found.pop("seconds") >= 0
    assert found == {"file": str(out), "dialogues": 3, "turns": 4}
    by_id = {dialogue.id: dialogue for dialogue in DialogueReader(out)}
    assert sorted(by_id) == ["kim/0", "kim/1", "lou/0"]
    assert dict(by_id["kim/0"].turns[1].feedback) == {"barge_in": True}
    assert dict(by_id["kim/0"].turns[0].categorical) == {"device": "tv"}
    assert "3 dialogues, 4 turns" in run(*given, "--column", "device", "--max-turns", "9")
    assert not any(turn.feedback for dialogue in DialogueReader(out) for turn in dialogue.turns)


def test_errors_leave_no_file(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calls.jsonl"
    given = ("label", "sessions", log, "--out", out, "--gap")
    assert "column 'user' is missing; there are who, time, speaker, text" in error_of(capsys, *given, "300")
    assert "gap must be a positive number of seconds, got 0.0" in error_of(capsys, *given, "0", "--user", "who")
    message = error_of(capsys, *given, "300", "--user", "who", "--presorted")
    assert "got 'kim' after 'lou' in row 3" in message
    assert "must end in .jsonl or .parquet" in error_of(capsys, *given[:3], "--out", "calls.txt", "--gap", "1")
    assert not out.exists()
