"""Goals, intents and slots of Schema-Guided Dialogue: what context and pre-training give a label model.

    python benchmarks/bench_labels_sgd.py --work WORK [--systems full,pretrained,no_ridge,no_context] [--epochs N]

trains on dev and tests on test; its train split is not at hand. A share of the labels is that of whole dialogues, the
same ones for all systems, each share within the next; a smaller one is gone over more often, three times as often at
most. Systems:

- full: the label model.
- pretrained: the same after pre-training on all of dev without its labels (answers swapped between dialogues).
- no_ridge: the label model without its ridge regression on words, whose features reach into neighbouring turns.
- no_context: the same encoder, and every turn by itself: neither ridge regression nor blocks over the dialogue.
- one_goal: no model: every dialogue is one goal of all its turns.

Names of services are no input: most turns of test are of services that dev lacks, and a model would learn dev's by
heart. Acts of the system are. So context gives no_ridge less no_context. Intents of test that dev does not name can
only be wrong: accuracy is told of the turns whose intent dev names, too; the same of slots. Figures are sums over
dialogues; intervals are of a paired bootstrap over dialogues. What WORK holds is not measured again. Each system has
one run of one seed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from label_protocols import (
    counts_of,
    difference,
    interval,
    machine,
    measured,
    parser_of,
    read,
    rows,
    set_up,
    settings_of,
)
from tercet.files import write_json, write_text
from tercet.labeling import Dialogue, Goal, Labels
from tercet.labeling.evaluation.metrics import f1, label_counts, recall
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import decide
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.train import train

SHARES = (0.05, 0.2, 1.0)
MOST_ROUNDS = 3  # times the epochs, for fewer dialogues
BATCH = 4  # dialogues, which are long: 1,348 of them make few steps
RATE = 4e-3
SIZES = ModelSettings(dropout=0.1)  # thousands of labels of every task need no more
SYSTEMS = {
    "full": (SIZES, SHARES),
    "pretrained": (SIZES, SHARES),
    "no_ridge": (replace(SIZES, wide=False), (1.0,)),
    "no_context": (replace(SIZES, wide=False, dialogue_layers=0), (1.0,)),
}
FIGURES = {
    "goal_boundary": f1,
    "goal_membership": f1,
    "intents": recall,
    "intents of dev": recall,
    "slots": f1,
    "slots of dev": f1,
    "slot_values": f1,
    "slot_values of dev": f1,
}
TITLES = ("goal boundary F1", "goal membership F1", "intent accuracy", "of dev's intents", "slot F1", "of dev's slots",
          "slot value F1", "of dev's slots")  # fmt: skip


def counts(test: Sequence[Dialogue], said: Sequence[Labels], known: tuple[set[str], set[str]]) -> dict[str, Any]:
    """Counts of FIGURES by dialogue; `known` intents and slots are those of dev."""
    found: dict[str, list[list[float]]] = {name: [] for name in FIGURES}
    for dialogue, labels in zip(test, said, strict=True):
        for name in FIGURES:
            what, _, part = name.partition(" ")
            gold, own = dialogue.labels, labels
            if part:
                gold, own = _known(gold, known), _known(own, known)
            each = label_counts(what, gold, own, dialogue.turns)
            found[name].append([0.0] * 3 if each is None else each.tolist())
    return found


def _known(labels: Labels, known: tuple[set[str], set[str]]) -> Labels:
    intents = {turn: name for turn, name in (labels.intents or {}).items() if name in known[0]}
    return replace(labels, intents=intents, slots=tuple(slot for slot in labels.slots or () if slot.name in known[1]))


def without_service(dialogue: Dialogue) -> Dialogue:
    """The same, not knowing which services the system used."""
    turns = (
        replace(turn, categorical={name: value for name, value in turn.categorical.items() if name != "service"})
        for turn in dialogue.turns
    )
    return replace(dialogue, turns=tuple(turns))


def share_of(dialogues: Sequence[Dialogue], share: float, seed: int) -> list[Dialogue]:
    """The first part of one order of the dialogues."""
    order = torch.randperm(len(dialogues), generator=torch.Generator().manual_seed(seed)).tolist()
    return [dialogues[place] for place in order[: round(share * len(dialogues))]]


class Bench:
    """Systems that are measured once."""

    def __init__(self, dev: list[Dialogue], test: list[Dialogue], work: Path, training: TrainingSettings) -> None:
        self.dev, self.test, self.work, self.training = dev, test, work, training
        names = {name for dialogue in dev for name in (dialogue.labels.intents or {}).values()}
        self.known = names, {slot.name for dialogue in dev for slot in dialogue.labels.slots or ()}
        self.start: LabelModel | None = None

    def measure(self, system: str, share: float) -> dict[str, Any]:
        """Train and test, unless that was done."""
        sizes, _ = SYSTEMS[system]
        own = share_of(self.dev, share, self.training.seed)
        training = replace(self.training, epochs=round(self.training.epochs * min(MOST_ROUNDS, 1 / share)))
        settings = {**settings_of(training, sizes), "dialogues": len(own)}

        def run() -> dict[str, Any]:
            start = self._pretrained(sizes) if system == "pretrained" else None
            begun = time.perf_counter()
            model = train(own, training, sizes, start=start).model
            said = [decide(each, model.classes).labels for each in model.predict(self.test)]
            return {"seconds": time.perf_counter() - begun, "counts": counts(self.test, said, self.known)}

        return measured(self.work / f"{system} {share:g}.json", settings, run)

    def one_goal(self) -> dict[str, Any]:
        """No model."""
        said = [Labels(goals=(Goal(tuple(range(len(dialogue.turns)))),)) for dialogue in self.test]
        return {"counts": counts(self.test, said, self.known)}

    def _pretrained(self, sizes: ModelSettings) -> LabelModel:
        if self.start is None:
            from tercet.labeling.training.pretraining import pretrain

            bare = [replace(dialogue, labels=Labels()) for dialogue in self.dev]
            self.start = pretrain(bare, self.training, sizes).model
        return self.start


def results(found: dict[tuple[str, float], dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """Figures of every system and the differences that the protocol asks for."""
    systems = {f"{name} {share:g}": each for (name, share), each in found.items()} | {"one_goal": bench.one_goal()}
    made: dict[str, Any] = {
        "test_dialogues": len(bench.test),
        "systems": {
            name: {what: float(figure(counts_of(each, what).sum(0))) for what, figure in FIGURES.items()}
            for name, each in systems.items()
        },
    }
    made["systems"]["one_goal"] = {
        name: value for name, value in made["systems"]["one_goal"].items() if name.startswith("goal")
    }
    pairs = [("context", "no_ridge", "no_context", 1.0)]
    pairs += [(f"pre-training at {share:.0%} of labels", "pretrained", "full", share) for share in SHARES]
    made["differences"] = {
        title: {
            what: difference(counts_of(found[ours, share], what), counts_of(found[theirs, share], what), figure)
            for what, figure in FIGURES.items()
        }
        for title, ours, theirs, share in pairs
        if (ours, share) in found and (theirs, share) in found
    }
    made["seconds"] = {f"{name} {share:g}": round(each["seconds"], 1) for (name, share), each in found.items()}
    return made


def markdown(made: dict[str, Any]) -> str:
    """Tables of `results`."""
    lines = [
        "# Goals, intents and slots of Schema-Guided Dialogue",
        "",
        f"Trained on dev, tested on the {made['test_dialogues']:,} dialogues of test; one run of each system, of one"
        " seed. Numbers behind names are shares of dev's labels. What systems are: `benchmarks/bench_labels_sgd.py`."
        " Differences have a 95 % interval of a paired bootstrap over dialogues: it tells chance in test, not in"
        " training.",
        "",
        f"- machine: {made['machine']}, shared with other work",
        f"- command: `{made['command']}`",
        "",
        *rows(("system", *TITLES), [
            (name, *(each.get(what, "") for what in FIGURES)) for name, each in made["systems"].items()
        ]),
        "",
        *rows(("gain of", *TITLES), [
            (name, *(interval(each[what]) for what in FIGURES)) for name, each in made["differences"].items()
        ]),
        "",
    ]  # fmt: skip
    for name, each in made["differences"].items():
        shown = [title for title, what in zip(TITLES, FIGURES, strict=True) if each[what]["low"] > 0]
        lost = [title for title, what in zip(TITLES, FIGURES, strict=True) if each[what]["high"] < 0]
        told = f"- {name}: a gain beyond chance in {', '.join(shown) or 'nothing'}"
        lines.append(told + (f"; a loss in {', '.join(lost)}." if lost else "."))
    lines += [
        "",
        "Pre-training sees the dialogues of dev and no further ones, and what it asks is of turns, not of words.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = parser_of(__doc__, "sgd")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="commas between")
    parser.add_argument("--shares", default=",".join(f"{share:g}" for share in SHARES), help="of the labels")
    parser.add_argument("--limit", type=int, help="so many dialogues of each split, to try it out")
    options = set_up(parser)
    dev, test = (
        [without_service(each) for each in read("sgd", options.data / split)[: options.limit]]
        for split in ("dev", "test")
    )
    training = TrainingSettings(
        epochs=options.epochs, batch_size=BATCH, learning_rate=RATE, seed=options.seed, held_out=0.0
    )
    bench = Bench(dev, test, options.work, training)
    shares = [float(share) for share in options.shares.split(",")]
    found = {
        (name, share): bench.measure(name, share)
        for share in shares
        for name in options.systems.split(",")
        if share in SYSTEMS[name][1]
    }
    command = f"python benchmarks/bench_labels_sgd.py --work WORK --epochs {options.epochs} --seed {options.seed}"
    made = {"machine": machine(options.threads), "command": command, **results(found, bench)}
    made |= settings_of(training, SIZES)
    write_json(options.out / "labels_sgd.json", made)
    write_text(options.out / "labels_sgd.md", markdown(made))
    print(markdown(made))


if __name__ == "__main__":
    main()
