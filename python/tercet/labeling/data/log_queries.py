"""What of a log is read, by DuckDB: the choice of its columns, checks of its rows, a sort that memory does not bound.

The sort (`Log.by_user`): the 64-bit hashes of users are cut into ranges; each range is written to a file of its own,
all in one pass, and then sorted by itself. So a row is read, written and read again, and takes no longer in a larger
log. Only where the rows of one user do not fit is the sort DuckDB's own out of core, which needs the more memory the
more there is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from tercet.labeling.data.dialogues import SPEAKERS

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]
ROLES = ("user", "time", "speaker", "text")
_BATCH = 8192  # rows of a batch that DuckDB hands over
_PARTS = 8  # a range, and what waits to be written, are such a part of the memory limit
_MOST_BITS = 9  # of a hash: so many ranges have a file that is open
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")
_NUMBERS = (*_INTEGERS, "FLOAT", "DOUBLE", "DECIMAL")
_TEXTS = ("VARCHAR", "ENUM")


@dataclass(frozen=True)
class Resources:
    """What DuckDB may take.

    Attributes:
        memory_limit: as DuckDB writes it, such as 512MB or 4GB; Python itself and batches of an eighth of it come on
            top.
        temp_directory: where rows are kept meanwhile, in a new folder that is gone afterwards; None: the system's.
        threads: None: all cores.
    """

    memory_limit: str = "1GB"
    temp_directory: str | PathLike[str] | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Columns:
    """What the columns of a log are called.

    Attributes:
        user: text or integer; who talks, the same in all of the log.
        time: a number, in seconds, or a timestamp.
        speaker: text, user or system.
        text: what was said.
        audio: text, the path of what was heard; None: there is none.
        others: of them, true or false becomes feedback, text categorical, a number numeric, under the column's name;
            null is left out. None: all other columns.
    """

    user: str = "user"
    time: str = "time"
    speaker: str = "speaker"
    text: str = "text"
    audio: str | None = None
    others: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Chosen:
    """The columns that are read, and what becomes of them.

    Attributes:
        select: as SQL: tercet_user, tercet_time, tercet_speaker, tercet_text, perhaps tercet_audio, and the others.
        required: what user, time, speaker and text are called in the log.
        feedback, categorical, numeric: what the columns of these features are called in `select`.
    """

    select: str
    required: Mapping[str, str]
    feedback: Mapping[str, str] = field(default_factory=dict)
    categorical: Mapping[str, str] = field(default_factory=dict)
    numeric: Mapping[str, str] = field(default_factory=dict)


class Log:
    """An open connection to DuckDB and the files that it reads.

    Attributes:
        name: of the files, for messages.
    """

    def __init__(self, connection: Any, paths: list[str], limit: str, folder: Path) -> None:
        self._connection, self._paths, self._limit, self._folder = connection, paths, limit, folder
        self.name = ", ".join(paths)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query, in which `read_parquet(?)` stands for the log."""
        with self._translated():
            return list(self._connection.execute(query, [self._paths]).fetchall())

    def batches(self, query: str) -> Iterator[Any]:
        """Batches of Arrow, as they come."""
        with self._translated():
            yield from self._connection.sql(query, params=[self._paths]).to_arrow_reader(_BATCH)

    def by_user(self, select: str, total: int) -> Iterator[Any]:
        """The `total` rows by user, in the order of their hashes, and those of a user by time, as batches of Arrow."""
        keys = "hash(tercet_user) AS tercet_hash, file_index, file_row_number"
        batches = self.batches(f"SELECT {select}, {keys} FROM read_parquet(?)")
        with self._translated():
            ((limit,),) = self._connection.execute(f"SELECT parse_formatted_bytes('{self._limit}')").fetchall()
        for file in self._scattered(batches, total, limit // _PARTS):
            yield from self._sorted(file)
            file.unlink()

    def _scattered(self, batches: Iterator[Any], total: int, size: int) -> list[Path]:
        """Files of rows, of about `size` bytes each, by ascending ranges of hashes."""
        waiting: list[Any] = []
        held = rows = 0
        ranges: _Ranges | None = None
        with ExitStack() as files:
            for batch in batches:
                waiting.append(batch)
                held, rows = held + batch.nbytes, rows + batch.num_rows
                if held < size:
                    continue
                if ranges is None:  # all rows are taken to be as large as these
                    bits = int(np.ceil(np.log2(max(1.0, held / rows * total / size))))
                    ranges = _Ranges(self._folder, files, min(bits, _MOST_BITS))
                ranges.write(waiting)
                waiting, held = [], 0
            ranges = ranges or _Ranges(self._folder, files, 0)
            if waiting:
                ranges.write(waiting)
        return [path for _, path in sorted(ranges.paths.items())]

    def _sorted(self, file: Path) -> Iterator[Any]:
        import pyarrow as pa

        order = "ORDER BY tercet_hash, tercet_user, tercet_time, file_index, file_row_number"
        with self._translated(), pa.ipc.open_stream(file) as reader:
            self._connection.register("tercet_range", reader)
            yield from self._connection.sql(f"SELECT * FROM tercet_range {order}").to_arrow_reader(_BATCH)
            self._connection.unregister("tercet_range")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.Error, OSError) as error:  # OSError: what breaks while Arrow is handed over
            reason = str(error).splitlines()[0]
            if "Out of Memory" in reason:
                reason = f"memory_limit must be higher to sort this log, got {self._limit} ({reason})"
            raise ValueError(f"{self.name}: {reason}") from error


class _Ranges:
    """A file for each range of hashes that has rows, all of them open.

    Attributes:
        paths: by the highest bits of the hash.
    """

    def __init__(self, folder: Path, files: ExitStack, bits: int) -> None:
        self.paths: dict[int, Path] = {}
        self._writers: dict[int, Any] = {}
        self._folder, self._files, self._bits = folder, files, bits

    def write(self, batches: list[Any]) -> None:
        """Each row to its file."""
        import pyarrow as pa

        table = pa.Table.from_batches(batches)
        places = np.zeros(len(table), np.int64)
        if self._bits:
            places = (table["tercet_hash"].to_numpy() >> np.uint64(64 - self._bits)).astype(np.int64)
            order = places.argsort(kind="stable")
            table, places = table.take(order), places[order]
        starts = [0, *np.flatnonzero(np.diff(places)) + 1, len(places)]
        for start, end in pairwise(starts):
            place = int(places[start])
            if place not in self._writers:
                self.paths[place] = self._folder / f"{place}.arrows"
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = pa.ipc.new_stream(self.paths[place], table.schema, options=options)
                self._writers[place] = self._files.enter_context(writer)
            self._writers[place].write_table(table.slice(start, end - start))


def listed(paths: Paths) -> list[str]:
    """Names and patterns, of which each names a file."""
    names = [fspath(paths)] if isinstance(paths, (str, PathLike)) else sorted(fspath(path) for path in paths)
    if not names:
        raise ValueError("tercet.labeling.logs: paths must not be empty")
    for name in names:
        if not any(letter in name for letter in "*?[") and not Path(name).is_file():
            raise FileNotFoundError(f"{name}: no such file")
    return names


@contextmanager
def opened(paths: list[str], resources: Resources) -> Iterator[Log]:
    try:
        import duckdb
        import pyarrow  # noqa: F401 - in which DuckDB hands rows over
    except ImportError as error:
        raise ImportError(f"{paths[0]} needs DuckDB and pyarrow: pip install 'tercet[labels]'") from error
    with tempfile.TemporaryDirectory(prefix="tercet-", dir=resources.temp_directory) as folder:
        config = {"memory_limit": resources.memory_limit, "temp_directory": folder}
        if resources.threads is not None:
            config["threads"] = str(resources.threads)
        try:
            connection = duckdb.connect(config=config)
        except duckdb.Error as error:
            raise ValueError(f"tercet.labeling.logs: resources must suit DuckDB, got {resources}: {error}") from error
        with connection:
            yield Log(connection, paths, resources.memory_limit, Path(folder))


def choose(log: Log, columns: Columns) -> Chosen:
    """The SQL of the columns. ValueError where one is absent or has a type that does not fit."""
    types = {name: str(kind) for name, kind, *_ in log.rows("DESCRIBE SELECT * FROM read_parquet(?)")}
    required = {role: getattr(columns, role) for role in ROLES}
    named = [*required.values(), *([] if columns.audio is None else [columns.audio]), *(columns.others or ())]
    for name in named:
        if name not in types:
            raise ValueError(f"{log.name}: column {name!r} is missing; there are {', '.join(types)}")
    _check_type(log, types, columns.user, (*_TEXTS, *_INTEGERS, "UUID"), "text or an integer")
    _check_type(log, types, columns.time, (*_NUMBERS, "TIMESTAMP"), "a number (of seconds) or a timestamp")
    for name in (columns.speaker, columns.text, columns.audio):
        if name is not None:
            _check_type(log, types, name, _TEXTS, "text")
    seconds = (
        f"epoch({_quoted(columns.time)})" if types[columns.time].startswith("TIMESTAMP") else _quoted(columns.time)
    )
    parts = [
        f"{_quoted(columns.user)}::VARCHAR AS tercet_user",
        f"{seconds}::DOUBLE AS tercet_time",
        f"{_quoted(columns.speaker)}::VARCHAR AS tercet_speaker",
        f"{_quoted(columns.text)}::VARCHAR AS tercet_text",
    ]
    if columns.audio is not None:
        parts.append(f"{_quoted(columns.audio)}::VARCHAR AS tercet_audio")
    others = [name for name in types if name not in named] if columns.others is None else columns.others
    found: dict[str, dict[str, str]] = {"feedback": {}, "categorical": {}, "numeric": {}}
    for place, name in enumerate(others):
        _check_type(
            log, types, name, ("BOOLEAN", *_TEXTS, *_NUMBERS), "true or false, text or a number; or be left out"
        )
        kind = types[name].partition("(")[0]
        member, cast = (
            ("feedback", "BOOLEAN") if kind == "BOOLEAN"
            else ("categorical", "VARCHAR") if kind in _TEXTS
            else ("numeric", "DOUBLE")
        )  # fmt: skip
        found[member][name] = f"tercet_{place}"
        parts.append(f"{_quoted(name)}::{cast} AS tercet_{place}")
    return Chosen(", ".join(parts), required, **found)


def _check_type(log: Log, types: Mapping[str, str], name: str, wanted: Sequence[str], words: str) -> None:
    kind = types[name].partition("(")[0]
    if kind not in wanted and not (kind.startswith("TIMESTAMP") and "TIMESTAMP" in wanted):
        raise ValueError(f"{log.name}: column {name!r} must be {words}, got {types[name]}")


def check_rows(log: Log, chosen: Chosen) -> int:
    """The number of rows. ValueError names the first that cannot be read."""
    rules = {f"{chosen.required[role]} must not be null": f"tercet_{role} IS NULL" for role in ROLES}
    rules[f"{chosen.required['time']} must be finite"] = "NOT isfinite(tercet_time)"
    speakers = ", ".join(f"'{name}'" for name in SPEAKERS)
    rules[f"{chosen.required['speaker']} must be user or system"] = f"tercet_speaker NOT IN ({speakers})"
    source = f"(SELECT {chosen.select}, filename, file_row_number FROM read_parquet(?))"
    counts = ", ".join(f"count(*) FILTER ({rule})" for rule in rules.values())
    total, *broken = log.rows(f"SELECT count(*), {counts} FROM {source}")[0]
    for (words, rule), count in zip(rules.items(), broken, strict=True):
        if count:
            found = "SELECT filename, file_row_number, tercet_speaker"
            file, row, said = log.rows(f"{found} FROM {source} WHERE {rule} ORDER BY 1, 2 LIMIT 1")[0]
            shown = f", got {said!r}" if "system" in words else ""
            raise ValueError(f"{file}: {words}{shown}: {count:,} rows, the first is row {row + 1:,}")
    return int(total)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
