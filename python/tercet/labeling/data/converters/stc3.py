"""NTCIR-14 STC-3 (DCH-1): helpdesk dialogues, each annotated by the same 19 people (sakai-lab.github.io/stc3-dataset).

customer and helpdesk become user and system; the utterances of a turn become its text, a line each. Of each annotation:
  goals    one: its turns are those that the annotator found to be of use (any nugget but CNaN, HNaN), unknown where
           there are none; success is a task accomplishment (quality A) above 0
  intents  by turn, the kind of nugget: trigger (CNUG0: the problem stated), goal (HNUG*: a solution stated; CNUG*: a
           solution confirmed), nugget (CNUG, HNUG) or none (CNaN, HNaN)
Annotators are named by their place in the list, which is the same person's in every dialogue. The qualities S and E are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tercet.files import read_json_list
from tercet.labeling.data.converters.layout import find_files, in_layout
from tercet.labeling.data.dialogues import Annotation, Dialogue, Goal, Labels, Turn

_SPEAKERS = {"customer": "user", "helpdesk": "system"}
_NUGGETS = {
    "CNUG0": "trigger",
    "CNUG*": "goal",
    "HNUG*": "goal",
    "CNUG": "nugget",
    "HNUG": "nugget",
    "CNaN": "none",
    "HNaN": "none",
}


def read_stc3(path: Path) -> Iterator[Dialogue]:
    """The dialogues of a file, or of a folder's train_data_en.json; the unannotated test data by its name.

    Raises:
        FileNotFoundError: no such file. ValueError: a file is not laid out as STC-3's.
    """
    for file in find_files(path, "train_data_en.json"):
        for place, record in enumerate(read_json_list(file)):
            with in_layout(file, record.get("id", place) if isinstance(record, dict) else place):
                dialogue = _dialogue(record, file.name.partition("_")[0])
            yield dialogue


def _dialogue(record: Mapping[str, Any], split: str) -> Dialogue:
    turns = tuple(
        Turn(_SPEAKERS[turn["sender"]], "\n".join(text for text in turn["utterances"] if text.strip()))
        for turn in record["turns"]
    )
    annotations = (
        Annotation(f"annotator-{number:02}", _labels(annotation, len(turns)))
        for number, annotation in enumerate(record.get("annotations", ()), 1)
    )
    return Dialogue(record["id"], turns, annotations=tuple(annotations), metadata={"split": split})


def _labels(annotation: Mapping[str, Any], num_turns: int) -> Labels:
    nuggets = [_NUGGETS[nugget] for nugget in annotation["nugget"]]
    if len(nuggets) != num_turns:
        raise ValueError(f"an annotation must have a nugget for each of the {num_turns} turns, got {len(nuggets)}")
    useful = tuple(turn for turn, nugget in enumerate(nuggets) if nugget != "none")
    goal = Goal(useful or None, success=annotation["quality"]["A"] > 0)
    return Labels(goals=(goal,), intents=dict(enumerate(nuggets)))
