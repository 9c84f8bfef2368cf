"""What follows from the training data before anything is learnt: tasks, names, vocabularies, ridge regression."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.data.json_lines import dialogue_to_line
from tercet.labeling.model.batches import Example, turn_summaries
from tercet.labeling.model.features import VocabularyMaker
from tercet.labeling.model.heads import PARTS, WIDE_PARTS, Tasks
from tercet.labeling.model.label_model import Facts
from tercet.labeling.model.predictions import Classes
from tercet.labeling.model.targets import single_goal, sources
from tercet.labeling.model.text import frequent_words, words_of
from tercet.labeling.model.transcribing import EditCounter
from tercet.labeling.model.wide import FOLDS, Hashes, Wide, dialogue_groups, turn_groups
from tercet.labeling.settings import ModelSettings, TrainingSettings

Source = Callable[[], Iterable[Dialogue]]
_PENALTIES, _TURN_PENALTIES = (1.0, 2.0, 4.0), (1.0, 4.0)
_FOLD_RUNS = 4  # of neighbours


def source_of(dialogues: Sequence[Dialogue] | Callable[[], Iterable[Dialogue]]) -> Source:
    """What gives the dialogues anew each time it is called."""
    return dialogues if callable(dialogues) else lambda: dialogues


def is_held_out(dialogue: Dialogue, settings: TrainingSettings) -> bool:
    """Whether a dialogue is not learnt from: it follows from its id and the seed alone."""
    place = zlib.crc32(f"{settings.seed} {dialogue.id}".encode("utf-8", "surrogatepass"))
    return place < settings.held_out * 2**32


class Survey:
    """What one pass over the data finds.

    Attributes:
        facts: of the model to make; ridge regression is left out. dialogues, held_out: how many of each.
        digest: a hash of all dialogues, in their order.
    """

    def __init__(
        self, dialogues: Iterable[Dialogue], settings: TrainingSettings, sizes: ModelSettings, *, labels: bool = True
    ) -> None:
        self.dialogues = self.held_out = 0
        self._vocabulary, self._edits = VocabularyMaker(sizes.feedback), EditCounter()
        self._words: Counter[str] = Counter()
        self._names: dict[str, Counter[str]] = {task: Counter() for task in ("intents", "failure_point", "slots")}
        self._speakers: dict[str, set[str]] = {}
        self._parts: set[str] = set()
        self._single = True
        whole = hashlib.blake2b(digest_size=16)
        for dialogue in dialogues:
            whole.update(dialogue_to_line(dialogue))
            if is_held_out(dialogue, settings):
                self.held_out += 1
                continue
            self.dialogues += 1
            self._vocabulary.add(dialogue)
            if sizes.encoder is None:
                self._words.update(word for turn in dialogue.turns for word in words_of(turn.text))
            if labels:
                self._add_labels(dialogue)
        self.digest = whole.hexdigest()
        words = frequent_words(self._words, sizes.max_words)
        self.facts = Facts(self._tasks() if labels else Tasks(("swapped",)), self._vocabulary.made(), words)

    def _add_labels(self, dialogue: Dialogue) -> None:
        self._single = self._single and single_goal(dialogue)
        for each in sources(dialogue, "goals"):
            goals = each.labels.goals or ()
            if each.labels.judged_turns("goals", len(dialogue.turns)):
                self._parts |= {"begins", "membership"}
                self._parts |= {"success"} if any(goal.turns and goal.success is not None for goal in goals) else set()
            if any(goal.success is not None for goal in goals):
                self._parts.add("whole_success")
        for each in sources(dialogue, "defects"):
            self._add_speakers("defects", dialogue, each.labels.judged_turns("defects", len(dialogue.turns)))
        for task in ("intents", "failure_point"):
            for each in sources(dialogue, task):
                named = getattr(each.labels, task) or {}
                self._names[task].update(named.values())
                self._add_speakers(task, dialogue, named)
        for each in sources(dialogue, "slots"):
            self._names["slots"].update(slot.name for slot in each.labels.slots or ())
        for each in sources(dialogue, "transcription"):
            if each.labels.transcription:
                self._parts.add("transcription")
                self._edits.add(dialogue, each.labels.transcription.items())

    def _add_speakers(self, task: str, dialogue: Dialogue, turns: Iterable[int]) -> None:
        self._speakers.setdefault(task, set()).update(dialogue.turns[turn].speaker for turn in turns)

    def _tasks(self) -> Tasks:
        if not self._single:
            self._parts.discard("whole_success")
        names = {task: tuple(sorted(counts)) for task, counts in self._names.items()}
        parts = self._parts | {task for task, found in names.items() if found}
        parts |= {"defects"} if self._speakers.get("defects") else set()
        return Tasks(
            tuple(part for part in PARTS if part in parts),
            Classes(**names),
            self._edits.made(),
            {task: tuple(sorted(found)) for task, found in sorted(self._speakers.items()) if found},
        )


def fit_wide(
    examples: Sequence[Example], model_tasks: Tasks
) -> tuple[Wide | None, Wide | None, list[tuple[Tensor, Tensor]]]:
    """Ridge regression on dialogues and on turns, and the cross-fitted figures of each example: [1], [T, columns]."""
    whole_figures = torch.zeros(len(examples), 0)
    turn_figures = [torch.zeros(len(example.parts.speakers), 0) for example in examples]
    whole, turns = None, None
    targets = [example.targets for example in examples if example.targets is not None]
    columns = model_tasks.wide_columns()
    if columns:
        every = [groups for example in examples for groups in turn_groups(example.dialogue)]
        parts = [part for part in WIDE_PARTS if part in columns]
        wanted, weights = (
            torch.cat([_stacked([getattr(each, part + end) for part in parts], sizes) for each in targets])
            for end, sizes in (("", None), ("_weight", [columns[part].stop - columns[part].start for part in parts]))
        )
        counts = torch.tensor([len(each.begins) for each in targets])
        folds = torch.repeat_interleave(_folds(len(targets)), counts)
        turns, figures = _fitted(every, wanted, weights, folds, _TURN_PENALTIES)
        turn_figures = list(figures.split(counts.tolist()))
    if "whole_success" in model_tasks.parts:
        groups = [dialogue_groups(example.dialogue) for example in examples]
        wanted = torch.tensor([[each.whole_success] for each in targets])
        weights = torch.tensor([[each.whole_weight] for each in targets])
        folds, extra = _folds(len(examples)), None
        if turns is not None:
            extra = turn_summaries(examples, torch.cat(turn_figures))
        whole, whole_figures = _fitted(groups, wanted, weights, folds, _PENALTIES, extra)
    return whole, turns, list(zip(whole_figures.split(1), turn_figures, strict=True))


def _folds(num_dialogues: int) -> Tensor:
    """The fold of each dialogue. Neighbours in a log are alike, such as one user's, or one sentence that two say: they
    stay together, or weights that were fitted to one would tell the other better than any that is new."""
    runs = [run_of(place, num_dialogues, _FOLD_RUNS * FOLDS) for place in range(num_dialogues)]
    return torch.tensor(runs, dtype=torch.int64) % FOLDS


def run_of(place: int, num_dialogues: int, runs: int) -> int:
    """The run of neighbours that a dialogue belongs to, of so many equally long ones and what is over."""
    return place // max(1, num_dialogues // runs)


def _stacked(values: Sequence[object], sizes: Sequence[int] | None) -> Tensor:
    """Columns side by side; weights are repeated for each class."""
    tensors = [torch.as_tensor(value) for value in values]
    tensors = [value[:, None] if value.ndim == 1 else value for value in tensors]
    if sizes is not None:
        tensors = [value.expand(-1, size) for value, size in zip(tensors, sizes, strict=True)]
    return torch.cat(tensors, 1)


def _fitted(
    groups: Sequence[list[Hashes]],
    wanted: Tensor,
    weights: Tensor,
    folds: Tensor,
    penalties: Sequence[float],
    extra: Tensor | None = None,
) -> tuple[Wide, Tensor]:
    wide = Wide.counted(groups, wanted.shape[1], 0 if extra is None else extra.shape[1])
    return wide, wide.fit(wide.rows(groups), wanted, weights, folds, penalties, extra)


def batches_of(
    source: Callable[[], Iterator[Example]], batch_size: int, buffer: int, order: Callable[[int], list[int]]
) -> Iterator[list[Example]]:
    """Examples in batches, shuffled `buffer` at a time: `order(count)` gives an order of so many."""
    kept: list[Example] = []
    for example in source():
        kept.append(example)
        if len(kept) == buffer:
            yield from _in_order(kept, batch_size, order)
            kept = []
    yield from _in_order(kept, batch_size, order)


def _in_order(examples: list[Example], batch_size: int, order: Callable[[int], list[int]]) -> Iterator[list[Example]]:
    numbers = order(len(examples))
    for start in range(0, len(numbers), batch_size):
        yield [examples[number] for number in numbers[start : start + batch_size]]
