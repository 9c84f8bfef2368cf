"""Annotations as judgements: who said what of which item. The one place that says what an item of each task is.

task            an item is                                          its labels
goals           a dialogue where nobody names more than one goal,   reached, missed
                else the goals of a dialogue with the same turns
defects         a turn that was judged                              defect, none
slots           a span of a turn's text that somebody named         the name; empty where one judged the turn and did
                                                                    not name it
intents, transcription, failure_point: a turn that was labelled     the name or text
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import TASKS, Dialogue, Goal, Labels, Slot

Place = tuple[int, ...]


class Item(NamedTuple):
    """A question of one task that was put to annotators.

    Attributes:
        dialogue: its id.
        place: () the dialogue, (turn,), (turn, start, end) of a slot, or the turns of a goal.
    """

    dialogue: str
    place: Place


@dataclass(frozen=True, eq=False)
class Judgements:
    """What annotators said in one task, each of an item once: what `dawid_skene` takes, and what the ids stand for.

    Attributes:
        items, annotators, labels: int64 [num_judgements], ids.
        item_names, annotator_names, label_names: by id; every one is in use.
    """

    items: Tensor
    annotators: Tensor
    labels: Tensor
    item_names: tuple[Item, ...]
    annotator_names: tuple[str, ...]
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)


def answers(task: str, given: Sequence[Labels], num_turns: int) -> list[dict[Place, str]]:
    """The label of each item, once for each of `given`: labels of the same dialogue, of annotators, of gold or a model.

    What is an item may depend on all of them: see the module. Goals whose success, or where turns are needed whose
    turns, are not known are left out; so is everything of labels that lack the task. Several slots of the same span are
    one label, their names joined by +. A turn that labels do not judge is no item of theirs.

    Raises:
        ValueError: the same labels call goals of the same turns reached and missed.

    Example:
        >>> answers("defects", [Labels(defects=(1,)), Labels(defects=())], num_turns=2)
        [{(0,): 'none', (1,): 'defect'}, {(0,): 'none', (1,): 'none'}]
    """
    values = [getattr(labels, task) for labels in given]
    if task == "goals":
        whole = all(len(goals) < 2 for goals in values if goals)
        return [_outcomes(goals or (), whole) for goals in values]
    if task == "defects":
        return [
            {
                (turn,): "defect" if turn in (labels.defects or ()) else "none"
                for turn in labels.judged_turns(task, num_turns)
            }
            for labels in given
        ]
    if task == "slots":
        spans = sorted({(slot.turn, slot.start, slot.end) for slots in values for slot in slots or ()})
        found = [{span: _names(slots or (), span) for span in spans} for slots in values]
        judged = [set(labels.judged_turns(task, num_turns)) for labels in given]
        return [
            {span: name for span, name in names.items() if name or span[0] in turns}
            for names, turns in zip(found, judged, strict=True)
        ]
    return [{(turn,): name for turn, name in (names or {}).items()} for names in values]


def judgements(dialogues: Iterable[Dialogue], tasks: Iterable[str] = TASKS) -> dict[str, Judgements]:
    """The judgements of all annotators, by task; tasks that nobody judged are absent. Gold labels are left out, and
    weak ones, which have a weight.

    Memory follows the number of judgements, not the dialogues, which are read once.

    Raises:
        ValueError: one annotator calls goals of the same turns reached and missed.
    """
    columns = {task: _Columns() for task in tasks}
    for dialogue in dialogues:
        for task, into in columns.items():
            ids: dict[Place, int] = {}  # of this dialogue alone
            for place, annotator, label in _of_dialogue(dialogue, task):
                if place not in ids:
                    ids[place] = len(into.item_names)
                    into.item_names.append(Item(dialogue.id, place))
                into.items.append(ids[place])
                into.annotators.append(into.annotator_ids.setdefault(annotator, len(into.annotator_ids)))
                into.labels.append(into.label_ids.setdefault(label, len(into.label_ids)))
    return {task: each.joined() for task, each in columns.items() if each.items}


def _of_dialogue(dialogue: Dialogue, task: str) -> Iterator[tuple[Place, str, str]]:
    """What each annotator said, once where they said it in several annotations."""
    made = [each for each in dialogue.annotations if each.judges(task)]
    try:
        found = answers(task, [each.labels for each in made], len(dialogue.turns))
    except ValueError as error:
        raise ValueError(f"tercet.judgements: dialogue {dialogue.id!r}: {error}") from error
    merged: dict[str, dict[Place, str]] = {}
    for annotation, labels in zip(made, found, strict=True):
        merged.setdefault(annotation.annotator, {}).update(labels)
    for annotator, labels in merged.items():
        for place, label in labels.items():
            yield place, annotator, label


def _outcomes(goals: Iterable[Goal], whole: bool) -> dict[Place, str]:
    found: dict[Place, str] = {}
    for goal in goals:
        place = () if whole else goal.turns
        if place is None or goal.success is None:
            continue
        outcome = "reached" if goal.success else "missed"
        if found.setdefault(place, outcome) != outcome:
            raise ValueError(f"goals must not call the turns {list(place)} both reached and missed")
    return found


def _names(slots: Iterable[Slot], span: Place) -> str:
    return "+".join(sorted({slot.name for slot in slots if (slot.turn, slot.start, slot.end) == span}))


class _Columns:
    """Judgements of a task while they grow."""

    def __init__(self) -> None:
        self.items, self.annotators, self.labels = array("q"), array("q"), array("q")
        self.item_names: list[Item] = []
        self.annotator_ids: dict[str, int] = {}
        self.label_ids: dict[str, int] = {}

    def joined(self) -> Judgements:
        items, annotators, labels = (
            torch.frombuffer(column, dtype=torch.int64) for column in (self.items, self.annotators, self.labels)
        )
        names = tuple(self.item_names), tuple(self.annotator_ids), tuple(self.label_ids)
        return Judgements(items, annotators, labels, *names)
