"""Reading triples with names from files: separated text, N-Triples, Parquet; any of the first two also gzipped."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tercet.graph.names import NameBuilder, bytes_tensor, grown
from tercet.ops import _native

Progress = Callable[[int, int], None]

_BLOCK = 4 << 20
_BATCH = 1 << 16
_FIELDS = ("head", "relation", "tail")
_SEPARATORS = {"\t": "a tab", "|": "'|'"}
# What csrc/names.h reports.
_GROW_TRIPLES, _GROW_ENTITIES, _GROW_RELATIONS, _NOT_UTF8, _WRONG_FIELDS = 1, 2, 3, 4, 5


class TripleReader:
    """Triples read so far, and the names met in them; ids follow first appearance, the head before the tail.

    Args:
        paths: the files that `read_all` reads; their sizes are what progress is measured by.
        progress: called with (bytes read, bytes in all) while reading.

    Attributes:
        ends: after `read_all`, how many triples had been read at the end of each file.
    """

    def __init__(self, paths: list[Path], progress: Progress | None = None) -> None:
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"tercet.KnowledgeGraph.read: {path} is not a file")
        self.paths = paths
        self.ends: list[int] = []
        self.entities, self.relations = NameBuilder(), NameBuilder()
        self.columns = [torch.empty(1 << 12, dtype=torch.int32) for _ in range(3)]
        self.state = torch.zeros(4, dtype=torch.int64)  # position, line, num_triples, detail: TextState of csrc/names.h
        self._total = sum(path.stat().st_size for path in paths)
        self._before = 0
        self._progress = progress

    def read_all(self) -> None:
        """Read every file, by its suffix."""
        for path in self.paths:
            suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
            if suffixes[-1:] == [".parquet"]:
                self._parquet(path)
            elif suffixes[-1:] == [".nt"] or suffixes == [".nt", ".gz"]:
                self._n_triples(path)
            else:
                self._text(path)
            self.ends.append(self.num_triples)
            self._before += path.stat().st_size
            self._report(0)

    def triples(self) -> list[Tensor]:
        """Heads, relations and tails, int32."""
        return [column[: self.num_triples] for column in self.columns]

    @property
    def num_triples(self) -> int:
        """How many triples were read."""
        return int(self.state[2])

    def _report(self, position: int) -> None:
        if self._progress is not None:
            self._progress(min(self._before + position, self._total), self._total)

    def _make_room(self, count: int) -> None:
        """Columns that hold `count` triples; doubling, so that growing costs a constant share."""
        if count > len(self.columns[0]):
            size = max(count, 2 * len(self.columns[0]))
            for place in range(3):  # one at a time: only one column is ever held twice
                self.columns[place] = grown(self.columns[place], self.num_triples, size)

    def _text(self, path: Path) -> None:
        with open(path, "rb", buffering=0) as raw, _opened(raw, path) as stream:
            buffer = torch.empty(_BLOCK, dtype=torch.uint8)
            filled, start, separator, last = 0, 0, "", False
            self.state[1] = 0
            while not last:
                if filled == len(buffer):  # a line longer than the buffer
                    buffer = grown(buffer, filled, 2 * filled)
                got = _read_into(stream, buffer[filled:].numpy(), path)
                filled, last = filled + got, got == 0
                if not separator:
                    head = bytes(buffer[:filled].numpy())
                    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
                    separator = _separator(head[start:], last, path)
                    if not separator:
                        continue
                used = self._parse(buffer, start, filled, last, separator, path)
                buffer[: filled - used] = buffer[used:filled].clone()
                filled, start = filled - used, 0
                self._report(raw.tell())

    def _parse(self, buffer: Tensor, start: int, size: int, last: bool, separator: str, path: Path) -> int:
        """Read the complete lines of the buffer from `start` on; returns where the rest begins."""
        self.state[0] = start
        while True:
            status = _native.cpu.names_parse_lines(
                _native.pointer(buffer),
                size,
                last,
                ord(separator),
                self.entities.args(),
                self.relations.args(),
                tuple(map(_native.pointer, self.columns)),
                len(self.columns[0]),
                _native.pointer(self.state),
            )
            position, line, count, detail = self.state.tolist()
            if status == _GROW_TRIPLES:
                self._make_room(count + 1)
            elif status == _GROW_ENTITIES:
                self.entities.grow(size - position)
            elif status == _GROW_RELATIONS:
                self.relations.grow(size - position)
            elif status:
                raise ValueError(f"{path}, line {line}: {_line_fault(status, detail, separator)}")
            else:
                return int(position)

    def _n_triples(self, path: Path) -> None:
        try:
            import pyoxigraph
        except ImportError as error:
            raise ImportError(f"reading {path} needs pyoxigraph: pip install 'tercet[rdf]'") from error
        file_number = self.paths.index(path)

        def name(term: Any) -> str:
            if isinstance(term, pyoxigraph.NamedNode):
                return str(term.value)
            if isinstance(term, pyoxigraph.BlankNode) and file_number:  # another file's node of that label is another
                return f"{term}@{file_number + 1}"
            return str(term)  # a literal with its quotes, language and type, so that different ones stay apart

        with open(path, "rb", buffering=0) as raw, _opened(raw, path) as stream:
            ends: list[str] = []
            relations: list[str] = []
            parsed = pyoxigraph.parse(io.BufferedReader(_Raw(stream, path)), format=pyoxigraph.RdfFormat.N_TRIPLES)
            try:
                for quad in parsed:
                    ends += (name(quad.subject), name(quad.object))
                    relations.append(str(quad.predicate.value))
                    if len(relations) == _BATCH:
                        self._append(_packed(ends), _packed(relations))
                        ends, relations = [], []
                        self._report(raw.tell())
            except (SyntaxError, UnicodeDecodeError) as error:
                line = getattr(error, "lineno", None)
                place = f"{path}, line {line}" if line else str(path)
                raise ValueError(f"{place}: not N-Triples: {getattr(error, 'msg', error)}") from error
            self._append(_packed(ends), _packed(relations))

    def _parquet(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"reading {path} needs pyarrow: pip install 'tercet[parquet]'") from error
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path}: not a Parquet file: {error}") from error
        with file:
            columns = _parquet_columns(file.schema_arrow.names, path)
            rows, total = 0, max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                names = []
                for column, field in zip((batch.column(c) for c in columns), _FIELDS, strict=True):
                    try:
                        text = column.cast(pyarrow.large_string())
                    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
                        raise ValueError(f"{path}: the {field} column must hold text, got {column.type}") from error
                    missing = pyarrow.compute.fill_null(pyarrow.compute.equal(text, ""), True)
                    if pyarrow.compute.any(missing).as_py():
                        row = rows + missing.to_pylist().index(True) + 1
                        raise ValueError(f"{path}, row {row}: the {field} is empty")
                    names.append(text)
                count = len(names[0])
                turns = pyarrow.array(
                    [i for pair in zip(range(count), range(count, 2 * count), strict=True) for i in pair]
                )
                ends = pyarrow.concat_arrays([names[0], names[2]]).take(turns)
                self._append(_arrow(ends), _arrow(names[1]))
                rows += count
                self._report(path.stat().st_size * rows // total)

    def _append(self, ends: tuple[int, int, int, Any], relations: tuple[int, int, int, Any]) -> None:
        """Append triples: the names of heads and tails in turns, and of relations."""
        count, start = relations[2], self.num_triples
        self._make_room(start + count)
        pairs = self._intern(ends, self.entities).view(-1, 2)
        values = pairs[:, 0], self._intern(relations, self.relations), pairs[:, 1]
        for column, part in zip(self.columns, values, strict=True):
            column[start : start + count] = part
        self.state[2] = start + count

    def _intern(self, names: tuple[int, int, int, Any], builder: NameBuilder) -> Tensor:
        blob, offsets, count, _keep = names
        ids = torch.empty(count, dtype=torch.int32)
        state = torch.zeros(4, dtype=torch.int64)
        pointers = _native.pointer(ids), _native.pointer(state)
        while _native.cpu.names_intern(blob, offsets, count, builder.args(), *pointers) == _GROW_ENTITIES:
            builder.grow(1 << 20)
        return ids


def _packed(names: list[str]) -> tuple[int, int, int, Any]:
    """Strings as (address of the text, address of the offsets, count, owner)."""
    encoded = [name.encode() for name in names]
    blob = bytes_tensor(b"".join(encoded))
    offsets = torch.zeros(len(encoded) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor([len(text) for text in encoded], dtype=torch.int64).cumsum(0)
    return _native.pointer(blob), _native.pointer(offsets), len(encoded), (blob, offsets)


def _arrow(array: Any) -> tuple[int, int, int, Any]:
    """The same for an Arrow array of large strings, in place."""
    _, offsets, text = array.buffers()
    if not len(array):
        return 0, 0, 0, array
    return text.address, offsets.address + 8 * array.offset, len(array), array


def _parquet_columns(names: list[str], path: Path) -> list[str]:
    for wanted in (("head", "relation", "tail"), ("subject", "predicate", "object")):
        if set(wanted) <= set(names):
            return list(wanted)
    if len(names) < 3:
        raise ValueError(
            f"{path}: expected the columns head, relation, tail (or subject, predicate, object, or any three),"
            f" got {', '.join(names) or 'none'}"
        )
    return names[:3]


def _line_fault(status: int, detail: int, separator: str) -> str:
    if status == _NOT_UTF8:
        return f"not UTF-8 (byte {detail + 1} of the line); save the file as UTF-8"
    if status == _WRONG_FIELDS:
        return f"expected 3 fields (head, relation, tail) separated by {_SEPARATORS[separator]}, got {detail}"
    return f"expected a {_FIELDS[detail]}, got an empty field"


def _separator(text: bytes, last: bool, path: Path) -> str:
    """Tab or `|`, whichever the first line that is not blank has twice; '' when that line is not complete yet."""
    for number, line in enumerate(io.BytesIO(text), 1):
        if not line.strip(b"\r\n"):
            continue
        if not last and not line.endswith(b"\n"):
            return ""
        for wanted in ("\t", "|"):
            if line.count(wanted.encode()) == 2:
                return wanted
        for wanted in ("\t", "|"):
            if wanted.encode() in line:
                return wanted  # the parser says how many fields it found
        fault = "expected head, relation and tail separated by tabs or '|', got a line with neither"
        if b"\x00" in line or line.startswith((b"\xff\xfe", b"\xfe\xff")):
            fault = "not UTF-8 text; save the file as UTF-8"
        raise ValueError(f"{path}, line {number}: {fault}")
    return "\t" if last else ""


def _opened(raw: Any, path: Path) -> Any:
    return gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw


def _read_into(stream: Any, view: Any, path: Path) -> int:
    try:
        return int(stream.readinto(view))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzip file: {error}") from error


class _Raw(io.RawIOBase):
    """A stream whose gzip errors name the file."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def readinto(self, view: Any) -> int:
        return _read_into(self._stream, view, self._path)


def paths_of(paths: tuple[str | os.PathLike[str], ...]) -> list[Path]:
    """At least one path."""
    if not paths:
        raise ValueError("tercet.KnowledgeGraph.read: paths must name at least one file")
    return [Path(path) for path in paths]
