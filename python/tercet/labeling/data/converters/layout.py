"""What converters share: finding a data set's files, and errors that say where one is not laid out as expected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tercet.labeling.data.dialogues import PREFIX


def find_files(path: Path, *patterns: str, inside: bool = False) -> list[Path]:
    """`path` itself where it is a file (not if `inside`), else the files in it that match, by pattern and name.

    Raises:
        FileNotFoundError: there are none.
    """
    if path.is_file() and not inside:
        return [path]
    found = [file for pattern in patterns for file in sorted(path.glob(pattern))]
    if not found:
        expected = "a folder" if inside else "a file, or a folder"
        raise FileNotFoundError(f"{path}: expected {expected} with {' or '.join(patterns)}")
    return found


@contextlib.contextmanager
def in_layout(path: Path, record: object) -> Iterator[None]:
    """Errors of reading a record name its file and the record (its id, or its place where that is unknown)."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        lacks = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: dialogue {record} is not laid out as expected: {lacks}") from error
    except ValueError as error:
        raise ValueError(f"{path}: dialogue {record}: {str(error).removeprefix(PREFIX)}") from error
