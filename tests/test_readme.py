"""What README.md shows works: the Python example runs, and the first two commands do all the set-up."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_first_two_commands_do_all_the_set_up() -> None:
    demo, tests = (block.strip() for block in _blocks("sh")[:2])
    set_up = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[{}]' && "
    assert demo == set_up.format("demo") + ".venv/bin/tercet demo"
    assert tests == set_up.format("test") + ".venv/bin/python -m pytest"


def test_python_examples_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    promised = re.findall(r"# prints (.*)", README)
    assert promised
    assert capsys.readouterr().out.splitlines() == promised
