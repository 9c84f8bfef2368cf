"""Dialogues as Parquet: one row each, the members of the JSON as columns, mappings as maps. Needs pyarrow.

Files are written and read row group by row group, so that memory does not follow their size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tercet.labeling.data.dialogues import TASKS, Dialogue
from tercet.labeling.data.json_lines import dialogue_to_json

_GROUP = 1000  # dialogues of a row group


def row_count(path: Path) -> int:
    """How many rows a Parquet file has. Raises as `rows` does."""
    return int(_opened(path).metadata.num_rows)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, each as the JSON of a dialogue.

    Raises:
        ValueError: the file is no Parquet. ImportError: pyarrow is not installed.
    """
    for batch in _opened(path).iter_batches(batch_size=_GROUP):
        yield from rows_of(batch)


def rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a pyarrow.RecordBatch with the columns of such a file, each as the JSON of a dialogue."""
    types = {name: batch.schema.field(name).type for name in batch.schema.names}
    for row in batch.to_pylist():
        json = {name: _to_json(value, types[name]) for name, value in row.items()}
        for turn in json.get("turns") or ():
            _join_audio(turn)
        yield json


def write(path: Path, dialogues: Iterable[Dialogue]) -> None:
    """Write dialogues as a Parquet file, under this very name. Raises ImportError where pyarrow is not installed."""
    pyarrow, parquet = _pyarrow(path)
    schema = _schema(pyarrow)
    remaining = iter(dialogues)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := [dialogue_to_json(dialogue) for dialogue in islice(remaining, _GROUP)]:
            for row in group:
                for turn in row["turns"]:
                    _split_audio(turn)
            columns = [
                pyarrow.array([_to_arrow(row.get(field.name), field.type) for row in group], field.type)
                for field in schema
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow: pip install 'tercet[parquet]'") from error
    return pyarrow, pyarrow.parquet


def _opened(path: Path) -> Any:
    pyarrow, parquet = _pyarrow(path)
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: expected a Parquet file: {error}") from error


def _schema(pa: Any) -> Any:
    """The columns, in the order and with the names of the JSON."""
    text, names = pa.string(), pa.map_(pa.string(), pa.string())
    by_turn = pa.map_(pa.int32(), text)
    tasks = {
        "goals": pa.list_(pa.struct({"turns": pa.list_(pa.int32()), "success": pa.bool_()})),
        "defects": pa.list_(pa.int32()),
        "intents": by_turn,
        "slots": pa.list_(pa.struct({"turn": pa.int32(), "start": pa.int32(), "end": pa.int32(), "name": text})),
        "transcription": by_turn,
        "failure_point": by_turn,
    }
    labels = {task: tasks[task] for task in TASKS} | {"judged": pa.map_(text, pa.list_(pa.int32()))}
    trace = {"n_best": pa.list_(text), "scores": pa.list_(pa.float64()), "decision": text}
    turn = {
        "speaker": text,
        "text": text,
        "time": pa.float64(),
        "categorical": names,
        "numeric": pa.map_(text, pa.float64()),
        "traces": pa.map_(text, pa.struct(trace)),
        "feedback": pa.map_(text, pa.bool_()),
        "audio": pa.struct({"path": text, "samples": pa.list_(pa.float32()), "rate": pa.int32()}),
    }
    shares = pa.map_(text, pa.list_(pa.float64()))
    annotation = {"annotator": text, **labels, "confidence": shares, "weight": shares}
    return pa.schema(
        {
            "id": text,
            "turns": pa.list_(pa.struct(turn)),
            "labels": pa.struct(labels),
            "annotations": pa.list_(pa.struct(annotation)),
            "metadata": names,
        }
    )


def _to_arrow(value: Any, kind: Any) -> Any:
    """A value of the JSON as pyarrow takes it: mappings become pairs, whose keys have the type of the map's."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_map(kind):
        key = int if types.is_integer(kind.key_type) else str
        return [(key(name), _to_arrow(member, kind.item_type)) for name, member in value.items()]
    if types.is_struct(kind):
        return {field.name: _to_arrow(value.get(field.name), field.type) for field in kind}
    if types.is_list(kind):
        return [_to_arrow(item, kind.value_type) for item in value]
    return value


def _to_json(value: Any, kind: Any) -> Any:
    """A value that pyarrow gave as it stands in the JSON; what is null in a struct is left out."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_map(kind):
        return {str(name): _to_json(member, kind.item_type) for name, member in value}
    if types.is_struct(kind):
        return {field.name: _to_json(value[field.name], field.type) for field in kind if value[field.name] is not None}
    if types.is_list(kind) or types.is_large_list(kind):
        return [_to_json(item, kind.value_type) for item in value]
    return value


def _split_audio(turn: dict[str, Any]) -> None:
    if isinstance(turn.get("audio"), str):
        turn["audio"] = {"path": turn["audio"]}


def _join_audio(turn: Any) -> None:
    audio = turn.get("audio") if isinstance(turn, dict) else None
    if isinstance(audio, dict) and "path" in audio:
        turn["audio"] = audio["path"] if len(audio) == 1 else audio
