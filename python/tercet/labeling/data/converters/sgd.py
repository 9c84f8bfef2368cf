"""Schema-Guided Dialogue (Rastogi et al., AAAI 2020, arXiv 1909.05855): services, intents, slots, results.

Inputs: of system turns, their service and acts (joined by +), which the system knows; user turns have their text alone,
for all that is annotated there is what is to be found. Labels:
  goals    one for each service and intent that the state names as active: the user turns in which it is active, and the
           system turns that follow these in the same service. Where an intent is announced again after its success, a
           new goal begins; after a failure it is the same one, tried again. Success is what came last of: the system
           notifies success or failure; the user selects what the goal's last offer was, also where the state has gone
           over to the next intent. A goal without any of them is missed.
  intents  of user turns: the active intent, the announced one where two are active; NONE where there is none
  slots    of all turns: every annotated span (the values of categorical slots have none)
The id is SPLIT/dialogue_id, since numbers start again in each split; SPLIT is the name of the file's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.files import read_json_list
from tercet.labeling.data.converters.layout import find_files, in_layout
from tercet.labeling.data.dialogues import Dialogue, Goal, Labels, Slot, Turn

_SPEAKERS = {"USER": "user", "SYSTEM": "system"}


def read_sgd(path: Path) -> Iterator[Dialogue]:
    """The dialogues of a file, of a split's folder, or of all splits in a folder.

    Raises:
        FileNotFoundError: no dialogues_*.json there. ValueError: a file is not laid out as SGD's.
    """
    for file in find_files(path, "dialogues_*.json", "*/dialogues_*.json"):
        split = file.resolve().parent.name
        for place, record in enumerate(read_json_list(file)):
            with in_layout(file, record.get("dialogue_id", place) if isinstance(record, dict) else place):
                dialogue = _dialogue(record, split)
            yield dialogue


def _dialogue(record: Mapping[str, Any], split: str) -> Dialogue:
    turns = record["turns"]
    slots = tuple(
        Slot(number, slot["start"], slot["exclusive_end"], slot["slot"])
        for number, turn in enumerate(turns)
        for frame in turn["frames"]
        for slot in frame["slots"]
    )
    intents = {number: _intent(turn) for number, turn in enumerate(turns) if turn["speaker"] == "USER"}
    return Dialogue(
        f"{split}/{record['dialogue_id']}",
        tuple(Turn(_SPEAKERS[turn["speaker"]], turn["utterance"], categorical=_known(turn)) for turn in turns),
        Labels(goals=_goals(turns), intents=intents, slots=slots),
        metadata={"split": split, "services": " ".join(record["services"])},
    )


def _acts(frame: Mapping[str, Any]) -> list[str]:
    return [action["act"] for action in frame["actions"]]


def _known(turn: Mapping[str, Any]) -> dict[str, str]:
    """What the system knows of its own turn."""
    if turn["speaker"] == "USER" or not turn["frames"]:
        return {}
    acts = sorted({act for frame in turn["frames"] for act in _acts(frame)})
    return {"service": turn["frames"][0]["service"], "acts": "+".join(acts)}


def _intent(turn: Mapping[str, Any]) -> str:
    active = [frame for frame in turn["frames"] if frame["state"]["active_intent"] != "NONE"]
    announced = [frame for frame in active if "INFORM_INTENT" in _acts(frame)]
    chosen = announced or active
    return str(chosen[0]["state"]["active_intent"]) if chosen else "NONE"


@dataclass
class _Goal:
    service: str
    turns: list[int] = field(default_factory=list)
    success: bool = False


def _goals(turns: Sequence[Mapping[str, Any]]) -> tuple[Goal, ...]:
    goals: list[_Goal] = []
    current: dict[tuple[str, str], _Goal] = {}  # by service and intent
    offered: dict[str, _Goal] = {}  # by service, whose offer is the last
    active: list[_Goal] = []
    for number, turn in enumerate(turns):
        if turn["speaker"] == "USER":
            active = []
        for frame in turn["frames"]:
            service, acts = frame["service"], _acts(frame)
            if turn["speaker"] == "USER":
                if "SELECT" in acts and service in offered:
                    offered[service].success = True
                intent = frame["state"]["active_intent"]
                if intent == "NONE":
                    continue
                goal = current.get((service, intent))
                if goal is None or (goal.success and "INFORM_INTENT" in acts):
                    goal = current[service, intent] = _Goal(service)
                    goals.append(goal)
                active.append(goal)
                goal.turns.append(number)
                continue
            for goal in active:
                if goal.service == service:
                    goal.turns.append(number)
                    if "OFFER" in acts:
                        offered[service] = goal
                    if "NOTIFY_SUCCESS" in acts or "NOTIFY_FAILURE" in acts:
                        goal.success = "NOTIFY_SUCCESS" in acts
    return tuple(Goal(tuple(goal.turns), goal.success) for goal in goals)
