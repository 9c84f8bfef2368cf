"""Logs in Parquet, larger than memory, as dialogues: DuckDB sorts and spills, what it gives is cut into sessions.

A log has one row for each thing that was said. Rows are brought together by user and time, on disk where memory does
not suffice; a session ends where its user says nothing for longer than a gap. Needs DuckDB and pyarrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tercet.labeling.data import parquet
from tercet.labeling.data.dialogues import PREFIX, Audio, Dialogue, Turn
from tercet.labeling.data.json_lines import dialogue_from_json
from tercet.labeling.data.log_queries import Chosen, Columns, Paths, Resources, check_rows, choose, listed, opened
from tercet.labeling.data.reading import Progress

__all__ = ["Columns", "Resources", "SessionReader", "stored_dialogues"]


class SessionReader:
    """The sessions of a log as dialogues, read anew by every iteration.

    The rows of users may interleave; rows of the same user and time keep the order of the log. The sessions of a user
    come in the order of time, users in that of a hash: always the same, and no other. A dialogue's id is USER/NUMBER,
    the sessions of a user counting from 0; its metadata holds the user.

    Cost: the log is read twice, once for its checks, and written once to temporary files. Memory is the limit of
    `resources`, batches of an eighth of it, and one session.

    Args:
        paths: a Parquet file, several of them, or a pattern such as logs/*.parquet.
        gap: seconds; a user who is silent for longer begins a new session.
        columns: what columns are called.
        max_turns: a session of more turns goes on in the next dialogue, so that none outgrows memory.
        presorted: rows already ascend by user, those of a user by time: they are checked while read, and not sorted.
        resources: what DuckDB may take.
        progress: called with (done, total) rows while reading.

    Raises:
        FileNotFoundError: no such file. ImportError: DuckDB or pyarrow is not installed. ValueError: `gap` or
            `max_turns` is not positive; a column is absent or has the wrong type; while iterating: a user, time,
            speaker or text is null, a time is not finite, a speaker is neither user nor system, what is said to be
            sorted is not, or the memory limit is too low: `log.parquet: time must not be null: 3 rows, the first is
            row 17`.

    Example:
        >>> import pyarrow as pa, pyarrow.parquet
        >>> log = pa.table({
        ...     "user": ["kim", "lou", "kim", "kim"],
        ...     "time": [0.0, 1.0, 2.0, 900.0],
        ...     "speaker": ["user", "user", "system", "user"],
        ...     "text": ["play jazz", "stop", "Playing jazz.", "stop"],
        ... })
        >>> pa.parquet.write_table(log, "log.parquet")
        >>> sorted((each.id, len(each.turns)) for each in SessionReader("log.parquet", gap=300))
        [('kim/0', 2), ('kim/1', 1), ('lou/0', 1)]
    """

    def __init__(
        self,
        paths: Paths,
        *,
        gap: float,
        columns: Columns = Columns(),  # noqa: B008 - frozen
        max_turns: int = 1000,
        presorted: bool = False,
        resources: Resources = Resources(),  # noqa: B008 - frozen
        progress: Progress | None = None,
    ) -> None:
        if not 0 < gap < math.inf:
            raise ValueError(f"tercet.SessionReader: gap must be a positive number of seconds, got {gap}")
        if max_turns < 1:
            raise ValueError(f"tercet.SessionReader: max_turns must be positive, got {max_turns}")
        self.gap, self.columns, self.max_turns, self.presorted = gap, columns, max_turns, presorted
        self.resources, self._progress = resources, progress
        self._paths = listed(paths)
        with opened(self._paths, resources) as log:
            self._chosen = choose(log, columns)

    def __iter__(self) -> Iterator[Dialogue]:
        with opened(self._paths, self.resources) as log:
            total = check_rows(log, self._chosen)
            select = self._chosen.select
            batches = (
                log.batches(f"SELECT {select} FROM read_parquet(?)") if self.presorted else log.by_user(select, total)
            )
            yield from self._cut(self._reported(batches, total), log.name)

    def _reported(self, batches: Iterable[Any], total: int) -> Iterator[Any]:
        done = 0
        for batch in batches:
            done += batch.num_rows
            yield batch
            if self._progress is not None:
                self._progress(done, total)

    def _cut(self, batches: Iterable[Any], name: str) -> Iterator[Dialogue]:
        """Sessions, from rows by user and time."""
        turns: list[Turn] = []
        user, time, number = None, -math.inf, -1
        row = 0
        for batch in batches:
            users, times = batch.column("tercet_user").to_pylist(), batch.column("tercet_time").to_numpy()
            same = np.array([a == b for a, b in zip([user, *users], users, strict=False)])
            gaps = np.diff(times, prepend=time)
            if self.presorted:
                _check_order(name, [user, *users], same, gaps, row)
            begins = ~same | (gaps > self.gap)
            for begin, is_same, each, turn in zip(begins, same, users, _turns(batch, self._chosen), strict=True):
                if turns and (begin or len(turns) == self.max_turns):
                    number += 1
                    yield _dialogue(name, str(user), number, turns)
                    turns = []
                if not is_same:
                    user, number = each, -1
                turns.append(turn)
            row, time = row + len(users), times[-1]
        if turns:
            yield _dialogue(name, str(user), number + 1, turns)


def stored_dialogues(
    paths: Paths,
    *,
    where: str | None = None,
    resources: Resources = Resources(),  # noqa: B008 - frozen
) -> Iterator[Dialogue]:
    """The dialogues of Parquet files that `write_dialogues` made, of several at once and only those that are wanted.

    Args:
        paths: a file, several of them, or a pattern such as dialogues/*.parquet.
        where: a condition in DuckDB's SQL on the columns of the file (id, turns, labels, annotations, metadata), such
            as `metadata['split'] = 'train' AND len(turns) > 2`; it is trusted as code is. None: all.
        resources: what DuckDB may take.

    Raises:
        FileNotFoundError, ImportError: as for `SessionReader`. ValueError: the condition is none, or a row holds no
            valid dialogue.
    """
    with opened(listed(paths), resources) as log:
        condition = "" if where is None else f" WHERE {where}"
        for batch in log.batches(f"SELECT * FROM read_parquet(?){condition}"):
            for json in parquet.rows_of(batch):
                try:
                    yield dialogue_from_json(json)
                except ValueError as error:
                    message = str(error).removeprefix(PREFIX)
                    raise ValueError(f"{log.name}: dialogue {json.get('id')!r}: {message}") from error


def _check_order(name: str, users: Sequence[str | None], same: Any, gaps: Any, row: int) -> None:
    """Of `users`, the first is the last one before these rows."""
    for place, (before, after) in enumerate(pairwise(users)):
        if same[place] and gaps[place] < 0:
            raise ValueError(
                f"{name}: rows must ascend by user and time where they are said to be presorted, got an earlier time in"
                f" row {row + place + 1:,}"
            )
        if before is not None and after is not None and before.encode() > after.encode():
            raise ValueError(
                f"{name}: rows must ascend by user and time where they are said to be presorted, got {after!r} after"
                f" {before!r} in row {row + place + 1:,}"
            )


def _turns(batch: Any, chosen: Chosen) -> Iterator[Turn]:
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    sounds = columns.get("tercet_audio")
    members = [
        [(name, columns[alias]) for name, alias in each.items()]
        for each in (chosen.categorical, chosen.numeric, chosen.feedback)
    ]
    rows = zip(*(columns[f"tercet_{role}"] for role in ("speaker", "text", "time")), strict=True)
    for place, (speaker, text, time) in enumerate(rows):
        categorical, numeric, feedback = (
            {name: value for name, values in member if (value := values[place]) is not None} for member in members
        )
        heard = None if sounds is None or sounds[place] is None else Audio(path=sounds[place])
        yield Turn(speaker, text, time, categorical, numeric, {}, feedback, heard)


def _dialogue(name: str, user: str, number: int, turns: list[Turn]) -> Dialogue:
    try:
        return Dialogue(f"{user}/{number}", tuple(turns), metadata={"user": user})
    except ValueError as error:
        raise ValueError(f"{name}: session {number} of user {user!r}: {str(error).removeprefix(PREFIX)}") from error
