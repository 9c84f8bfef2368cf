"""Logs: sessions against a plain sort in memory, features by type, stored dialogues, and every error."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialogue_strategies import dialogues
from tercet.labeling import Dialogue, DialogueReader, Turn, write_dialogues
from tercet.labeling.data.logs import Columns, Resources, SessionReader, stored_dialogues

pytest.importorskip("duckdb", reason="duckdb is not installed (extra `labels`)")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `labels`)")
from pyarrow import parquet  # noqa: E402 - behind the line above

Row = tuple[str, float, str, str]


def write(path: Path, rows: Sequence[Row], **more: Any) -> Path:
    users, times, speakers, texts = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {
        "user": pa.array(users, pa.string()), "time": pa.array(times, pa.float64()),
        "speaker": pa.array(speakers, pa.string()), "text": pa.array(texts, pa.string()),
    }  # fmt: skip
    parquet.write_table(pa.table(columns | more), path, row_group_size=7)
    return path


def sessions(rows: Sequence[Row], gap: float, max_turns: int) -> list[Dialogue]:
    """In memory, as the definition has it, by user."""
    found: list[tuple[str, list[Row]]] = []
    for row in sorted(rows, key=lambda row: (row[0].encode(), row[1])):
        fresh = not found or found[-1][0] != row[0] or row[1] - found[-1][1][-1][1] > gap
        if fresh or len(found[-1][1]) == max_turns:
            found.append((row[0], []))
        found[-1][1].append(row)
    numbers: dict[str, int] = {}
    made = []
    for user, of_session in found:
        numbers[user] = numbers.get(user, -1) + 1
        turns = tuple(Turn(speaker, text, time) for _, time, speaker, text in of_session)
        made.append(Dialogue(f"{user}/{numbers[user]}", turns, metadata={"user": user}))
    return made


def by_user(found: Sequence[Dialogue]) -> list[Dialogue]:
    """Users in their order, the sessions of a user as they come; each user must come once."""
    users = [each.metadata["user"] for each in found]
    assert len(list(groupby(users))) == len(set(users))
    return sorted(found, key=lambda each: each.metadata["user"].encode())


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users = ["", "é", "z", "\U0001f3b7", "\uffee", "a/1"][: draw(st.integers(1, 6))]
    spread = draw(st.sampled_from([1, 30, 1000]))
    size = draw(st.sampled_from([0, 1, 40, 300]))
    return [
        (
            users[rng.integers(len(users))],
            float(rng.integers(spread)),
            ("user", "system")[rng.integers(2)],
            f"line {row}",
        )
        for row in range(size)
    ]


@given(logs(), st.sampled_from([0.5, 1.0, 10.0]), st.sampled_from([1, 3, 1000]), st.booleans(), st.booleans())
def test_sessions_are_those_of_a_sort_in_memory(
    rows: list[Row], gap: float, max_turns: int, presorted: bool, split: bool
) -> None:
    if presorted:
        rows = sorted(rows, key=lambda row: (row[0].encode(), row[1]))
    with tempfile.TemporaryDirectory() as name:
        half = len(rows) // 2 if split else len(rows)
        write(Path(name) / "1.parquet", rows[:half])
        if split:
            write(Path(name) / "2.parquet", rows[half:])
        reader = SessionReader(
            f"{name}/*.parquet", gap=gap, max_turns=max_turns, presorted=presorted, resources=Resources(threads=2)
        )
        found = list(reader)
        assert by_user(found) == sessions(rows, gap, max_turns)
        assert list(reader) == found  # read anew


ROWS: list[Row] = [("kim", 0.0, "user", "play jaz"), ("kim", 1.0, "system", "Playing Jaz.")]


def test_other_columns_by_their_type(tmp_path: Path) -> None:
    more = {
        "stop": pa.array([None, True]),
        "domain": pa.array([None, "music"]).dictionary_encode(),
        'odd "name"': pa.array([0.5, None], pa.float32()),
        "words": pa.array([2, None], pa.int8()),
        "sound": pa.array(["a.wav", None]),
    }
    path = write(tmp_path / "log.parquet", ROWS, **more)
    ((first, second),) = (each.turns for each in SessionReader(path, gap=9, columns=Columns(audio="sound")))
    assert (dict(first.numeric), dict(second.numeric)) == ({'odd "name"': 0.5, "words": 2.0}, {})
    assert (dict(first.categorical), dict(second.categorical)) == ({}, {"domain": "music"})
    assert (dict(first.feedback), dict(second.feedback)) == ({}, {"stop": True})
    assert first.audio is not None
    assert (first.audio.path, second.audio) == ("a.wav", None)
    (only,) = SessionReader(path, gap=9, columns=Columns(others=("words",)))
    assert (dict(only.turns[0].numeric), dict(only.turns[1].feedback)) == ({"words": 2.0}, {})


def test_columns_may_have_other_names_and_types(tmp_path: Path) -> None:
    table = pa.table({
        "who": pa.array([7, 7]), "when": pa.array([1_700_000_000_250_000, 1_700_000_001_000_000], pa.timestamp("us")),
        "side": pa.array(["user", "system"]).dictionary_encode(), "said": pa.array(["a", "b"], pa.large_string()),
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "log.parquet")
    names = Columns(user="who", time="when", speaker="side", text="said")
    (dialogue,) = SessionReader(tmp_path / "log.parquet", gap=1, columns=names)
    assert (dialogue.id, dict(dialogue.metadata)) == ("7/0", {"user": "7"})
    assert [turn.time for turn in dialogue.turns] == [1_700_000_000.25, 1_700_000_001.0]


def test_a_log_larger_than_its_memory_is_sorted_on_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 150_000
    texts = pa.array(
        [row.hex() for row in rng.integers(0, 256, (size, 400), dtype=np.uint8).view("S400").ravel().tolist()]
    )
    rows = pa.table({
        "user": pa.array(rng.integers(0, 5000, size)), "time": pa.array(rng.random(size)),
        "speaker": pa.array(["user"] * size), "text": texts,
    })  # fmt: skip
    assert rows.nbytes > 110e6
    parquet.write_table(rows, tmp_path / "log.parquet", compression="none", row_group_size=10_000)
    spill = tmp_path / "spill"
    spill.mkdir()
    resources = Resources("96MB", spill, threads=1)
    seen, spilled = 0, 0
    users: set[str] = set()
    for dialogue in SessionReader(tmp_path / "log.parquet", gap=9, resources=resources):
        if not seen:
            spilled = sum(file.stat().st_size for file in spill.rglob("*") if file.is_file())
        seen += len(dialogue.turns)
        users.add(dialogue.metadata["user"])
        times = [turn.time for turn in dialogue.turns]
        assert times == sorted(times)
    assert seen == size
    assert len(users) == 5000
    assert spilled > 0
    assert list(spill.iterdir()) == []  # nothing is left


def test_progress_counts_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    rows = [("kim", float(row), "user", "again") for row in range(20_000)]
    path = write(tmp_path / "log.parquet", rows)
    reader = SessionReader(path, gap=2, progress=lambda done, total: seen.append((done, total)))
    assert [len(each.turns) for each in reader] == [1000] * 20
    assert seen[-1] == (20_000, 20_000)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_log_is_read_as_a_stream(tmp_path: Path) -> None:
    rows = [("kim", 10.0 * row, "user", "again") for row in range(50_000)]
    seen: list[int] = []
    path = write(tmp_path / "log.parquet", rows)
    iterator = iter(SessionReader(path, gap=1, presorted=True, progress=lambda done, total: seen.append(done)))
    next(iterator)
    assert seen == []
    next(iterator)
    iterator.close()  # and may be left
    assert seen == []


# ---- stored dialogues


@given(st.lists(dialogues(), max_size=3))
def test_stored_dialogues_are_those_that_were_written(drawn: list[Dialogue]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "some.parquet"
        write_dialogues(path, drawn)
        assert list(stored_dialogues(path)) == list(DialogueReader(path)) == drawn


def test_stored_dialogues_of_several_files_by_condition(tmp_path: Path) -> None:
    made = [Dialogue(str(n), (Turn("user", "a"),) * (1 + n), metadata={"split": "ab"[n % 2]}) for n in range(6)]
    write_dialogues(tmp_path / "1.parquet", made[:3])
    write_dialogues(tmp_path / "2.parquet", made[3:])
    where = "metadata['split'] = 'b' AND len(turns) > 2"
    assert list(stored_dialogues(str(tmp_path / "*.parquet"), where=where)) == [made[3], made[5]]
    assert list(stored_dialogues([tmp_path / "1.parquet", tmp_path / "2.parquet"])) == made
    with pytest.raises(ValueError, match=r"1\.parquet: .*colour"):
        list(stored_dialogues(tmp_path / "1.parquet", where="colour = 1"))


def test_a_row_that_is_no_dialogue_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    parquet.write_table(pa.table({"id": ["x"], "turns": [[{"speaker": "bot", "text": ""}]]}), path)
    with pytest.raises(ValueError, match=r"bad\.parquet: dialogue 'x': turns\[0\]\.speaker must be user or system"):
        list(stored_dialogues(path))


# ---- errors


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", ["kim", None], "user must not be null: 1 rows, the first is row 2"),
        ("time", [None, 1.0], "time must not be null: 1 rows, the first is row 1"),
        ("time", [0.0, float("nan")], "time must be finite: 1 rows, the first is row 2"),
        ("time", [float("inf"), float("-inf")], "time must be finite: 2 rows, the first is row 1"),
        ("speaker", [None, "user"], "speaker must not be null: 1 rows, the first is row 1"),
        ("speaker", ["user", "bot"], "speaker must be user or system, got 'bot': 1 rows, the first is row 2"),
        ("text", ["a", None], "text must not be null: 1 rows, the first is row 2"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    path = write(tmp_path / "log.parquet", ROWS, **{column: pa.array(values)})
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared in full
        list(SessionReader(path, gap=9))
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [0.5, 1.5], "column 'user' must be text or an integer, got DOUBLE"),
        ("time", ["0", "1"], r"column 'time' must be a number \(of seconds\) or a timestamp, got VARCHAR"),
        ("speaker", [True, False], "column 'speaker' must be text, got BOOLEAN"),
        ("text", [1, 2], "column 'text' must be text, got BIGINT"),
        (
            "n_best",
            [["a"], ["b"]],
            r"column 'n_best' must be true or false, text or a number; or be left out, got VARCHAR\[\]",
        ),
    ],
)
def test_columns_of_a_wrong_type(tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    path = write(tmp_path / "log.parquet", ROWS, **{column: pa.array(values)})
    with pytest.raises(ValueError, match=f"^{path}: {message}$"):
        SessionReader(path, gap=9)


@pytest.mark.parametrize(
    "columns", [Columns(user="who"), Columns(audio="who"), Columns(others=("who",))], ids=["user", "audio", "others"]
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, columns: Columns) -> None:
    path = write(tmp_path / "log.parquet", ROWS)
    with pytest.raises(ValueError, match=f"^{path}: column 'who' is missing; there are user, time, speaker, text$"):
        SessionReader(path, gap=9, columns=columns)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 1.0, "user", ""), ("a", 0.0, "user", "")], "got an earlier time in row 2"),
        ([("a", 1.0, "user", ""), ("b", 0.0, "user", ""), ("a", 2.0, "user", "")], "got 'a' after 'b' in row 3"),
    ],
)
def test_what_is_said_to_be_sorted_is_checked(tmp_path: Path, rows: list[Row], message: str) -> None:
    path = write(tmp_path / "log.parquet", rows)
    with pytest.raises(ValueError, match=rf"rows must ascend by user and time .*, {message}$"):
        list(SessionReader(path, gap=9, presorted=True))
    assert by_user(list(SessionReader(path, gap=9))) == sessions(rows, 9, 1000)


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", ROWS, score=pa.array([0.5, float("nan")]))
    message = r"log\.parquet: session 0 of user 'kim': turns\[1\]\.numeric\.score must be finite, got nan"
    with pytest.raises(ValueError, match=message):
        list(SessionReader(path, gap=9))


def test_arguments(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", ROWS)
    for gap in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="gap must be a positive number of seconds"):
            SessionReader(path, gap=gap)
    with pytest.raises(ValueError, match="max_turns must be positive, got 0"):
        SessionReader(path, gap=1, max_turns=0)
    with pytest.raises(ValueError, match="paths must not be empty"):
        SessionReader([], gap=1)
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: no such file"):
        SessionReader(tmp_path / "absent.parquet", gap=1)
    with pytest.raises(ValueError, match=r"absent\*\.parquet: "):
        SessionReader(f"{tmp_path}/absent*.parquet", gap=1)
    with pytest.raises(ValueError, match=r"resources must suit DuckDB, got Resources\(memory_limit='lots'"):
        SessionReader(path, gap=1, resources=Resources("lots"))
    other = tmp_path / "other.parquet"
    other.write_text("no parquet")
    with pytest.raises(ValueError, match=r"other\.parquet: "):
        SessionReader(other, gap=1)


def test_too_little_memory_says_what_to_do(tmp_path: Path) -> None:
    rows = [(f"{row}", float(row), "user", "x" * 3000) for row in range(20_000)]
    path = write(tmp_path / "log.parquet", rows)
    with pytest.raises(ValueError, match=r"memory_limit must be higher to sort this log, got 1MB"):
        list(SessionReader(path, gap=1, resources=Resources("1MB", threads=2)))


def test_duckdb_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log.parquet", ROWS)
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"needs DuckDB and pyarrow: pip install 'tercet\[labels\]'"):
        SessionReader(path, gap=1)
