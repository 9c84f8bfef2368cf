"""Spoken digits at less compute: every speaker held out in turn, several seeds, beside smaller models and windows.

    python benchmarks/bench_digits.py --work WORK [--speakers theo,george] [--seeds 0,1,2] [--systems all_on,gated]

trains what WORK does not hold yet. Once all_on and gated are there for all speakers and the seeds, it writes
benchmarks/results/digits.json and digits.png; with --out, it writes what there is into that folder. A killed run goes
on from what it had finished and from its last checkpoint; several processes may work on parts of their own (other
speakers or seeds) in one folder. Every trained model stays in WORK, beside a file of what was counted: where that is of
other test strings than today's, it is counted anew from the model (to have that for another reason, delete the file). A
model of other settings than today's, or of another teacher than the one that is there, is refused.

Systems, each trained for the same number of steps on the same strings, all but the first with all_on of that speaker
and seed as their teacher:

- all_on: every block runs at every frame.
- gated: arbitrators, steered to TARGET of the whole model's multiply-adds.
- window: every block runs, attention sees fewer frames: of WINDOWS, each trained with seed 0 alone, the one that saves
  most at a ratio of word errors of at most RATIO, or has the fewest errors where none does.
- small: every block runs, of the narrowest width that computes at least TARGET of what all_on does: 40 of 64, which is
  43.9 % (small_share in the results).
- shallow: every block runs, as few as compute at least TARGET of what all_on does: 3 of 8, which is 44.6 %
  (shallow_share).
- taught: all_on again, with all_on as its teacher: what a teacher alone does. With seed 0.
- weight W: arbitrators at a fixed cost weight, with seed 0: the curve.

So small and shallow may compute somewhat more than gated, and windows, which save little, far more. Systems share the
warm-up of a speaker and a seed, in which all blocks run (small and shallow, of other sizes, have their own); after it
gates, cost, window and the teacher differ. A teacher is a second training, which its pupils cost beside their own.
Tested on strings of every clip of the speaker who was held out, the same strings at each of SNRS. Shares of compute are
of all_on's multiply-adds on the same strings, log-mel frames included; of the silence that is heard behind a string,
which belongs to none, nothing is counted. The largest possible saving of a window is that of frames that see themselves
alone, where windows are full. Intervals are of 95 %, bootstrapped over strings, paired: a string's ratios, systems and
seeds go together, strings are drawn within speakers. Seeds and speakers are held fixed: an interval does not say what
others would give.

The settings of models and of training, TARGET and WINDOWS were chosen on figures of these same speakers, each held out
of training as here. No speaker was kept apart from these choices, so the figures may flatter what was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from digits_figures import INTERVAL, Counts, compute_rise, figures, ratio_interval, string_numbers
from real_data import real_data
from tercet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tercet.files import read_json, write_json
from tercet.graph.storage import digest
from tercet.speech import (
    Clips,
    DigitString,
    ModelSettings,
    TrainingSettings,
    evaluate,
    read_clips,
    strings_to_test,
    train,
    warm_up,
)
from tercet.speech.model import dense_cost
from tercet.speech.plotting import Point, plot_compute
from tercet.speech.storage import CONFIG, load_config, load_model
from tercet.speech.strings import TEST_SNRS

TRAINING = TrainingSettings()
SIZES = ModelSettings()
SNRS = TEST_SNRS
TARGET, RATIO = 0.39, 1.03
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
WINDOWS = (0, 4)
RIVALS = ("small", "shallow")  # of gated, of about its compute
SHOWN = ("all_on", "gated", "window", *RIVALS, "taught")
FIRST_SEED = 0  # of windows, from which one is chosen, of the curve and of a taught all_on
HERE = Path(__file__).resolve().parent
COUNTS = ("errors", "words", "spent", "dense", "spent_speech", "dense_speech")
KINDS = ("all_on", "gated", *RIVALS, "taught", "window", "weight")
TEACHER = "all_on"  # of all others
ONCE = ("taught", "window", "weight")  # with FIRST_SEED alone
System = tuple[TrainingSettings, ModelSettings]
_ABSENT = object()  # a setting that there was not


def smaller(sizes: ModelSettings, share: float) -> ModelSettings:
    """The narrowest such model that computes at least `share` of what `sizes` does."""
    times = sizes.feed_forward_dim // sizes.dim
    widths = range(sizes.num_heads, sizes.dim + 1, sizes.num_heads)
    narrower = (replace(sizes, dim=dim, feed_forward_dim=times * dim) for dim in widths)
    return next(own for own in narrower if dense_cost(own) >= share * dense_cost(sizes))


def shallower(sizes: ModelSettings, share: float) -> ModelSettings:
    """The same model with as few blocks as compute at least `share` of what `sizes` does."""
    fewer = (replace(sizes, num_layers=count) for count in range(1, sizes.num_layers + 1))
    return next(own for own in fewer if dense_cost(own) >= share * dense_cost(sizes))


def systems() -> dict[str, System]:
    """All that can be trained, by name."""
    on = replace(SIZES, gates="on")
    return {
        "all_on": (TRAINING, on),
        "taught": (TRAINING, on),
        "gated": (replace(TRAINING, target_compute=TARGET), SIZES),
        "small": (TRAINING, smaller(on, TARGET)),
        "shallow": (TRAINING, shallower(on, TARGET)),
        **{f"weight {weight:g}": (replace(TRAINING, cost_weight=weight), SIZES) for weight in WEIGHTS},
        **{f"window {window}": (TRAINING, replace(on, window=window)) for window in WINDOWS},
    }


class Bench:
    """What was trained and measured is in `work`: for each (speaker, seed, system) a model directory and, of what was
    counted, a file."""

    def __init__(self, clips: Clips, work: Path) -> None:
        self.clips, self.work = clips, work
        work.mkdir(parents=True, exist_ok=True)
        self.warm: tuple[tuple[str, int], Checkpoint] | None = None
        self.tests: dict[str, tuple[list[DigitString], str]] = {}

    def model_path(self, speaker: str, seed: int, system: str) -> Path:
        return self.work / f"{speaker} {seed} {system}"

    def path(self, speaker: str, seed: int, system: str) -> Path:
        return self.work / f"{speaker} {seed} {system}.json"

    def settings(self, seed: int, system: str) -> System:
        """Of training and model."""
        training, sizes = systems()[system]
        return replace(training, seed=seed), sizes

    def strings(self, speaker: str) -> tuple[list[DigitString], str]:
        """The strings to test on, and a digest of them."""
        if speaker not in self.tests:
            made = strings_to_test(self.clips, speaker, SNRS)
            samples = torch.from_numpy(np.concatenate([string.samples for string in made]))
            facts = [(string.digits, string.snr, string.noise, len(string.samples)) for string in made]
            self.tests[speaker] = made, digest({"samples": samples}, facts)
        return self.tests[speaker]

    def part(self, speaker: str, seed: int, system: str) -> dict[str, Any] | None:
        """What was counted, on today's strings: as it was kept, or evaluated anew from the model; None where neither
        is there.

        Raises:
            ValueError: the model, or without a model what was counted, is of other settings than today's.
        """
        path, folder = self.path(speaker, seed, system), self.model_path(speaker, seed, system)
        wanted = _as_stored(*self.settings(seed, system))
        trained = (folder / CONFIG).exists()
        if trained:
            known = {**wanted, "hold_out": speaker, **self._taught_by(speaker, seed, system)}
            _check_same(folder, load_config(folder), known)
        if path.exists():
            found = read_json(path)
            if not trained:
                _check_same(path, found, wanted)
            strings = {"strings": self.strings(speaker)[1]}
            if all(found.get(name) == value for name, value in {**wanted, **strings}.items()):
                return found
        return self.count(speaker, seed, system) if trained else None

    def count(self, speaker: str, seed: int, system: str) -> dict[str, Any]:
        """Test the model that was trained, and keep what is counted."""
        strings, own = self.strings(speaker)
        found = evaluate(load_model(self.model_path(speaker, seed, system)), strings)
        counts = {name: getattr(found, name).tolist() for name in COUNTS}
        told = {"snr": [string.snr for string in strings], "noise": [string.noise for string in strings]}
        part = {**counts, **told, "strings": own, **_as_stored(*self.settings(seed, system))}
        write_json(self.path(speaker, seed, system), part)
        rates = (
            f"{100 * found.word_error_rate:.1f} % word errors, {100 * found.compute_share:.1f} % of its multiply-adds"
        )
        print(f"{speaker}, seed {seed}, {system}: {rates}", flush=True)
        return part

    def measure(self, speaker: str, seed: int, system: str) -> None:
        """Train and test one system, and its teacher, as far as that was not done."""
        if self.part(speaker, seed, system) is not None:
            return
        if system != TEACHER and not (self.model_path(speaker, seed, TEACHER) / CONFIG).exists():
            self._train(speaker, seed, TEACHER)
        self._train(speaker, seed, system)

    def _train(self, speaker: str, seed: int, system: str) -> None:
        training, sizes = self.settings(seed, system)
        start = (
            self._warm_up(speaker, seed) if replace(sizes, gates=SIZES.gates, window=SIZES.window) == SIZES else None
        )
        teacher = None if system == TEACHER else self.model_path(speaker, seed, TEACHER)
        out = self.model_path(speaker, seed, system)
        train(self.clips, training, sizes, hold_out=speaker, out=out, resume=True, start=start, teacher=teacher)
        self.count(speaker, seed, system)

    def _taught_by(self, speaker: str, seed: int, system: str) -> dict[str, Any]:
        """What a model's configuration says of its teacher, where it must have had one that is there."""
        folder = self.model_path(speaker, seed, TEACHER)
        return {"teacher": load_config(folder)["weights"]} if system != TEACHER and (folder / CONFIG).exists() else {}

    def _warm_up(self, speaker: str, seed: int) -> Checkpoint:
        """Of a speaker and a seed, from the folder where it was done."""
        if self.warm is None or self.warm[0] != (speaker, seed):
            folder = self.work / f"{speaker} {seed} warm-up"
            checkpoint = load_checkpoint(folder)
            if checkpoint is None:
                training, sizes = systems()["all_on"]
                checkpoint = warm_up(self.clips, replace(training, seed=seed), sizes, hold_out=speaker)
                save_checkpoint(folder, checkpoint)
            self.warm = (speaker, seed), checkpoint
        return self.warm[1]

    def pooled(self, system: str, seeds: list[int], speakers: list[str]) -> Counts | None:
        """Counts [seeds, strings] of all speakers' strings in order; None unless all was trained."""
        found: list[list[dict[str, Any]]] = []
        for seed in seeds:
            row = [self.part(speaker, seed, system) for speaker in speakers]
            if any(part is None for part in row):
                return None
            found.append([part for part in row if part is not None])
        pooled: Counts = {
            name: np.stack([np.concatenate([part[name] for part in row]) for row in found]) for name in COUNTS
        }
        snrs = [part["snr"] for part in found[0]]
        pooled["snr"] = np.concatenate(snrs)
        pooled["number"] = np.concatenate([string_numbers(own) for own in snrs])
        pooled["speaker"] = np.repeat(speakers, [len(own) for own in snrs])
        return pooled


def _check_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError where what is at `path` is of other settings than `wanted`."""
    for name, own in wanted.items():
        before = found.get(name)
        if before == own:
            continue
        if not isinstance(own, dict):
            raise ValueError(f"{path}: it was made with {name} {before!r}, not {own!r}")
        before = before or {}
        differ = sorted(key for key in {*own, *before} if own.get(key, _ABSENT) != before.get(key, _ABSENT))
        raise ValueError(f"{path}: it was made with other {name} settings than today's: {', '.join(differ)}")


def _as_stored(training: TrainingSettings, sizes: ModelSettings) -> dict[str, Any]:
    """Settings as a measured part keeps them."""
    return {"training": asdict(training), "model": asdict(sizes)}


def choose_window(bench: Bench, speakers: list[str]) -> str | None:
    """The window that is reported (see the module); None before all were measured."""
    dense = bench.pooled("all_on", [FIRST_SEED], speakers)
    measured = {window: bench.pooled(f"window {window}", [FIRST_SEED], speakers) for window in WINDOWS}
    if dense is None or any(found is None for found in measured.values()):
        return None
    errors = {window: found["errors"].sum() for window, found in measured.items() if found is not None}
    fine = [window for window, count in errors.items() if count <= RATIO * dense["errors"].sum()]
    return f"window {min(fine) if fine else min(errors, key=lambda window: errors[window])}"


def results(bench: Bench, seeds: list[int], speakers: list[str]) -> dict[str, Any]:
    """All that was measured for all these speakers."""
    made: dict[str, Any] = {"speakers": speakers, "seeds": seeds, "snr": list(SNRS), "target_compute": TARGET}
    made |= {"interval": INTERVAL, "model": asdict(SIZES), "training": asdict(TRAINING)}
    made["largest_possible_window_saving"] = 1 - dense_cost(replace(SIZES, window=0)) / dense_cost(SIZES)
    for name in RIVALS:
        sizes = systems()[name][1]
        made |= {f"{name}_model": asdict(sizes), f"{name}_share": dense_cost(sizes) / dense_cost(SIZES)}

    def measured(system: str, chosen: list[int]) -> list[int]:
        return [seed for seed in chosen if bench.pooled(system, [seed], speakers) is not None]

    window, on = choose_window(bench, speakers), measured("all_on", seeds)
    for name in SHOWN:
        system = window if name == "window" else name
        done = measured(system, on) if system else []
        if not done:
            continue
        found, dense = _both(bench, str(system), "all_on", done, speakers)
        made[name] = {**figures(found, dense), "words": int(found["words"].sum()), "seeds": done, "system": system}
        if name != "all_on":
            made[name] |= ratio_interval(found, dense)
        made[name]["by_snr"] = {f"{snr:g}": figures(found, dense, found["snr"] == snr) for snr in SNRS}
        by_speaker = {speaker: figures(found, dense, found["speaker"] == speaker) for speaker in speakers}
        made[name]["by_speaker"] = by_speaker
        if name == "gated":
            made |= compute_rise(found, dense)
    for name in (*RIVALS, "taught"):
        shared = [
            seed for seed in made.get(name, {}).get("seeds", []) if seed in made.get("gated", {}).get("seeds", [])
        ]
        if shared:
            ratio = ratio_interval(*_both(bench, "gated", name, shared, speakers), f"word_error_ratio_to_{name}")
            made["gated"] |= {**ratio, f"word_error_ratio_to_{name}_seeds": shared}
    for key, names in (("curve", [f"weight {w:g}" for w in WEIGHTS]), ("windows", [f"window {w}" for w in WINDOWS])):
        first = [system for system in names if measured("all_on", [FIRST_SEED]) and measured(system, [FIRST_SEED])]
        both = {system: _both(bench, system, "all_on", [FIRST_SEED], speakers) for system in first}
        made[key] = {system: {**figures(*pair), **ratio_interval(*pair)} for system, pair in both.items()}
    return made


def _both(bench: Bench, one: str, other: str, seeds: list[int], speakers: list[str]) -> tuple[Counts, Counts]:
    """Counts of two systems that were measured."""
    found, theirs = (bench.pooled(system, seeds, speakers) for system in (one, other))
    assert found is not None
    assert theirs is not None
    return found, theirs


def draw(made: dict[str, Any], path: Path) -> None:
    """Word errors against compute of everything in `made`; points that are not of all its seeds say of which."""
    points = []
    for name in SHOWN:
        if name in made:
            own = made[name]["seeds"]
            label = made[name]["system"] + ("" if own == made["seeds"] else f", seed {', '.join(map(str, own))} alone")
            points.append(Point(label, made[name]["compute_share"], made[name]["word_error_rate"]))
    for system, found in made["curve"].items():
        series = f"cost weights, seed {FIRST_SEED} alone"
        points.append(Point(system, found["compute_share"], found["word_error_rate"], series))
    if points:
        words = f"{len(made['speakers'])} speakers, each held out in turn"
        plot_compute(points, path, title=f"Digits in noise: {words}", whole="those of all_on")


def plan(chosen: list[str], seeds: list[int], speakers: list[str]) -> Iterator[tuple[str, int, str]]:
    """What to train, in order: what shares a warm-up goes together."""
    for seed in seeds:
        for speaker in speakers:
            for system in systems():
                kind = system.split(" ")[0]
                if kind in chosen and (seed == FIRST_SEED or kind not in ONCE):
                    yield speaker, seed, system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="fsdd_8k.npz; default: in TERCET_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--out", type=Path, help="folder for digits.json and digits.png, of whatever is there")
    parser.add_argument("--speakers", help="commas between; default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--systems", default=",".join(KINDS), help=f"commas between, of: {', '.join(KINDS)}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    chosen = options.systems.split(",")
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        parser.error(f"--systems: expected some of {', '.join(KINDS)}, got {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    clips = read_clips(options.data or real_data("speech", "fsdd_8k.npz"))
    bench = Bench(clips, options.work)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    speakers = options.speakers.split(",") if options.speakers else clips.names()
    for speaker, seed, system in plan(chosen, seeds, speakers):
        bench.measure(speaker, seed, system)
    made = results(bench, seeds, speakers)
    whole = speakers == clips.names() and all(made.get(name, {}).get("seeds") == seeds for name in ("all_on", "gated"))
    if options.out is not None or whole:
        out = options.out or HERE / "results"
        write_json(out / "digits.json", made)
        draw(made, out / "digits.png")
    else:
        print("digits.json was not written: all_on and gated are not there for all speakers and seeds")
    for name in SHOWN:
        if name in made:
            print(name, {key: value for key, value in made[name].items() if not key.startswith("by_")})


if __name__ == "__main__":
    main()
