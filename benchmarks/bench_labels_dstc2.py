"""Corrected transcription of DSTC2 calls: word errors of the label model beside those of the live recogniser.

    python benchmarks/bench_labels_dstc2.py --work WORK [--systems spelling,memory,model,no_context] [--epochs N]

trains on train, chooses thresholds on dev and tests on test, whose dialogue manager (S2) is in neither. The single best
hypothesis of the recogniser is all that is there, so a correction must come from the call: what the system asked, and
what was said before. Where a system is less sure than its threshold, the live text stands; the threshold is the one
with the fewest word errors on dev, as written and in one spelling together.

Word errors are told thrice, by jiwer. As written: transcribers write `dont`, `whats`, `good bye`, the recogniser
`don't`, `what's`, `goodbye`, so whoever learns to spell like them gains much without hearing any better. In one
spelling: both sides after SPELLING. Transcribers also write tags as words (noise, sil, unintelligible ...); without
tags: both sides in one spelling and without TAGS. Systems:

- live: what was recognised.
- spelling: each word as training writes it: the edit that it most often needs there, or none.
- memory: the transcription that training most often has for the same recognised text.
- model: the label model.
- no_context: the same with every turn by itself: no blocks over the dialogue.

Groups are the acoustic models A0 and A1. Intervals are of a paired bootstrap over calls.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

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
from tercet.labeling import Dialogue
from tercet.labeling.evaluation.metrics import word_error_counts
from tercet.labeling.model.transcribing import edited, edits_between
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.train import train

SIZES = ModelSettings()
GROUPS = ("A0", "A1")
SPELLING = (("'", ""), (r"\bgoodbye\b", "good bye"), (r"\bpostcode\b", "post code"), (r"\bokay\b", "ok"),
            (r"\bcenter\b", "centre"), (r"\bgastro pub\b", "gastropub"))  # fmt: skip
TAGS = {"noise", "sil", "silence", "unintelligible", "inaudible", "system", "breath", "cough", "laughing", "static",
        "tv_noise"}  # fmt: skip
FIGURES = ("as written", "in one spelling", "without tags")
CHOSEN_BY = ("as written", "in one spelling")
Said = list[dict[int, tuple[str, float]]]  # by dialogue and turn: text, and how sure
Fit = Callable[[list[Dialogue], Sequence[list[Dialogue]]], list[Said]]


def spelled(text: str) -> str:
    """Text after SPELLING."""
    for pattern, other in SPELLING:
        text = re.sub(pattern, other, text)
    return text


def without_tags(text: str) -> str:
    """Text after SPELLING without TAGS."""
    return " ".join(word for word in spelled(text).split() if word not in TAGS)


WRITTEN: dict[str, Callable[[str], str]] = dict(zip(FIGURES, (str, spelled, without_tags), strict=True))


def live(_: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Said]:
    """What was recognised."""
    return [
        [{turn: (d.turns[turn].text, 1.0) for turn in d.labels.transcription or {}} for d in part] for part in others
    ]


def pairs(dialogues: Sequence[Dialogue]) -> list[tuple[str, str]]:
    """What was recognised and what was said, turn by turn."""
    return [(d.turns[turn].text, text) for d in dialogues for turn, text in (d.labels.transcription or {}).items()]


def by_turn(correct: Callable[[str], tuple[str, float]], others: Sequence[list[Dialogue]]) -> list[Said]:
    """Of a correction that needs the recognised text alone."""
    return [
        [{turn: correct(each.turns[turn].text) for turn in each.labels.transcription or {}} for each in part]
        for part in others
    ]


def spelling(own: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Said]:
    """Each word by its most frequent edit, keeping it among them."""
    edits: dict[str, Counter[str | None]] = defaultdict(Counter)
    for heard, said in pairs(own):
        for word, edit in zip(heard.split(), edits_between(heard, said)[1:], strict=True):
            edits[word][edit] += 1
    best = {word: count.most_common(1)[0][0] for word, count in edits.items()}

    def correct(heard: str) -> tuple[str, float]:
        return edited(heard, ["", *(best.get(word) for word in heard.split())]), 1.0

    return by_turn(correct, others)


def memory(own: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Said]:
    """The most frequent transcription; sure by how often the recognised text was met."""
    met: dict[str, Counter[str]] = defaultdict(Counter)
    for heard, said in pairs(own):
        met[heard][said] += 1

    def correct(heard: str) -> tuple[str, float]:
        if heard not in met:
            return heard, 0.0
        return met[heard].most_common(1)[0][0], 1 - 1 / (1 + met[heard].total())

    return by_turn(correct, others)


def label_model(sizes: ModelSettings, training: TrainingSettings) -> Fit:
    """A label model of these sizes."""

    def fit(own: list[Dialogue], others: Sequence[list[Dialogue]]) -> list[Said]:
        made = train(own, training, sizes).model
        return [[dict(each.transcription or {}) for each in made.predict(part)] for part in others]

    return fit


def counts(dialogues: Sequence[Dialogue], said: Said, threshold: float, name: str) -> Tensor:
    """Errors and words of each dialogue: float64 [num_dialogues, 2]."""
    write, made = WRITTEN[name], []
    for dialogue, own in zip(dialogues, said, strict=True):
        both = torch.zeros(2, dtype=torch.float64)
        for turn, text in (dialogue.labels.transcription or {}).items():
            heard, sure = own.get(turn, ("", -1.0))
            both += word_error_counts(write(text), write(heard if sure >= threshold else dialogue.turns[turn].text))
        made.append(both)
    return torch.stack(made)


def rate(counts: Tensor) -> Tensor:
    """Of counts [..., 2]: word errors a word."""
    return counts[..., 0] / counts[..., 1].clamp(min=1)


def threshold_of(dialogues: Sequence[Dialogue], said: Said) -> float:
    """Of eleven that keep none, ten, twenty ... percent of the corrections, the one with the fewest word errors."""
    sure = torch.tensor([each for own in said for _, each in own.values()], dtype=torch.float64)
    tried = [*sure.quantile(torch.linspace(0, 0.9, 10, dtype=torch.float64)).tolist(), float("inf")]
    errors = [sum(float(rate(counts(dialogues, said, each, name).sum(0))) for name in CHOSEN_BY) for each in tried]
    return tried[errors.index(min(errors))]


def results(test: list[Dialogue], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Word error rates of every system and how far each is below the live text."""
    chosen = {"all": list(range(len(test)))} | {
        group: [place for place, each in enumerate(test) if each.metadata.get("group") == group] for group in GROUPS
    }
    systems: dict[str, Any] = {}
    below: dict[str, Any] = {}
    for name, each in found.items():
        for what in FIGURES:
            ours, theirs = counts_of(each, what), counts_of(found["live"], what)
            for group, places in chosen.items():
                into = systems.setdefault(name, {}).setdefault(what, {})
                into[group] = float(rate(ours[places].sum(0)))
                if name != "live":
                    into = below.setdefault(name, {}).setdefault(what, {})
                    into[group] = difference(ours[places], theirs[places], rate)
        systems[name] |= {key: each[key] for key in ("threshold", "dev", "changed", "better", "worse", "seconds")}
    made = {"calls": len(test), "turns": sum(len(each.labels.transcription or {}) for each in test)}
    made |= {"systems": systems, "less_live": below}
    if "model" in found and "no_context" in found:
        made["model_less_no_context"] = {
            what: difference(counts_of(found["model"], what), counts_of(found["no_context"], what), rate)
            for what in FIGURES
        }
    return made


def markdown(made: dict[str, Any]) -> str:
    """Tables of `results`."""
    lines = [
        "# Corrected transcription of DSTC2",
        "",
        f"Word error rates on the {made['calls']:,} calls of test, {made['turns']:,} turns; trained on train,"
        " thresholds chosen on dev. What systems and spellings are: `benchmarks/bench_labels_dstc2.py`. In brackets the"
        " 95 % interval of the difference to the live text, by a paired bootstrap over calls. Changed, better, worse:"
        " shares of turns whose text in one spelling is another one, has fewer word errors, has more.",
        "",
        f"- machine: {made['machine']}, shared with other work",
        f"- command: `{made['command']}`",
    ]  # fmt: skip
    base = made["systems"]["live"]
    for what in FIGURES:
        lines += ["", f"| {what} | all | A0 | A1 | all, less live | relative |", "|---|" + "---:|" * 5]
        for name, each in made["systems"].items():
            cells = [f"{each[what][group]:.3f}" for group in ("all", *GROUPS)]
            if name == "live":
                cells += ["", ""]
            else:
                relative = each[what]["all"] / base[what]["all"] - 1
                cells += [interval(made["less_live"][name][what]["all"], 4), f"{relative:+.1%}"]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *rows(("system", "changed", "better", "worse"), [
        (name, each["changed"], each["better"], each["worse"]) for name, each in made["systems"].items()
    ])]  # fmt: skip
    if "model_less_no_context" in made:
        told = (f"{what} {interval(made['model_less_no_context'][what], 4)}" for what in FIGURES)
        lines += ["", f"Model less no_context: {', '.join(told)}."]
    return "\n".join([*lines, ""])


def effect(dialogues: Sequence[Dialogue], said: Said, threshold: float) -> dict[str, float]:
    """Shares of turns that are changed, better and worse in one spelling."""
    tally: Counter[str] = Counter()
    for dialogue, own in zip(dialogues, said, strict=True):
        for turn, text in (dialogue.labels.transcription or {}).items():
            heard, (made, sure) = spelled(dialogue.turns[turn].text), own.get(turn, ("", -1.0))
            after = spelled(made) if sure >= threshold else heard
            before, now = (float(word_error_counts(spelled(text), each)[0]) for each in (heard, after))
            tally.update(turns=1, changed=after != heard, better=now < before, worse=now > before)
    return {name: tally[name] / max(1, tally["turns"]) for name in ("changed", "better", "worse")}


def main() -> None:
    parser = parser_of(__doc__, "dstc2_asr")
    parser.add_argument("--systems", default="spelling,memory,model,no_context", help="commas between")
    parser.add_argument("--limit", type=int, help="so many calls of each split, to try it out")
    options = set_up(parser)
    training = TrainingSettings(epochs=options.epochs, seed=options.seed, held_out=0.0)
    calls = read("dstc2", options.data)
    own, dev, test = (
        [each for each in calls if each.metadata["split"] == split][: options.limit]
        for split in ("train", "dev", "test")
    )
    alone = replace(SIZES, dialogue_layers=0)
    systems: dict[str, tuple[Fit, dict[str, Any]]] = {
        "live": (live, {}),
        "spelling": (spelling, {}),
        "memory": (memory, {}),
        "model": (label_model(SIZES, training), settings_of(training, SIZES)),
        "no_context": (label_model(alone, training), settings_of(training, alone)),
    }
    found = {}
    for name in ("live", *options.systems.split(",")):
        fit, settings = systems[name]

        def run(fit: Fit = fit) -> dict[str, Any]:
            begun = time.perf_counter()
            tuned, tested = fit(own, (dev, test))
            threshold = threshold_of(dev, tuned)
            made = {what: counts(test, tested, threshold, what).tolist() for what in FIGURES}
            return {
                "seconds": round(time.perf_counter() - begun, 1),
                "threshold": threshold,
                "dev": {what: float(rate(counts(dev, tuned, threshold, what).sum(0))) for what in FIGURES},
                "counts": made,
                **effect(test, tested, threshold),
            }

        found[name] = measured(options.work / f"{name}.json", {**settings, "calls": len(test)}, run)
    command = f"python benchmarks/bench_labels_dstc2.py --work WORK --epochs {options.epochs} --seed {options.seed}"
    made = {"machine": machine(options.threads), "command": command}
    made |= {**results(test, found), **settings_of(training, SIZES)}
    write_json(options.out / "labels_dstc2.json", made)
    write_text(options.out / "labels_dstc2.md", markdown(made))
    print(markdown(made))


if __name__ == "__main__":
    main()
