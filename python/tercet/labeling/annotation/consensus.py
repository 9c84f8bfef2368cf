"""What annotators say together as targets: Dawid and Skene's posterior of each item that several of them judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tercet.labeling.annotation.agreement import consensus
from tercet.labeling.annotation.judgements import judgements
from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.model.targets import Consensus

_TASKS = ("goals", "defects", "intents", "failure_point")


def consensus_of(dialogues: Callable[[], Iterable[Dialogue]]) -> Consensus:
    """The shares of each item's labels, by task, dialogue and place; of tasks whose labels are names."""
    found = {}
    for task, judged in judgements(dialogues(), _TASKS).items():
        model = consensus(judged)
        for item, shares in zip(judged.item_names, model.posteriors.tolist(), strict=True):
            names = dict(zip(judged.label_names, shares, strict=True))
            found[task, item.dialogue, item.place] = names
    return found
