"""Files of dialogues, one at a time in memory: JSON lines (.jsonl) or Parquet (.parquet)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path

from tercet.files import replaced
from tercet.labeling.data import parquet
from tercet.labeling.data.dialogues import PREFIX, Dialogue
from tercet.labeling.data.json_lines import dialogue_from_json, dialogue_from_line, dialogue_to_line

Progress = Callable[[int, int], None]
_SUFFIXES = (".jsonl", ".parquet")
_REPORT_EVERY = 256  # dialogues


class DialogueReader:
    """The dialogues of a file, read anew by every iteration; the file may be larger than memory.

    Args:
        path: a .jsonl or .parquet file.
        skip_malformed: go on after a line (of Parquet: a row) that holds no valid dialogue; without, it is an error.
        progress: called with (done, total) while reading, in bytes of JSON lines or rows of Parquet.

    Attributes:
        skipped: how many lines the last iteration has skipped.
        first_skipped: the message of the first of them; None where there is none.

    Raises:
        FileNotFoundError: no such file. ValueError: its name ends otherwise; while iterating, a malformed line:
            `dialogues.jsonl:17: turns[3].speaker must be user or system, got 'bot'`.
    """

    def __init__(
        self, path: str | PathLike[str], *, skip_malformed: bool = False, progress: Progress | None = None
    ) -> None:
        self.path = Path(path)
        check_suffix(self.path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        self.skip_malformed, self._progress = skip_malformed, progress
        self.skipped = 0
        self.first_skipped: str | None = None

    def __iter__(self) -> Iterator[Dialogue]:
        self.skipped, self.first_skipped = 0, None
        parsed = self._parsed_rows() if self.path.suffix == ".parquet" else self._parsed_lines()
        for number, dialogue in enumerate(parsed, 1):
            if isinstance(dialogue, Dialogue):
                yield dialogue
                continue
            place = f" row {number}" if self.path.suffix == ".parquet" else str(number)
            message = f"{self.path}:{place}: {str(dialogue).removeprefix(PREFIX)}"
            if not self.skip_malformed:
                raise ValueError(message) from dialogue
            self.skipped += 1
            self.first_skipped = self.first_skipped or message

    def _parsed_lines(self) -> Iterator[Dialogue | ValueError]:
        total, done = self.path.stat().st_size, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                done += len(line)
                if number % _REPORT_EVERY == 0 or done >= total:
                    self._report(done, total)
                try:
                    yield dialogue_from_line(line)
                except ValueError as error:
                    yield error

    def _parsed_rows(self) -> Iterator[Dialogue | ValueError]:
        total = parquet.row_count(self.path)
        for number, row in enumerate(parquet.rows(self.path), 1):
            if number % _REPORT_EVERY == 0 or number == total:
                self._report(number, total)
            try:
                yield dialogue_from_json(row)
            except ValueError as error:
                yield error

    def _report(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)


def write_dialogues(path: str | PathLike[str], dialogues: Iterable[Dialogue]) -> int:
    """Write dialogues as they come and return how many they were; on any error there is no new file.

    Args:
        path: ends in .jsonl or .parquet; a file that is there is replaced.
        dialogues: need not fit in memory.

    Raises:
        ValueError: the name ends otherwise. FileNotFoundError: its folder does not exist. ImportError: Parquet without
            pyarrow.
    """
    path = Path(path)
    check_suffix(path)
    count = 0

    def counted() -> Iterator[Dialogue]:
        nonlocal count
        for dialogue in dialogues:
            count += 1
            yield dialogue

    with replaced(path) as temporary:
        if path.suffix == ".parquet":
            parquet.write(temporary, counted())
        else:
            with temporary.open("wb") as file:
                file.writelines(map(dialogue_to_line, counted()))
    return count


def check_suffix(path: Path) -> None:
    """Raise ValueError unless the name says one of the two formats."""
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path}: a file of dialogues must end in {' or '.join(_SUFFIXES)}")
