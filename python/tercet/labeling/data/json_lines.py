"""A dialogue as JSON: one object, one line. Fields that are empty or not known are left out; null is read as left out.

`labels` and each of `annotations` (which also has `annotator` and may have `confidence`) hold tasks; mappings by turn
have the turn's number as their key, `"intents": {"2": "play"}`; `judged`, `confidence` and `weight` hold lists by task,
`"judged": {"defects": [1, 3]}`; `audio` is a path, or `{"samples": [...], "rate": N}`.
"""

from __future__ import annotations

import difflib
import json
from array import array
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from tercet.labeling.data.dialogues import (
    JUDGED,
    PREFIX,
    TASKS,
    Annotation,
    Audio,
    Dialogue,
    Goal,
    Labels,
    Slot,
    Trace,
    Turn,
    fail,
)

_T = TypeVar("_T")
_KNOWN = {kind: tuple(f.name for f in fields(kind)) for kind in (Dialogue, Turn, Trace, Goal, Slot, Labels)}
_ANNOTATION = ("annotator", *_KNOWN[Labels], "confidence", "weight")
_JSON_NAMES = {
    dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


def dialogue_from_line(line: bytes) -> Dialogue:
    """The dialogue in a line of JSON.

    Raises:
        ValueError: `tercet.Dialogue: FIELD must ...`.
    """
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
        if b"\\u" in line:  # half of a surrogate pair cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        fail(f"a line must be UTF-8: {error}")
    except ValueError as error:
        if str(error).startswith(PREFIX):
            raise
        fail(f"a line must be one JSON object: {error}")
    except RecursionError:
        fail("a line must be one JSON object, got one too deep to read")
    return dialogue_from_json(value)


def dialogue_to_line(dialogue: Dialogue) -> bytes:
    """The line of JSON of a dialogue, with its end."""
    return json.dumps(dialogue_to_json(dialogue), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def dialogue_from_json(value: object) -> Dialogue:
    """The dialogue in a decoded JSON object.

    Raises:
        ValueError: `tercet.Dialogue: FIELD must ...`; a field that the format does not have is an error.

    Example:
        >>> dialogue_from_json({"id": "1", "turns": [{"speaker": "user", "text": "stop"}]}).turns[0].text
        'stop'
    """
    if not isinstance(value, dict):
        fail(f"a dialogue must be an object, got {_shown(value)}")
    given = _object(value, "", _KNOWN[Dialogue])
    return Dialogue(
        id=_text(_required(given, "", "id"), "id"),
        turns=_list(_required(given, "", "turns"), "turns", _turn),
        labels=_labels(_object(given.get("labels", {}), "labels", _KNOWN[Labels]), "labels"),
        annotations=_list(given.get("annotations", []), "annotations", _annotation),
        metadata=_mapping(given.get("metadata", {}), "metadata", _text),
    )


def dialogue_to_json(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue as an object that `json` can write; what is empty or not known is left out."""
    annotations = [
        {"annotator": each.annotator, **_labels_to_json(each.labels)}
        | _filled(confidence=_lists(each.confidence), weight=_lists(each.weight))
        for each in dialogue.annotations
    ]
    return {
        "id": dialogue.id,
        "turns": [_turn_to_json(turn) for turn in dialogue.turns],
        **_filled(
            labels=_labels_to_json(dialogue.labels), annotations=annotations, metadata=dict(dialogue.metadata)
        ),
    }  # fmt: skip


def _turn(value: object, where: str) -> Turn:
    given = _object(value, where, _KNOWN[Turn])
    return Turn(
        speaker=_text(_required(given, where, "speaker"), f"{where}.speaker"),
        text=_text(_required(given, where, "text"), f"{where}.text"),
        time=_optional(given, where, "time", _number),
        categorical=_mapping(given.get("categorical", {}), f"{where}.categorical", _text),
        numeric=_mapping(given.get("numeric", {}), f"{where}.numeric", _number),
        traces=_mapping(given.get("traces", {}), f"{where}.traces", _trace),
        feedback=_mapping(given.get("feedback", {}), f"{where}.feedback", _flag),
        audio=_optional(given, where, "audio", _audio),
    )


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    audio: object = None
    if turn.audio is not None:
        path, samples = turn.audio.path, turn.audio.samples
        audio = path if samples is None else {"samples": samples.tolist(), "rate": turn.audio.rate}
    return {"speaker": turn.speaker, "text": turn.text} | _filled(
        time=turn.time,
        categorical=dict(turn.categorical),
        numeric=dict(turn.numeric),
        traces={
            name: _filled(n_best=list(trace.n_best), scores=list(trace.scores), decision=trace.decision)
            for name, trace in turn.traces.items()
        },
        feedback=dict(turn.feedback),
        audio=audio,
    )


def _trace(value: object, where: str) -> Trace:
    given = _object(value, where, _KNOWN[Trace])
    return Trace(
        n_best=_list(given.get("n_best", []), f"{where}.n_best", _text),
        scores=_list(given.get("scores", []), f"{where}.scores", _number),
        decision=_optional(given, where, "decision", _text),
    )


def _audio(value: object, where: str) -> Audio:
    if isinstance(value, str):
        return Audio(path=value)
    if not isinstance(value, dict):
        fail(f"{where} must be a path or an object with samples and rate, got {_shown(value)}")
    given = _object(value, where, ("samples", "rate"))
    samples = _list(_required(given, where, "samples"), f"{where}.samples", _number)
    return Audio(samples=array("f", samples), rate=_integer(_required(given, where, "rate"), f"{where}.rate"))


def _annotation(value: object, where: str) -> Annotation:
    given = _object(value, where, _ANNOTATION)
    return Annotation(
        annotator=_text(_required(given, where, "annotator"), f"{where}.annotator"),
        labels=_labels(given, where),
        confidence=_by_task(given, where, "confidence", (*TASKS, "success"), _number),
        weight=_by_task(given, where, "weight", ("defects",), _number),
    )


def _by_task(
    given: Mapping[str, object], where: str, name: str, known: tuple[str, ...], parse: Callable[[object, str], _T]
) -> dict[str, tuple[_T, ...]]:
    """The lists of a member `name` that has some for each task."""
    where = f"{where}.{name}"
    lists = _object(given.get(name, {}), where, known)
    return {task: _list(values, f"{where}.{task}", parse) for task, values in lists.items()}


def _lists(by_task: Mapping[str, tuple[object, ...]]) -> dict[str, list[object]]:
    return {task: list(values) for task, values in by_task.items()}


def _labels(given: Mapping[str, object], where: str) -> Labels:
    return Labels(
        goals=_optional(given, where, "goals", lambda value, at: _list(value, at, _goal)),
        defects=_optional(given, where, "defects", lambda value, at: _list(value, at, _integer)),
        intents=_optional(given, where, "intents", _by_turn),
        slots=_optional(given, where, "slots", lambda value, at: _list(value, at, _slot)),
        transcription=_optional(given, where, "transcription", _by_turn),
        failure_point=_optional(given, where, "failure_point", _by_turn),
        judged=_by_task(given, where, "judged", JUDGED, _integer),
    )


def _labels_to_json(labels: Labels) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for task in labels.tasks():
        value = getattr(labels, task)
        if task == "goals":
            value = [
                ({} if goal.turns is None else {"turns": list(goal.turns)})
                | ({} if goal.success is None else {"success": goal.success})
                for goal in value
            ]
        elif task == "slots":
            value = [{name: getattr(slot, name) for name in _KNOWN[Slot]} for slot in value]
        elif isinstance(value, Mapping):
            value = {str(turn): name for turn, name in value.items()}
        written[task] = value if isinstance(value, dict) else list(value)
    return written | _filled(judged=_lists(labels.judged))


def _goal(value: object, where: str) -> Goal:
    given = _object(value, where, _KNOWN[Goal])
    turns = _optional(given, where, "turns", lambda numbers, at: _list(numbers, at, _integer))
    return Goal(turns, _optional(given, where, "success", _flag))


def _slot(value: object, where: str) -> Slot:
    given = _object(value, where, _KNOWN[Slot])
    turn, start, end = (_integer(_required(given, where, name), f"{where}.{name}") for name in ("turn", "start", "end"))
    return Slot(turn, start, end, _text(_required(given, where, "name"), f"{where}.name"))


def _by_turn(value: object, where: str) -> dict[int, str]:
    named = _mapping(value, where, _text)
    for key in named:
        if not (key.isascii() and key.isdigit() and str(int(key)) == key):
            fail(f"{where} must have turn numbers as keys, got {key!r}")
    return {int(key): name for key, name in named.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; json alone would keep the last of those that share a name and drop the others."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        fail(f"an object must name each field once, got {next(n for n in names if names.count(n) > 1)!r} twice")
    return members


def _filled(**members: object) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None and value not in ({}, [])}


def _object(value: object, where: str, known: tuple[str, ...]) -> dict[str, object]:
    """The members that are not null, whose names are all known."""
    if not isinstance(value, dict):
        fail(f"{where} must be an object, got {_shown(value)}")
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            fail(f"{where}{'.' if where else ''}{name} is not a field of the format; {hint}")
    return {name: member for name, member in value.items() if member is not None}


def _required(given: Mapping[str, object], where: str, name: str) -> object:
    if name not in given:
        fail(f"{where}{'.' if where else ''}{name} is missing")
    return given[name]


def _optional(given: Mapping[str, object], where: str, name: str, parse: Callable[[object, str], _T]) -> _T | None:
    return parse(given[name], f"{where}.{name}") if name in given else None


def _list(value: object, where: str, parse: Callable[[object, str], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        fail(f"{where} must be a list, got {_shown(value)}")
    return tuple(parse(item, f"{where}[{index}]") for index, item in enumerate(value))


def _mapping(value: object, where: str, parse: Callable[[object, str], _T]) -> dict[str, _T]:
    if not isinstance(value, dict):
        fail(f"{where} must be an object, got {_shown(value)}")
    return {name: parse(item, f"{where}.{name}") for name, item in value.items()}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        fail(f"{where} must be text, got {_shown(value)}")
    return value


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        fail(f"{where} must be an integer, got {_shown(value)}")
    return value


def _number(value: object, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        fail(f"{where} must be a number, got {_shown(value)}")
    try:
        return float(value)
    except OverflowError:
        fail(f"{where} must be finite, got an integer beyond any float")


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        fail(f"{where} must be true or false, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A value for a message: itself where it is short."""
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    return shown if len(shown) <= 60 else _JSON_NAMES.get(type(value), type(value).__name__)
