"""DSTC2 with live recognition: data.dstc2.{train,dev,test}.json, and dstc2_SPLIT.flist with recording conditions.

Each exchange becomes a system turn (the prompt) and a user turn, whose text is what was recognised live:
  inputs     traces.recognition and numeric.recognition_score (a log-probability) of the user turn; its categorical
             dialogue_manager (S0, S1, S2) and acoustic_model (A0, A1), both parts of the condition's name
  labels     transcription of every user turn: what a person heard
  metadata   split, caller, condition, group (the acoustic model), and goal_state at the end (food, area, price range)
The goal state was annotated and names what callers said, so it is no input; nor is the caller, whom a model could learn
by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tercet.files import read_json_list
from tercet.labeling.data.converters.layout import find_files, in_layout
from tercet.labeling.data.dialogues import Dialogue, Labels, Trace, Turn


def read_dstc2(path: Path) -> Iterator[Dialogue]:
    """The dialogues of a file, or of all data.dstc2.*.json of a folder that hold calls.

    Raises:
        FileNotFoundError: no such file. ValueError: a file is not laid out as expected.
    """
    for file in find_files(path, *(f"data.dstc2.{split}.json" for split in ("train", "dev", "test"))):
        split = file.stem.rpartition(".")[2]
        conditions = _conditions(file.with_name(f"dstc2_{split}.flist"))
        for place, record in enumerate(read_json_list(file)):
            with in_layout(file, record.get("session-id", place) if isinstance(record, dict) else place):
                call = record["session-id"]
                dialogue = _dialogue(call, record["turns"], split, conditions.get(call))
            yield dialogue


def _conditions(path: Path) -> dict[str, str]:
    """The recording condition of each call, from lines CONDITION/CALL; nothing where there is no such file."""
    lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return {call: condition for condition, _, call in (line.rpartition("/") for line in lines)}


def _dialogue(call: str, exchanges: Sequence[Sequence[Any]], split: str, condition: str | None) -> Dialogue:
    turns: list[Turn] = []
    said: dict[int, str] = {}
    name = (condition or "").rpartition("_")[2]  # e.g. S0A1
    known = {"dialogue_manager": name[:2], "acoustic_model": name[2:]} if len(name) == 4 else {}
    for prompt, transcript, recognised, score, _ in exchanges:
        turns.append(Turn("system", prompt))
        said[len(turns)] = transcript
        turns.append(
            Turn(
                "user",
                recognised,
                categorical=known,
                numeric={"recognition_score": float(score)},
                traces={"recognition": Trace((recognised,), (float(score),), recognised)},
            )
        )
    metadata = {"split": split, "caller": call.split("-")[1]}
    if exchanges:
        *food, area, price = exchanges[-1][4].split()
        metadata["goal_state"] = f"food={' '.join(food)}, area={area}, pricerange={price}"
    if condition is not None:
        metadata |= {"condition": condition, "group": name[2:]}
    return Dialogue(call, tuple(turns), Labels(transcription=said), metadata=metadata)
