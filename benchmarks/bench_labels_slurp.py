"""Failure points of SLURP recordings: the label model beside models of the text alone and of the metadata alone.

    python benchmarks/bench_labels_slurp.py --work WORK [--systems both,text] [--folds 5] [--epochs N]

Each recording is one turn: what was recognised, and what the understanding made of that. The classes are derived (see
`tercet.labeling.data.converters.slurp`) from true text, which no system sees, as it sees no error rate. Recordings of
one sentence (slurp_id) are in one fold. Of each fold the next one is held out too: on it each system chooses the power
of 1 / (share of a class) by which its probabilities are multiplied, since classes are rare and macro F1 counts them
alike; the others are learnt from. Systems:

- both: the label model with all that is logged.
- text: the same model with the recognised text alone.
- metadata: the same model without text: domain, intent, and number and types of entities.
- linear_text, linear_metadata, linear: logistic regression on words and pairs of words, on metadata, on both with pairs
  of a word of one and a word of the other.

Figures are sums over folds; intervals are of a paired bootstrap over sentences. Groups: headset and far-field.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from label_protocols import difference, interval, machine, measured, parser_of, read, rows, set_up, settings_of
from tercet.files import write_json, write_text
from tercet.labeling import Dialogue, Trace, Turn
from tercet.labeling.evaluation.metrics import f1
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.train import train

SIZES = ModelSettings()
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
GROUPS = ("headset", "far-field")
Probabilities = tuple[Tensor, tuple[str, ...]]


def text_alone(turn: Turn) -> Turn:
    """What was recognised."""
    return Turn("user", turn.text)


def metadata_alone(turn: Turn) -> Turn:
    """Domain, intent, number and types of entities."""
    types = " ".join([turn.categorical["intent"], *_types(turn)])
    return Turn("user", "", categorical=turn.categorical, numeric=turn.numeric, traces={
        "understanding": Trace(decision=types)})  # fmt: skip


def _types(turn: Turn) -> list[str]:
    words = (turn.traces["understanding"].decision or "").split()
    return [word[1:] for word in words if word.startswith("[")]


def model(change: Callable[[Turn], Turn], training: TrainingSettings) -> Callable[..., list[Probabilities]]:
    """A label model of changed turns."""

    def fit(own: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Probabilities]:
        def changed(dialogues: list[Dialogue]) -> list[Dialogue]:
            return [replace(each, turns=tuple(map(change, each.turns))) for each in dialogues]

        made = train(changed(own), training, SIZES).model
        found = []
        for dialogues in others:
            shares = [each.failure_point for each in made.predict(changed(dialogues))]
            rows = torch.cat([share for share in shares if share is not None])
            found.append((rows.double(), made.classes.failure_point))
        return found

    return fit


def linear(features: Callable[[Turn], list[str]]) -> Callable[..., list[Probabilities]]:
    """Logistic regression on the presence of features, each weighted by how rare it is."""

    def fit(own: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Probabilities]:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        vectors = TfidfVectorizer(analyzer=lambda dialogue: features(dialogue.turns[0]), min_df=2, sublinear_tf=True)
        regression = LogisticRegression(C=10.0, max_iter=300)
        regression.fit(vectors.fit_transform(own), [gold_of(dialogue) for dialogue in own])
        names = tuple(regression.classes_.tolist())
        return [(torch.from_numpy(regression.predict_proba(vectors.transform(part))), names) for part in others]

    return fit


def words(turn: Turn) -> list[str]:
    """Words and pairs of words of the recognised text."""
    found = turn.text.split()
    return [*found, *(f"{first} {second}" for first, second in itertools.pairwise(found))]


def metadata(turn: Turn) -> list[str]:
    """Intent, with each type of entity, and how many there are."""
    intent = "intent " + turn.categorical["intent"]
    count = f"entities {turn.numeric['entities']:g}"
    return [intent, "domain " + turn.categorical["domain"], count, *(f"{intent} {name}" for name in _types(turn))]


def crossed(turn: Turn) -> list[str]:
    """Both, with each word by intent and by type of entity, and the words of entities by type."""
    known = metadata(turn)
    names = ["intent " + turn.categorical["intent"], *(f"type {name}" for name in _types(turn))]
    pairs = [f"{name} | {word}" for name in names for word in turn.text.split()]
    return [*words(turn), *known, *pairs, *(turn.traces["understanding"].decision or "").split("[")]


def gold_of(dialogue: Dialogue) -> str:
    """The class of its turn."""
    return (dialogue.labels.failure_point or {})[0]


def fold_of(dialogue: Dialogue, folds: int, seed: int) -> int:
    """The same for all recordings of a sentence."""
    name = f"{seed} {dialogue.metadata['slurp_id']}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") % folds


def weighted(found: Probabilities, shares: dict[str, float], power: float) -> list[str]:
    """The likeliest class of each row after weighting."""
    rows, names = found
    weights = torch.tensor([shares[name] ** -power for name in names], dtype=rows.dtype)
    return [names[place] for place in (rows * weights).argmax(1).tolist()]


def counts(gold: Sequence[str], given: Sequence[str], units: Sequence[int], classes: Sequence[str]) -> Tensor:
    """Right, given and gold, [num_units, num_classes, 3]."""
    place = {name: number for number, name in enumerate(classes)}
    made = torch.zeros(max(units) + 1, len(classes), 3, dtype=torch.float64)
    for wanted, own, unit in zip(gold, given, units, strict=True):
        made[unit, place[wanted], 2] += 1
        made[unit, place[own], 1] += 1
        made[unit, place[own], 0] += wanted == own
    return made


def macro_f1(flat: Tensor) -> Tensor:
    """Of counts [..., num_classes * 3]."""
    return f1(flat.unflatten(-1, (-1, 3))).mean(-1)


def cross_predict(
    dialogues: list[Dialogue], fit: Callable[..., list[Probabilities]], folds: int, seed: int
) -> dict[str, Any]:
    """The class that is given to each recording by what was learnt from other sentences."""
    numbers = [fold_of(dialogue, folds, seed) for dialogue in dialogues]
    given: dict[str, str] = {}
    powers, begun = [], time.perf_counter()
    for fold in range(folds):
        test, choice, own = [], [], []
        for number, dialogue in zip(numbers, dialogues, strict=True):
            (test if number == fold else choice if number == (fold + 1) % folds else own).append(dialogue)
        tuned, tested = fit(own, (choice, test))
        shares = {name: count / len(own) for name, count in Counter(map(gold_of, own)).items()}
        gold, classes = [gold_of(dialogue) for dialogue in choice], sorted(shares)
        macros = [
            float(macro_f1(counts(gold, weighted(tuned, shares, power), [0] * len(gold), classes).flatten(1))[0])
            for power in POWERS
        ]
        powers.append(POWERS[macros.index(max(macros))])
        for dialogue, name in zip(test, weighted(tested, shares, powers[-1]), strict=True):
            given[dialogue.id] = name
    return {"given": given, "powers": powers, "seconds": time.perf_counter() - begun}


def results(dialogues: list[Dialogue], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Figures of every system, and how far the label model is above the others."""
    classes = sorted(set(map(gold_of, dialogues)))
    sentences = {name: place for place, name in enumerate(sorted({d.metadata["slurp_id"] for d in dialogues}))}
    parts = {"all": dialogues} | {
        group: [dialogue for dialogue in dialogues if dialogue.metadata["group"] == group] for group in GROUPS
    }
    tables: dict[str, dict[str, Tensor]] = {}
    for group, own in parts.items():
        gold, units = [gold_of(dialogue) for dialogue in own], [sentences[d.metadata["slurp_id"]] for d in own]
        tables[group] = {
            name: counts(gold, [each["given"][dialogue.id] for dialogue in own], units, classes)
            for name, each in found.items()
        }
    made: dict[str, Any] = {"recordings": len(dialogues), "sentences": len(sentences), "classes": classes}
    made["gold"] = dict(Counter(map(gold_of, dialogues)))
    made["systems"] = {
        name: {
            group: {
                "macro_f1": float(macro_f1(tables[group][name].sum(0).flatten())),
                "accuracy": float(tables[group][name][..., 0].sum() / len(own)),
                "f1": dict(zip(classes, f1(tables[group][name].sum(0)).tolist(), strict=True)),
            }
            for group, own in parts.items()
        }
        | {"powers": each["powers"], "seconds": round(each["seconds"], 1)}
        for name, each in found.items()
    }
    made["above"] = {
        name: {
            group: difference(tables[group]["both"].flatten(1), tables[group][name].flatten(1), macro_f1)
            for group in parts
        }
        for name in found
        if "both" in found and name != "both"
    }
    return made


def markdown(made: dict[str, Any]) -> str:
    """Tables of `results`."""
    classes = made["classes"]
    lines = [
        "# Failure points of SLURP recordings",
        "",
        f"{made['recordings']:,} recordings of {made['sentences']:,} sentences, {made['folds']}-fold by sentence."
        " Inputs: recognised text and the understanding of it. What systems are: `benchmarks/bench_labels_slurp.py`."
        " Differences have a 95 % interval of a paired bootstrap over sentences.",
        "",
        f"- machine: {made['machine']}, shared with other work",
        f"- command: `{made['command']}`",
        "- recordings by class: " + ", ".join(f"{name} {made['gold'][name]:,}" for name in classes),
        "",
        *rows(("system", "macro F1", *(f"macro F1, {group}" for group in GROUPS), "accuracy", *classes), [
            (name, each["all"]["macro_f1"], *(each[group]["macro_f1"] for group in GROUPS), each["all"]["accuracy"],
             *(each["all"]["f1"][label] for label in classes))
            for name, each in made["systems"].items()
        ]),
        "",
        *rows(("F1 of both, by group", *classes), [
            (group, *(made["systems"]["both"][group]["f1"][label] for label in classes)) for group in GROUPS
        ] if "both" in made["systems"] else []),
        "",
        *rows(("macro F1: both above", "all", *GROUPS), [
            (name, *(interval(each[group]) for group in ("all", *GROUPS))) for name, each in made["above"].items()
        ]),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def main() -> None:
    parser = parser_of(__doc__, "slurp")
    parser.add_argument("--systems", default="both,text,metadata,linear_text,linear_metadata,linear")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="so many recordings, to try it out")
    options = set_up(parser)
    training = TrainingSettings(epochs=options.epochs, batch_size=64, seed=options.seed, held_out=0.0)
    systems = {
        "both": model(lambda turn: turn, training),
        "text": model(text_alone, training),
        "metadata": model(metadata_alone, training),
        "linear_text": linear(words),
        "linear_metadata": linear(metadata),
        "linear": linear(crossed),
    }
    dialogues = read("slurp", options.data)[: options.limit]
    found = {}
    for name in options.systems.split(","):
        settings: dict[str, Any] = {"folds": options.folds, "seed": options.seed, "recordings": len(dialogues)}
        if not name.startswith("linear"):
            settings |= settings_of(training, SIZES)

        def run(name: str = name) -> dict[str, Any]:
            return cross_predict(dialogues, systems[name], options.folds, options.seed)

        found[name] = measured(options.work / f"{name}.json", settings, run)
    command = f"python benchmarks/bench_labels_slurp.py --work WORK --epochs {options.epochs} --seed {options.seed}"
    made = {"machine": machine(options.threads), "command": command, "folds": options.folds}
    made |= {**results(dialogues, found), **settings_of(training, SIZES)}
    write_json(options.out / "labels_slurp.json", made)
    write_text(options.out / "labels_slurp.md", markdown(made))
    print(markdown(made))


if __name__ == "__main__":
    main()
