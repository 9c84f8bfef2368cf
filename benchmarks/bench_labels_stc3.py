"""Goal success of STC-3 helpdesk dialogues: the label model beside one annotator and TF-IDF with ridge regression.

    python benchmarks/bench_labels_stc3.py --work WORK [--folds 5] [--seed 1] [--draws 20] [--epochs E]

cross-validates by dialogue. Gold is what two of three of the 19 annotators say, drawn for each dialogue; the human is
one of the other sixteen; figures are means over the draws. Models learn from the shares of all 19. There is one
threshold for all figures of a question and fold: that with the highest sum of accuracy and F1 on the other folds, whose
dialogues are predicted by models that did not learn from them. So everybody goes the same way, `evaluate`'s. Intervals
are of a paired bootstrap over dialogues. Also asked of every turn: which kind of nugget it is (trigger, goal, nugget,
none), for F1 of trigger and goal turns.

WORK keeps what each fold's model predicted: a killed run goes on, and one of other settings is refused. With that
done, it writes benchmarks/results/labels_stc3.json and labels_stc3.md.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from real_data import real_data
from tercet.files import read_json, write_json, write_text
from tercet.labeling import CONVERTERS, Dialogue
from tercet.labeling.evaluation.baseline import TfidfRidge
from tercet.labeling.evaluation.evaluating import Predictor, evaluate
from tercet.labeling.evaluation.metrics import DETECTION_FIGURES
from tercet.labeling.model.predictions import Classes, Prediction
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.train import train

HERE = Path(__file__).resolve().parent
TRAINING = TrainingSettings(held_out=0.0)  # thresholds come from the other folds
SIZES = ModelSettings()
TURNS = ("trigger", "goal")
WANTED = {"accuracy": 0.84, "f1": 0.60, "precision_at_half_coverage": 0.75}


class Kept:
    """A fold's predictor that is asked once: what it said is in a file."""

    def __init__(self, path: Path, train_on: list[Dialogue], settings: dict[str, Any]) -> None:
        self.path, self.train_on, self.settings = path, train_on, settings
        self.found = read_json(path) if path.exists() else {}
        if self.found and self.found["settings"] != settings:
            raise ValueError(f"{path}: it was made with other settings than today's")
        self.classes = Classes(intents=tuple(self.found.get("intents", ())))

    def predict(self, dialogues: Sequence[Dialogue]) -> list[Prediction]:
        """From the file, or by training a model."""
        if not self.found:
            started = time.perf_counter()
            training, sizes = (
                kind(**self.settings[name]) for kind, name in ((TrainingSettings, "training"), (ModelSettings, "model"))
            )
            model = train(self.train_on, training, sizes).model
            made = model.predict(dialogues)
            said = {
                dialogue.id: {"success": each.whole_success, "intents": _rounded(each.intents)}
                for dialogue, each in zip(dialogues, made, strict=True)
            }
            seconds = round(time.perf_counter() - started, 1)
            self.found = {"settings": self.settings, "intents": model.classes.intents, "said": said, "seconds": seconds}
            write_json(self.path, self.found)
            self.classes = model.classes
            print(f"{self.path.name}: {seconds} s", flush=True)
        said = [self.found["said"][dialogue.id] for dialogue in dialogues]
        return [Prediction(whole_success=each["success"], intents=torch.tensor(each["intents"])) for each in said]


def _rounded(shares: torch.Tensor | None) -> list[list[float]]:
    assert shares is not None
    return [[round(share, 6) for share in row] for row in shares.tolist()]


def markdown(found: dict[str, Any]) -> str:
    """Tables of `results`."""
    success = found["goal_success"]
    head = [
        "# Goal success of STC-3 dialogues",
        "",
        f"{success['items']:,} helpdesk dialogues of 19 annotators each, {found['folds']}-fold by dialogue; gold: what"
        f" two of three annotators say, mean over {found['draws']} draws; human: one of the other sixteen; baseline:"
        " TF-IDF of words by speaker and place, ridge regression on the mean label. One threshold for all figures,"
        " chosen on the other folds. In brackets the 95 % interval of the model's figure less the other's, by a paired"
        " bootstrap over dialogues. Half coverage: the half of its positives that it is surest of; a person's are all"
        " equally sure.",
        "",
        f"- machine: {found['machine']}; training takes {found['seconds_per_fold']:.0f} s a fold in"
        f" {found['threads']} thread{'s' if found['threads'] > 1 else ''} of a shared machine",
        f"- command: `{found['command']}`",
        "",
        "| goal success | " + " | ".join(name.replace("_", " ") for name in DETECTION_FIGURES) + " |",
        "|---|" + "---:|" * len(DETECTION_FIGURES),
        *_rows("", success),
        "",
        "On the dialogues whose three annotators agree:",
        "",
        "| goal success | " + " | ".join(name.replace("_", " ") for name in DETECTION_FIGURES) + " |",
        "|---|" + "---:|" * len(DETECTION_FIGURES),
    ]
    for who, each in (("model", success), *((name, success[name]) for name in ("human", "baseline"))):
        head.append(f"| {who} | " + " | ".join(f"{each['agreed'][name]:.3f}" for name in DETECTION_FIGURES) + " |")
    head += ["", "| turns | " + " | ".join(name.replace("_", " ") for name in DETECTION_FIGURES) + " |"]
    head += ["|---|" + "---:|" * len(DETECTION_FIGURES)]
    for name in TURNS:
        head += _rows(f"{name}: ", found["intents"]["classes"][name])
    missed = [f"{name} {success[name]:.3f} < {least}" for name, least in WANTED.items() if success[name] < least]
    head += ["", f"Wanted: {', '.join(f'{name} >= {least}' for name, least in WANTED.items())}: "
             + (f"missed: {', '.join(missed)}." if missed else "reached.")]  # fmt: skip
    return "\n".join([*head, ""])


def _rows(name: str, figures: dict[str, Any]) -> list[str]:
    rows = [f"| {name}model | " + " | ".join(f"{figures[each]:.3f}" for each in DETECTION_FIGURES) + " |"]
    for who in ("human", "baseline"):
        below = figures[who]["below"]
        cells = (
            f"{figures[who][each]:.3f} ({below[each]['low']:+.3f} .. {below[each]['high']:+.3f})"
            for each in DETECTION_FIGURES
        )
        rows.append(f"| {name}{who} | " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder stc3_dch1; default: in TERCET_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for what models predict")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for labels_stc3.json and .md")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs, help="of training")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dialogues = list(CONVERTERS["stc3"](options.data or real_data("dialogue", "stc3_dch1")))
    options.work.mkdir(parents=True, exist_ok=True)
    training = replace(TRAINING, seed=options.seed, epochs=options.epochs)
    settings = {"training": asdict(training), "model": asdict(SIZES)}
    kept: list[Kept] = []

    def fit(train_on: list[Dialogue]) -> Predictor:
        name = f"{options.folds} folds seed {options.seed} fold {len(kept)}.json"
        kept.append(Kept(options.work / name, train_on, settings))
        return kept[-1]

    found = evaluate(
        dialogues, fit,
        baseline=lambda train_on: TfidfRidge().fit(train_on),
        folds=options.folds, draws=options.draws, seed=options.seed,
    )  # fmt: skip
    made = {name: getattr(options, name) for name in ("folds", "draws", "seed", "threads")}
    made |= {
        "machine": f"{platform.machine()}, {platform.system()}, torch {torch.__version__}",
        "command": f"python benchmarks/bench_labels_stc3.py --work WORK --epochs {options.epochs}",
        "seconds_per_fold": sum(each.found["seconds"] for each in kept) / len(kept),
        **settings,
        **found,
    }
    write_json(options.out / "labels_stc3.json", made)
    write_text(options.out / "labels_stc3.md", markdown(made))
    print(markdown(made))


if __name__ == "__main__":
    main()
