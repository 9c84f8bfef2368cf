"""Files appear whole or not at all; what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tercet.files import read_json, read_tensors, replaced, write_json, write_tensors


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def write_half() -> None:
        with replaced(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "before"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "before")]
    with replaced(path) as temporary:
        temporary.write_text("after")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "after")]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    with (
        pytest.raises(FileNotFoundError, match="absent/file: its folder does not exist"),
        replaced(tmp_path / "absent" / "file"),
    ):
        pass


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"name": "日本", "value": 0.1})
    assert read_json(tmp_path / "new" / "a.json") == {"name": "日本", "value": 0.1}
    table = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "b", {"rows": table.T, "same": table, "part": table[1:]})
    read = read_tensors(tmp_path / "b")
    assert {name: value.tolist() for name, value in read.items()} == {
        "rows": table.T.tolist(), "same": table.tolist(), "part": [[3, 4, 5]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ("[1]", "expected a JSON object, got list"), (b"\xff", "expected JSON")],
)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"a.json: {message}"):
        read_json(tmp_path / "a.json")


def test_a_file_that_holds_no_tensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"none")
    for name in ("a", "absent"):
        with pytest.raises(ValueError, match=f"{name}: expected a safetensors file"):
            read_tensors(tmp_path / name)
