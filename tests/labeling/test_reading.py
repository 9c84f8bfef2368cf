"""Files of dialogues: JSON lines and Parquet hold the same; malformed lines; nothing half-written."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialogue_strategies import a_dialogue, dialogues
from tercet.labeling import Dialogue, DialogueReader, Labels, Turn, dialogue_from_json, write_dialogues

EXAMPLE = dialogue_from_json(a_dialogue())


def short(number: int) -> Dialogue:
    return Dialogue(f"d{number}", (Turn("user", f"line {number}"),), Labels(defects=(0,) if number % 2 else ()))


@given(drawn=st.lists(dialogues(), max_size=3))
def test_parquet_keeps_json_lines(drawn: list[Dialogue]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
    with tempfile.TemporaryDirectory() as name:
        first, between, last = (Path(name) / file for file in ("a.jsonl", "b.parquet", "c.jsonl"))
        assert write_dialogues(first, drawn) == len(drawn)
        write_dialogues(between, DialogueReader(first))
        write_dialogues(last, DialogueReader(between))
        assert list(DialogueReader(between)) == drawn
        assert last.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_are_read_as_a_stream_and_again(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
    path = tmp_path / f"many{suffix}"
    alive = 0

    def made() -> Iterator[Dialogue]:
        nonlocal alive
        for number in range(2500):
            alive = number
            yield short(number)

    assert write_dialogues(path, made()) == 2500
    seen: list[tuple[int, int]] = []
    reader = DialogueReader(path, progress=lambda done, total: seen.append((done, total)))
    iterator = iter(reader)
    assert next(iterator) == short(0)
    assert seen == []  # nothing beyond the first was parsed
    assert list(iterator) == [short(number) for number in range(1, 2500)]
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert sum(1 for _ in reader) == 2500
    if suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.ParquetFile(path).num_row_groups == 3


def bad_lines(path: Path) -> Path:
    lines = [json.dumps(a_dialogue()), "", json.dumps({"id": "2", "turns": []}), json.dumps(a_dialogue() | {"id": "3"})]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_malformed_line_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = bad_lines(tmp_path / "bad.jsonl")
    iterator = iter(DialogueReader(path))
    assert next(iterator) == EXAMPLE
    with pytest.raises(ValueError, match=rf"^{path}:2: a line must be one JSON object"):
        next(iterator)


def test_malformed_lines_are_skipped_when_asked_and_counted(tmp_path: Path) -> None:
    reader = DialogueReader(bad_lines(tmp_path / "bad.jsonl"), skip_malformed=True)
    for _ in range(2):
        assert [dialogue.id for dialogue in reader] == ["call-1", "3"]
        assert reader.skipped == 2
        assert reader.first_skipped is not None
        assert reader.first_skipped.startswith(f"{reader.path}:2: a line must be")


def test_parquet_of_others(tmp_path: Path) -> None:
    """Structs in place of maps, large types, columns left out; rows that are wrong are named."""
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
    parquet = pytest.importorskip("pyarrow.parquet")
    turn = pyarrow.struct(
        {
            "speaker": pyarrow.large_string(),
            "text": pyarrow.large_string(),
            "categorical": pyarrow.struct({"domain": pyarrow.string(), "place": pyarrow.string()}),
        }
    )
    rows = [
        [{"speaker": "user", "text": "hm", "categorical": {"domain": "music", "place": None}}],
        [{"speaker": "bot", "text": "hm"}],
    ]
    columns = {"id": ["a", "b"], "turns": pyarrow.array(rows, pyarrow.large_list(turn))}
    path = tmp_path / "others.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    iterator = iter(DialogueReader(path))
    assert next(iterator) == Dialogue("a", (Turn("user", "hm", categorical={"domain": "music"}),))
    with pytest.raises(ValueError, match=rf"^{path}: row 2: turns\[0\].speaker must be user or system, got 'bot'$"):
        next(iterator)
    parquet.write_table(pyarrow.table({"id": ["a"], "trns": [["hm"]]}), path)
    with pytest.raises(ValueError, match="row 1: trns is not a field of the format; did you mean turns"):
        list(DialogueReader(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=rf"^{path}: expected a Parquet file"):
        list(DialogueReader(path))


def test_names_that_say_no_format(tmp_path: Path) -> None:
    for name in ("a.json", "a"):
        with pytest.raises(ValueError, match=rf"{name}: a file of dialogues must end in .jsonl or .parquet$"):
            DialogueReader(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: a file of dialogues must end in .jsonl or .parquet$"):
            write_dialogues(tmp_path / name, [])
    with pytest.raises(FileNotFoundError, match=r"a.jsonl: no such file"):
        DialogueReader(tmp_path / "a.jsonl")
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        write_dialogues(tmp_path / "none" / "a.jsonl", [])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_failure_leaves_the_file_before(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `parquet`)")
    path = tmp_path / f"a{suffix}"
    write_dialogues(path, [EXAMPLE])

    def broken() -> Iterator[Dialogue]:
        yield short(1)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match=r"^the source broke$"):
        write_dialogues(path, broken())
    assert list(DialogueReader(path)) == [EXAMPLE]
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'tercet\[parquet\]'"):
        write_dialogues(tmp_path / "a.parquet", [EXAMPLE])
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"b.parquet needs pyarrow"):
        list(DialogueReader(tmp_path / "b.parquet"))
