"""Feedback in place of annotation on DSTC2: weak labels, training on them alone, and questions chosen by exploration.

    TERCET_DATA=... python benchmarks/labels_feedback.py [--parts votes explore train] [--out RESULTS.md]

Calls and recognition are real: a system's turn is a defect where the live recognition of what it answers got a third of
the words wrong or more. Feedback is SIMULATED on these defects, by signals that are independent and err at the rates of
SIGNALS. Learnt from is data.dstc2.train.json, tested on data.dstc2.test.json, on the system's answers alone.

votes    how well the noise of signals and the defects are found without gold
explore  a logistic regression on words, and explicit answers for a budget of turns, chosen or drawn at random
train    the label model, trained on gold, on feedback alone, and on what one signal says, which are its inputs nowhere
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from real_data import real_data
from tercet.labeling import Annotation, Dialogue, Labels, ModelSettings, Prediction, TrainingSettings
from tercet.labeling.data.converters.dstc2 import read_dstc2
from tercet.labeling.feedback.exploration import explore
from tercet.labeling.feedback.requests import normalised, request_of
from tercet.labeling.feedback.signals import fit_feedback
from tercet.labeling.training.train import train


class Simulated(NamedTuple):
    """How often a signal is observed, and speaks of a defect where there is one and where there is none."""

    observed: float
    sensitivity: float
    false_alarm: float


SIGNALS = {
    "answer": Simulated(0.1, 0.85, 0.1),
    "barge_in": Simulated(1.0, 0.4, 0.15),
    "stop": Simulated(1.0, 0.3, 0.05),
    "rephrase": Simulated(0.5, 0.5, 0.1),
}
SHARE_OF_WRONG_WORDS = 1 / 3
SEED_CALLS = 40  # with gold, before any question
BUDGETS = 100, 300, 1000
FIRST_SEED = 10  # the defaults of `explore` were chosen by figures of seeds 0 to 3

Floats = np.ndarray


def word_errors(said: list[str], heard: list[str]) -> int:
    """Substitutions, insertions and deletions."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]


def calls_of(path: Path) -> list[Dialogue]:
    """Calls with gold defects; a turn is defective by what the user said before it."""
    found = []
    for call in read_dstc2(path):
        defects = []
        for turn in answers(call):
            said = normalised((call.labels.transcription or {})[turn - 1]).split()
            errors = word_errors(said, normalised(call.turns[turn - 1].text).split())
            if errors and errors >= SHARE_OF_WRONG_WORDS * len(said):
                defects.append(turn)
        if answers(call):
            found.append(replace(call, labels=Labels(defects=tuple(defects))))
    return found


def answers(call: Dialogue) -> list[int]:
    """The system's turns that answer a user."""
    return [turn for turn in range(1, len(call.turns)) if call.turns[turn].speaker == "system"]


def with_feedback(calls: Sequence[Dialogue], seed: int, names: Sequence[str]) -> list[Dialogue]:
    """Simulated signals in the place of gold."""
    rng = np.random.default_rng(seed)
    found = []
    for call in calls:
        turns = list(call.turns)
        for turn in answers(call):
            wrong = turn in (call.labels.defects or ())
            feedback = {}
            for name, signal in SIGNALS.items():
                observed, vote = rng.random(), rng.random() < (signal.sensitivity if wrong else signal.false_alarm)
                if name in names and observed < signal.observed:
                    feedback[name] = bool(vote) != (name == "answer")
            turns[turn] = replace(turns[turn], feedback=feedback)
        found.append(replace(call, turns=tuple(turns), labels=Labels()))
    return found


def truth_of(calls: Sequence[Dialogue]) -> Floats:
    """Of every answer, whether it is a defect."""
    return np.array([turn in (call.labels.defects or ()) for call in calls for turn in answers(call)], float)


def figures(share: Floats, truth: Floats) -> list[str]:
    """Average precision, area under the ROC curve, F1 at a half, mean squared error."""
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    score = average_precision_score(truth, share), roc_auc_score(truth, share), f1_score(truth, share >= 0.5)
    return [f"{each:.3f}" for each in (*score, float(np.mean((share - truth) ** 2)))]


FIGURES = ["average precision", "ROC area", "F1 at .5", "squared error"]


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def measure_votes(learnt: Sequence[Dialogue], _: Sequence[Dialogue], __: argparse.Namespace) -> str:
    """How signals err and which turns are defects, without gold."""
    calls, truth = with_feedback(learnt, 0, list(SIGNALS)), truth_of(learnt)
    start = time.process_time()
    model = fit_feedback(calls, user="caller")
    seconds = time.process_time() - start
    rates = [
        [name, f"{each.observed:,}", f"{SIGNALS[name].sensitivity:.2f}", f"{each.sensitivity:.3f}",
         f"{SIGNALS[name].false_alarm:.2f}", f"{each.false_alarm:.3f}"]
        for name, each in model.signals.items()
    ]  # fmt: skip
    text = table(["signal", "observed", "sensitivity", "as found", "false alarm", "as found"], rates)
    soft = np.concatenate([model.weak_labels(call).defects.numpy()[answers(call)] for call in calls])
    rows = [["weak labels", *figures(soft, truth)]]
    counted = np.array([
        np.mean([shown != (name == "answer") for name, shown in call.turns[turn].feedback.items()] or [0.0])
        for call in calls for turn in answers(call)
    ])  # fmt: skip
    rows.append(["share of the turn's signals that speak of a defect", *figures(counted, truth)])
    pooled = np.array([
        model.votes.moments[0][model.requests[request_of(call, turn)]] for call in calls for turn in answers(call)
    ])  # fmt: skip
    rows.append(["the request's defect rate alone", *figures(pooled, truth)])
    return (
        f"{len(truth):,} answers, {truth.mean():.1%} defects (found: {model.votes.prior_moments[0]:.1%} of requests),"
        f" {len(model.requests):,} requests; fitted in {seconds:.1f} s of one core.\n\n{text}\n"
        + table(["defects of the learnt calls", *FIGURES], rows)
    )


class Words:
    """Logistic regression on the words around an answer: what a model is in the comparison of budgets."""

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.hashed = HashingVectorizer(n_features=2**16, ngram_range=(1, 2), alternate_sign=False, norm=None)
        self._rows: dict[str, object] = {}

    def rows(self, calls: Sequence[Dialogue]) -> object:
        """Of every answer: what was asked, how sure recognition was, the answer, what was said next."""
        from scipy.sparse import vstack

        new = [call for call in calls if call.id not in self._rows]
        if new:
            texts = []
            for call in new:
                for turn in answers(call):
                    asked, score = call.turns[turn - 1], call.turns[turn - 1].numeric["recognition_score"]
                    after = call.turns[turn + 1].text if turn + 1 < len(call.turns) else ""
                    parts = {"u": asked.text, "s": call.turns[turn].text, "n": after}
                    words = [f"{mark}_{word}" for mark, text in parts.items() for word in normalised(text).split()]
                    texts.append(" ".join([*words, f"score_{min(int(-score * 4), 20)}"]))
            every, start = self.hashed.transform(texts), 0
            for call in new:
                self._rows[call.id] = every[start : start + len(answers(call))]
                start += len(answers(call))
        return vstack([self._rows[call.id] for call in calls]).tocsr()

    def fit(self, calls: Sequence[Dialogue], share: Floats, weight: Floats) -> Callable[[Sequence[Dialogue]], Floats]:
        """P(defect) of every answer of calls, from soft targets."""
        from scipy.sparse import vstack
        from sklearn.linear_model import LogisticRegression

        kept = weight > 0
        rows = self.rows(calls)[kept]
        both = np.concatenate([share[kept] * weight[kept], (1 - share[kept]) * weight[kept]])
        known = both > 0
        targets = np.repeat([1, 0], kept.sum())
        model = LogisticRegression(C=0.3, max_iter=300).fit(
            vstack([rows, rows]).tocsr()[known], targets[known], both[known]
        )
        return lambda others: np.asarray(model.predict_proba(self.rows(others))[:, 1])


def as_predictions(calls: Sequence[Dialogue], share: Floats) -> Iterator[Prediction]:
    """P(defect) of answers as predictions."""
    start = 0
    for call in calls:
        defects = torch.zeros(len(call.turns))
        places = answers(call)
        defects[places] = torch.from_numpy(share[start : start + len(places)]).float()
        start += len(places)
        yield Prediction(defects=defects)


def measure_explore(learnt: Sequence[Dialogue], tested: Sequence[Dialogue], options: argparse.Namespace) -> str:
    """Answers to chosen questions and to random ones, at equal budgets: the mean over seeds of what is tested."""
    words, truth = Words(), truth_of(tested)
    found: dict[tuple[str, int], list[list[float]]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        order = np.random.default_rng(seed).permutation(len(learnt))
        known = [learnt[place] for place in order[:SEED_CALLS]]
        pool = [learnt[place] for place in order[SEED_CALLS:]]
        bare = [replace(call, labels=Labels()) for call in pool]
        first = words.fit(known, truth_of(known), np.ones(len(truth_of(known))))
        found.setdefault(("no question", 0), []).append([*map(float, figures(first(tested), truth))])
        believed = first(bare)
        places = [(call.id, turn) for call in pool for turn in answers(call)]
        chosen = explore(bare, as_predictions(bare, believed), budget=max(BUDGETS), user="caller")
        ways = {
            "random": [places[place] for place in np.random.default_rng(seed + 100).permutation(len(places))],
            "least sure": [places[place] for place in np.argsort(np.abs(believed - 0.5), kind="stable")],
            "chosen": [(each.dialogue, each.turn) for each in chosen],
        }
        for way, asked in ways.items():
            for budget in BUDGETS:
                told = answered(pool, set(asked[:budget]), seed)
                model = fit_feedback([*known, *told], user="caller")
                soft = [model.weak_labels(call) for call in (*known, *told)]
                share, weight = (
                    np.concatenate([
                        getattr(each, name).numpy()[answers(call)]
                        for each, call in zip(soft, (*known, *told), strict=True)
                    ])
                    for name in ("defects", "weight")
                )  # fmt: skip
                now = words.fit([*known, *told], share, weight)
                found.setdefault((way, budget), []).append([*map(float, figures(now(tested), truth))])
    rows = []
    for (way, budget), each in sorted(found.items(), key=lambda pair: pair[0][1]):
        cells = [f"{mean:.3f}" for mean in np.mean(each, 0)]
        for place in (0, 1):  # of the same draws
            apart = np.array(each)[:, place] - np.array(found.get(("random", budget), each))[:, place]
            cells.append(f"{apart.mean():+.3f} ± {apart.std(ddof=1) / len(apart) ** 0.5:.3f}" if apart.any() else "")
        rows.append([way, str(budget), *cells])
    names = ["questions", "budget", *FIGURES, f"{FIGURES[0]}, less random", f"{FIGURES[1]}, less random"]
    return (
        f"Gold of {SEED_CALLS} calls first; then answers (simulated, as in the table of signals) to so many questions"
        f" about the other {len(learnt) - SEED_CALLS:,} calls. Means of {options.seeds} draws of calls and answers,"
        " and of what is above random questions of the same draws, with its standard error.\n\n" + table(names, rows)
    )


def answered(calls: Sequence[Dialogue], asked: set[tuple[str, int]], seed: int) -> list[Dialogue]:
    """Simulated answers on the turns that were asked about; the same question has the same answer in every way."""
    signal, found = SIGNALS["answer"], []
    for place, call in enumerate(calls):
        turns = list(call.turns)
        for turn in answers(call):
            if (call.id, turn) in asked:
                wrong = turn in (call.labels.defects or ())
                drawn = np.random.default_rng((seed, place, turn)).random()
                says_wrong = drawn < (signal.sensitivity if wrong else signal.false_alarm)
                turns[turn] = replace(turns[turn], feedback={"answer": not says_wrong})
        found.append(replace(call, turns=tuple(turns), labels=Labels()))
    return found


def measure_train(learnt: Sequence[Dialogue], tested: Sequence[Dialogue], options: argparse.Namespace) -> str:
    """The label model on gold, and on feedback alone."""
    truth, rows = truth_of(tested), []
    bare = [replace(call, labels=Labels()) for call in tested]
    told = with_feedback(learnt, 0, list(SIGNALS))
    model = fit_feedback(told, user="caller")
    sizes = ModelSettings(dim=32, num_heads=4, feed_forward_dim=64, feedback=False)
    settings = TrainingSettings(epochs=options.epochs, held_out=0.0)
    sets = {
        "gold": [replace(call, turns=bare_turns(call)) for call in learnt],
        "feedback alone, weak labels": [model.annotated(call) for call in told],
        "stop alone, as if it were gold": [taken_at_its_word(call, "stop") for call in told],
    }
    for name, calls in sets.items():
        start = time.process_time()
        result = train(calls, settings, sizes)
        seconds = time.process_time() - start
        share = [
            each.defects.numpy()[answers(call)] for each, call in zip(result.model.predict(bare), bare, strict=True)
        ]
        rows.append([name, *figures(np.concatenate(share), truth), f"{seconds:.0f}"])
        print(rows[-1], flush=True)
    return (
        f"{len(learnt):,} calls learnt from in {options.epochs} epochs, dim 32; {len(tested):,} calls tested,"
        f" {truth.mean():.1%} of {len(truth):,} answers are defects.\n\n"
        + table(["learnt from", *FIGURES, "seconds of one core"], rows)
    )


def bare_turns(call: Dialogue) -> tuple:
    """Without feedback."""
    return tuple(replace(turn, feedback={}) for turn in call.turns)


def taken_at_its_word(call: Dialogue, name: str) -> Dialogue:
    """One signal as an annotation."""
    defects = tuple(turn for turn in answers(call) if call.turns[turn].feedback.get(name))
    return replace(call, annotations=(Annotation(name, Labels(defects=defects)),))


PARTS = {"votes": measure_votes, "explore": measure_explore, "train": measure_train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--calls", type=int, default=None, help="learn from so many calls; default: all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = real_data("dialogue", "dstc2_asr")
    learnt, tested = (calls_of(data / f"data.dstc2.{split}.json") for split in ("train", "test"))
    sections = []
    for part in options.parts:
        text = PARTS[part](learnt[: options.calls], tested, options)
        print(f"## {part}\n\n{text}", flush=True)
        sections.append(f"## {part}\n\n{text}")
    if options.out is not None:
        command = f"- command: `python benchmarks/labels_feedback.py --parts {' '.join(options.parts)}"
        command += f" --seeds {options.seeds} --epochs {options.epochs}`"
        head = [
            "# Feedback in place of annotation",
            "",
            "DSTC2's calls, with live recognition; feedback is SIMULATED: see `benchmarks/labels_feedback.py`.",
            "",
            command,
            "",
        ]
        partial = options.out.with_name(options.out.name + ".part")
        partial.write_text("\n".join([*head, *sections]), encoding="utf-8")
        partial.replace(options.out)


if __name__ == "__main__":
    main()
