"""Commands of `tercet` as a shell runs them: what they print, and the error that they end with."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tercet.cli import app, main


def run(*args: object) -> str:
    """What a command that succeeds prints: everything, or with --json standard output alone."""
    result = CliRunner().invoke(app, [*map(str, args)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output if "--json" not in args else result.stdout


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What a command that fails says: one line, and no traceback."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", ["tercet", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("tercet")
    assert error.count("\n") == 1
    return error
