"""Labels of dialogues: their format, and real data sets in it."""

from tercet.labeling.converters import CONVERTERS
from tercet.labeling.dialogues import (
    FAILURE_POINTS,
    SPEAKERS,
    TASKS,
    Annotation,
    Audio,
    Dialogue,
    Goal,
    Labels,
    Slot,
    Trace,
    Turn,
)
from tercet.labeling.json_lines import dialogue_from_json, dialogue_to_json
from tercet.labeling.reading import DialogueReader, write_dialogues
from tercet.labeling.summary import Summary

__all__ = [
    "CONVERTERS",
    "FAILURE_POINTS",
    "SPEAKERS",
    "TASKS",
    "Annotation",
    "Audio",
    "Dialogue",
    "DialogueReader",
    "Goal",
    "Labels",
    "Slot",
    "Summary",
    "Trace",
    "Turn",
    "dialogue_from_json",
    "dialogue_to_json",
    "write_dialogues",
]
