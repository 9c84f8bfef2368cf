"""What a file of dialogues holds, counted while its dialogues pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tercet.labeling.data.dialogues import TASKS, Dialogue, Labels


@dataclass
class TaskCount:
    """Labels of one task.

    Attributes:
        dialogues: in which the task was done, by anybody.
        labels: as known to hold.
        annotated: labels by annotators.
        judged: turns of which all is said, once for each who says it.
        names: how many of both are of each name: intents, slots, failure points; of goals, their success.
    """

    dialogues: int = 0
    labels: int = 0
    annotated: int = 0
    judged: int = 0
    names: Counter[str] = field(default_factory=Counter)


class Summary:
    """Counts of dialogues, turns and labels; `counted` passes dialogues on and counts them.

    Attributes:
        dialogues, turns, user_turns, annotations: how many.
        annotators: their names.
        tasks: counts by task, of those that were done anywhere.

    Memory follows the number of dialogues by their ids alone, which must differ.
    """

    def __init__(self) -> None:
        self.dialogues = self.turns = self.user_turns = self.annotations = 0
        self.annotators: set[str] = set()
        self.tasks: dict[str, TaskCount] = {}
        self._ids: set[str] = set()

    def counted(self, dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
        """The same dialogues. Raises ValueError where two have the same id."""
        for dialogue in dialogues:
            if dialogue.id in self._ids:
                raise ValueError(f"tercet.Summary: ids must differ, got two dialogues with id {dialogue.id!r}")
            self._ids.add(dialogue.id)
            self._add(dialogue)
            yield dialogue

    def to_json(self) -> dict[str, Any]:
        """All counts, tasks in the order of the format."""
        return {
            "dialogues": self.dialogues,
            "turns": self.turns,
            "user_turns": self.user_turns,
            "annotations": self.annotations,
            "annotators": len(self.annotators),
            "tasks": {
                task: {
                    "dialogues": count.dialogues,
                    "labels": count.labels,
                    "annotated": count.annotated,
                    "judged": count.judged,
                    "names": dict(count.names.most_common()),
                }
                for task, count in ((task, self.tasks[task]) for task in TASKS if task in self.tasks)
            },
        }

    def _add(self, dialogue: Dialogue) -> None:
        self.dialogues += 1
        self.turns += len(dialogue.turns)
        self.user_turns += sum(turn.speaker == "user" for turn in dialogue.turns)
        self.annotations += len(dialogue.annotations)
        self.annotators.update(annotation.annotator for annotation in dialogue.annotations)
        done: set[str] = set()
        for number, labels in enumerate((dialogue.labels, *(each.labels for each in dialogue.annotations))):
            for task in labels.tasks():
                done.add(task)
                count, made = self.tasks.setdefault(task, TaskCount()), len(getattr(labels, task))
                count.labels += made if number == 0 else 0
                count.annotated += made if number else 0
                count.judged += len(labels.judged_turns(task, len(dialogue.turns)))
                count.names.update(_names(labels, task))
        for task in done:
            self.tasks[task].dialogues += 1


def _names(labels: Labels, task: str) -> Iterable[str]:
    """The names of the labels of a task, where they have any."""
    if task == "goals":
        words = {True: "reached", False: "missed", None: "not judged"}
        return [words[goal.success] for goal in labels.goals or ()]
    if task == "slots":
        return [slot.name for slot in labels.slots or ()]
    if task == "intents":
        return (labels.intents or {}).values()
    return (labels.failure_point or {}).values() if task == "failure_point" else ()
