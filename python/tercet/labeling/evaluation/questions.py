"""What is asked of a model where annotators disagree: items of a task, their gold label, one person's beside it.

Gold is the label of `dialogue.labels` where there is one, and else what two of three annotators say, who are drawn anew
in each of several draws; one more annotator stands for a person's single pass. Within a dialogue the same annotators
speak of all its items, as far as they judged them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.labeling.annotation.judgements import Item, Judgements, Place, answers, judgements
from tercet.labeling.data.dialogues import Dialogue

TASKS_OF_CLASSES = ("goals", "defects", "intents", "failure_point")
NOTHING = -1  # in the place of a label: two of three do not agree, or nobody else judged
_PANEL = 3


@dataclass(frozen=True, eq=False)
class Questions:
    """The items of one task that have a gold label.

    Attributes:
        task: goals (their success), defects, intents or failure_point.
        dialogues: int64 [num_items], ascending: the place of each item's dialogue.
        places: of the items, as `tercet.labeling.answers` names them.
        classes: the names of labels.
        shares: float32 [num_items, num_classes], of all who judged an item; gold alone where there is gold.
        gold: int64 [num_draws, num_items], into classes; NOTHING where no two of three say the same.
        agreed: bool [num_draws, num_items]: whether the three say the same; true of gold labels.
        human: int64 [num_draws, num_items], what one other annotator says; None unless every item has one.
        left_out: how many items have neither gold nor three annotators.
    """

    task: str
    dialogues: Tensor
    places: tuple[Place, ...]
    classes: tuple[str, ...]
    shares: Tensor
    gold: Tensor
    agreed: Tensor
    human: Tensor | None
    left_out: int

    def __len__(self) -> int:
        return len(self.places)


def questions(dialogues: Sequence[Dialogue], task: str, *, draws: int = 20, seed: int = 0) -> Questions | None:
    """The items of a task and what was said of them; None where no item has gold or three annotators.

    Memory follows draws x judgements.

    Args:
        dialogues: with ids that differ.
        task: of TASKS_OF_CLASSES.
        draws: of annotators; a single one where all that counts is gold labels and nobody annotated.
        seed: of the draws.

    Raises:
        ValueError: another task, fewer than one draw, or labels that contradict each other.

    Example:
        >>> from tercet.labeling import Annotation, Labels, Turn
        >>> said = {"ann": (1,), "bob": (1,), "eve": (), "joe": (1,)}
        >>> annotations = tuple(Annotation(name, Labels(defects=defects)) for name, defects in said.items())
        >>> dialogue = Dialogue("1", (Turn("user", "play jazz"), Turn("system", "No.")), annotations=annotations)
        >>> found = questions([dialogue], "defects")
        >>> found.places, found.classes, found.shares[1].tolist(), found.gold[:, 1].unique().tolist()
        (((0,), (1,)), ('none', 'defect'), [0.25, 0.75], [1])
    """
    op = "questions"
    if task not in TASKS_OF_CLASSES:
        raise ValueError(f"tercet.{op}: task must be one of {', '.join(TASKS_OF_CLASSES)}, got {task!r}")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"tercet.{op}: draws must be a positive integer, got {draws!r}")
    said = _joined(dialogues, task)
    if not len(said.items):
        return None
    num_items, num_classes = len(said.item_names), len(said.label_names)
    position = {dialogue.id: place for place, dialogue in enumerate(dialogues)}
    of_dialogue = torch.tensor([position[item.dialogue] for item in said.item_names])

    golden = said.annotators == 0
    has_gold = torch.zeros(num_items, dtype=torch.bool)
    has_gold[said.items[golden]] = True
    sizes = said.items[~golden].bincount(minlength=num_items)
    kept = has_gold | (sizes >= _PANEL)
    if not kept.any():
        return None
    counted = golden | ~has_gold[said.items]
    shares = torch.zeros(num_items * num_classes)
    shares += (said.items * num_classes + said.labels)[counted].bincount(minlength=num_items * num_classes)
    shares = shares.view(num_items, num_classes)

    known = torch.full((num_items,), NOTHING)
    known[said.items[golden]] = said.labels[golden]
    asked = sizes > torch.where(has_gold, 0, _PANEL)
    rounds = draws if len(sizes.nonzero()) else 1
    drawn = [_draw(said, ~golden, of_dialogue, has_gold, known, seed * 1000 + turn) for turn in range(rounds)]
    gold, agreed, human = (torch.stack(part)[:, kept] for part in zip(*drawn, strict=True))
    order = of_dialogue[kept].argsort(stable=True)
    names = [item.place for item, keep in zip(said.item_names, kept.tolist(), strict=True) if keep]
    return Questions(
        task=task,
        dialogues=of_dialogue[kept][order],
        places=tuple(names[place] for place in order.tolist()),
        classes=said.label_names,
        shares=(shares / shares.sum(1, keepdim=True).clamp(min=1))[kept][order],
        gold=gold[:, order],
        agreed=agreed[:, order],
        human=human[:, order] if bool(asked[kept].all()) else None,
        left_out=int((~kept).sum()),
    )


def _joined(dialogues: Sequence[Dialogue], task: str) -> Judgements:
    """What annotators and, as annotator 0, the gold labels say; labels in alphabetical order, the negative first."""
    judged = judgements(dialogues, [task]).get(task)
    empty = torch.zeros(0, dtype=torch.int64)
    if judged is None:
        judged = Judgements(empty, empty, empty, (), (), ())
    items = {item: place for place, item in enumerate(judged.item_names)}
    labels = {name: place for place, name in enumerate(judged.label_names)}
    gold: list[tuple[int, int]] = []
    for dialogue in dialogues:
        given = [dialogue.labels, *(annotation.labels for annotation in dialogue.annotations)]
        for place, label in answers(task, given, len(dialogue.turns))[0].items():
            item = items.setdefault(Item(dialogue.id, place), len(items))
            gold.append((item, labels.setdefault(label, len(labels))))
    columns = torch.tensor(gold, dtype=torch.int64).view(-1, 2).unbind(1)
    names = sorted(labels, key=lambda name: (name not in ("none", "missed"), name))
    renamed = torch.tensor([names.index(name) for name in labels], dtype=torch.int64)
    return Judgements(
        torch.cat([columns[0], judged.items]),
        torch.cat([torch.zeros_like(columns[0]), judged.annotators + 1]),
        renamed[torch.cat([columns[1], judged.labels])],
        tuple(items),
        ("", *judged.annotator_names),
        tuple(names),
    )


def _draw(
    said: Judgements, people: Tensor, of_dialogue: Tensor, has_gold: Tensor, known: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gold, whether the three agree, and the other annotator's label, of each item."""
    items, annotators, labels = said.items[people], said.annotators[people], said.labels[people]
    num_items, num_classes = len(known), len(said.label_names)
    _, pair = (of_dialogue[items] * len(said.annotator_names) + annotators).unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    luck = torch.randperm(int(pair.max()) + 1 if len(pair) else 0, generator=generator)[pair]
    order = (items * (len(luck) + 1) + luck).argsort()
    items, labels = items[order], labels[order]
    starts = torch.nn.functional.pad(items.bincount(minlength=num_items).cumsum(0), (1, 0))[:-1]
    rank = torch.arange(len(items)) - starts[items]

    panel = rank < _PANEL
    votes = (items * num_classes + labels)[panel].bincount(minlength=num_items * num_classes)
    most, label = votes.view(num_items, num_classes).max(1)
    gold = torch.where(has_gold, known, torch.where(most >= 2, label, torch.full_like(label, NOTHING)))
    other = rank == torch.where(has_gold, 0, _PANEL)[items]
    human = torch.full((num_items,), NOTHING)
    human[items[other]] = labels[other]
    return gold, has_gold | (most >= _PANEL), human
