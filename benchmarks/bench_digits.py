"""Spoken digits at less compute: every speaker held out in turn, several seeds, rivals of equal compute.

    python benchmarks/bench_digits.py --work WORK [--speakers theo,george] [--seeds 0,1,2] [--systems all_on,gated]

trains what WORK does not hold yet. Once all_on and gated are there for all speakers and the seeds, it writes
benchmarks/results/digits.json and digits.png; with --out, it writes what there is into that folder. A killed run keeps
warm-ups and systems that it had finished; several processes may work on parts of their own (other speakers or seeds)
in one folder. What WORK holds of other settings than today's is refused.

Systems, each trained for the same number of steps on the same strings:

- all_on: every block runs at every frame.
- gated: arbitrators, steered to TARGET of the whole model's multiply-adds.
- window: every block runs, attention sees fewer frames: of WINDOWS, each trained with seed 0 alone, the one that saves
  most at a ratio of word errors of at most RATIO, or has the fewest errors where none does.
- small: every block runs, of the narrowest width that computes at least TARGET of what all_on does.
- weight W: arbitrators at a fixed cost weight, with seed 0: the curve.

They share the warm-up of a speaker and a seed, in which all blocks run (small, of another width, has its own); after it
gates, cost or window differ. Tested on strings of every clip of the speaker who was held out, once at each of SNRS.
Shares of compute are of all_on's multiply-adds on the same strings, log-mel frames included. The largest possible
saving of a window is that of frames that see themselves alone, where windows are full. Intervals are bootstrapped over
strings, paired: all systems and seeds of a string go together, strings are drawn within speakers.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real_data import real_data
from tercet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tercet.files import read_json, write_json
from tercet.speech import (
    Clips,
    ModelSettings,
    TrainingSettings,
    evaluate,
    read_clips,
    strings_to_test,
    train,
    warm_up,
)
from tercet.speech.model import fixed_cost
from tercet.speech.plotting import Point, plot_compute
from tercet.speech.strings import TEST_SNRS

TRAINING = TrainingSettings()
SIZES = ModelSettings()
SNRS = TEST_SNRS
TARGET, RATIO = 0.395, 1.03
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
WINDOWS = (0, 4)
RESAMPLES = 10_000
FIRST_SEED = 0  # of windows, from which one is chosen, and of the curve
HERE = Path(__file__).resolve().parent
COUNTS = ("errors", "words", "spent", "dense", "spent_speech", "dense_speech")
System = tuple[TrainingSettings, ModelSettings]
_ABSENT = object()  # a setting that there was not


def dense_cost(sizes: ModelSettings) -> int:
    """Multiply-adds of a frame with a full window and every block on."""
    dim = sizes.dim
    block = 4 * dim * dim + 2 * dim * (sizes.window + 1) + 2 * dim * sizes.feed_forward_dim
    return sizes.num_layers * block + fixed_cost(sizes)


def smaller(sizes: ModelSettings, share: float) -> ModelSettings:
    """The narrowest such model that computes at least `share` of what `sizes` does."""
    times = sizes.feed_forward_dim // sizes.dim
    widths = range(sizes.num_heads, sizes.dim + 1, sizes.num_heads)
    narrower = (replace(sizes, dim=dim, feed_forward_dim=times * dim) for dim in widths)
    return next(own for own in narrower if dense_cost(own) >= share * dense_cost(sizes))


def systems() -> dict[str, System]:
    """All that can be trained, by name."""
    on = replace(SIZES, gates="on")
    return {
        "all_on": (TRAINING, on),
        "gated": (replace(TRAINING, target_compute=TARGET), SIZES),
        "small": (TRAINING, smaller(on, TARGET)),
        **{f"weight {weight:g}": (replace(TRAINING, cost_weight=weight), SIZES) for weight in WEIGHTS},
        **{f"window {window}": (TRAINING, replace(on, window=window)) for window in WINDOWS},
    }


class Bench:
    """What was trained is in `work`, one file for each (speaker, seed, system)."""

    def __init__(self, clips: Clips, work: Path) -> None:
        self.clips, self.work = clips, work
        work.mkdir(parents=True, exist_ok=True)
        self.warm: tuple[tuple[str, int], Checkpoint] | None = None

    def path(self, speaker: str, seed: int, system: str) -> Path:
        return self.work / f"{speaker} {seed} {system}.json"

    def settings(self, seed: int, system: str) -> System:
        """Of training and model."""
        training, sizes = systems()[system]
        return replace(training, seed=seed), sizes

    def read(self, speaker: str, seed: int, system: str) -> dict[str, Any]:
        """What was measured before. ValueError: with other settings than today's."""
        path = self.path(speaker, seed, system)
        found = read_json(path)
        for name, own in _as_stored(*self.settings(seed, system)).items():
            before = found.get(name) or {}
            differ = sorted(key for key in {*own, *before} if own.get(key, _ABSENT) != before.get(key, _ABSENT))
            if differ:
                raise ValueError(
                    f"{path}: it was measured with other {name} settings than today's: {', '.join(differ)}"
                )
        return found

    def measure(self, speaker: str, seed: int, system: str) -> None:
        """Train and test one system, unless that was done."""
        path = self.path(speaker, seed, system)
        if path.exists():
            self.read(speaker, seed, system)
            return
        started, (training, sizes) = time.perf_counter(), self.settings(seed, system)
        start = self._warm_up(speaker, seed) if sizes.dim == SIZES.dim else None
        result = train(self.clips, training, sizes, hold_out=speaker, start=start)
        strings = strings_to_test(self.clips, speaker, SNRS)
        found = evaluate(result.model, strings)
        seconds = time.perf_counter() - started
        counts = {name: getattr(found, name).tolist() for name in COUNTS}
        snrs, noises = [string.snr for string in strings], [string.noise for string in strings]
        settings = _as_stored(training, sizes)
        write_json(path, {**counts, "snr": snrs, "noise": noises, "seconds": seconds, **settings})
        rates = (
            f"{100 * found.word_error_rate:.1f} % word errors, {100 * found.compute_share:.1f} % of its multiply-adds"
        )
        print(f"{speaker}, seed {seed}, {system}: {rates}, {seconds:.0f} s", flush=True)

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

    def pooled(self, system: str, seeds: list[int], speakers: list[str]) -> dict[str, Any] | None:
        """Counts [seeds, strings] of all speakers' strings in order; None unless all was measured."""
        paths = [[self.path(speaker, seed, system) for speaker in speakers] for seed in seeds]
        if not all(path.exists() for row in paths for path in row):
            return None
        rows = [[self.read(speaker, seed, system) for speaker in speakers] for seed in seeds]
        found: dict[str, Any] = {
            name: np.stack([np.concatenate([part[name] for part in row]) for row in rows]) for name in COUNTS
        }
        found["snr"] = np.concatenate([part["snr"] for part in rows[0]])
        found["speaker"] = np.repeat(speakers, [len(part["snr"]) for part in rows[0]])
        return found


def _as_stored(training: TrainingSettings, sizes: ModelSettings) -> dict[str, Any]:
    """Settings as a measured part keeps them."""
    return {"training": asdict(training), "model": asdict(sizes)}


def figures(found: dict[str, Any], dense: dict[str, Any], chosen: Any = slice(None)) -> dict[str, float]:
    """Word error rate and shares of compute, of all_on's multiply-adds; `chosen` strings."""

    def total(counts: dict[str, Any], name: str) -> float:
        return float(counts[name][:, chosen].sum())

    return {
        "word_error_rate": total(found, "errors") / total(found, "words"),
        "compute_share": total(found, "spent") / total(dense, "dense"),
        "compute_share_speech": total(found, "spent_speech") / total(dense, "dense_speech"),
    }


def ratio_interval(found: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """Ratio of word errors and its 95 % interval by a paired bootstrap over strings, within speakers."""
    ours, theirs = found["errors"].sum(0), dense["errors"].sum(0)
    rng = np.random.default_rng(0)
    sums = np.zeros((2, RESAMPLES))
    for speaker in dict.fromkeys(dense["speaker"].tolist()):
        own = np.flatnonzero(dense["speaker"] == speaker)
        drawn = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES)
        sums += drawn @ ours[own], drawn @ theirs[own]
    low, high = np.quantile(sums[0] / sums[1], [0.025, 0.975])
    return {"word_error_ratio": float(ours.sum() / theirs.sum()), "word_error_ratio_95": [float(low), float(high)]}


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
    window = choose_window(bench, speakers)
    made["largest_possible_window_saving"] = 1 - dense_cost(replace(SIZES, window=0)) / dense_cost(SIZES)
    made |= {"model": asdict(SIZES), "small_model": asdict(smaller(SIZES, TARGET)), "training": asdict(TRAINING)}
    for name, system in (("all_on", "all_on"), ("gated", "gated"), ("window", window), ("small", "small")):
        done = [seed for seed in seeds if system and bench.pooled(system, [seed], speakers) is not None]
        done = [seed for seed in done if bench.pooled("all_on", [seed], speakers) is not None]
        if not done:
            continue
        found, dense = (bench.pooled(part, done, speakers) for part in (str(system), "all_on"))
        assert found is not None
        assert dense is not None
        made[name] = {**figures(found, dense), "words": int(found["words"].sum()), "seeds": done, "system": system}
        if name != "all_on":
            made[name] |= ratio_interval(found, dense)
        made[name]["by_snr"] = {f"{snr:g}": figures(found, dense, found["snr"] == snr) for snr in SNRS}
        by_speaker = {speaker: figures(found, dense, found["speaker"] == speaker) for speaker in speakers}
        made[name]["by_speaker"] = by_speaker
    for key, names in (("curve", [f"weight {w:g}" for w in WEIGHTS]), ("windows", [f"window {w}" for w in WINDOWS])):
        made[key] = {}
        for system in names:
            found, dense = (bench.pooled(part, [FIRST_SEED], speakers) for part in (system, "all_on"))
            if found is not None and dense is not None:
                made[key][system] = {**figures(found, dense), **ratio_interval(found, dense)}
    if "gated" in made:
        shares = [made["gated"]["by_snr"][f"{snr:g}"]["compute_share"] for snr in sorted(SNRS, reverse=True)]
        made["compute_rises_with_noise"] = all(a < b for a, b in itertools.pairwise(shares))
    return made


def draw(made: dict[str, Any], path: Path) -> None:
    """Word errors against compute of everything in `made`."""
    points = [
        Point(name, made[name]["compute_share"], made[name]["word_error_rate"])
        for name in ("all_on", "gated", "window", "small")
        if name in made
    ]
    for system, found in made["curve"].items():
        points.append(Point(system, found["compute_share"], found["word_error_rate"], "cost weights, first seed"))
    if points:
        words = f"{len(made['speakers'])} speakers, each held out in turn"
        plot_compute(points, path, title=f"Digits in noise: {words}")


def plan(chosen: list[str], seeds: list[int], speakers: list[str]) -> Iterator[tuple[str, int, str]]:
    """What to train, in order: what shares a warm-up goes together; windows and the curve are of FIRST_SEED alone."""
    for seed in seeds:
        for speaker in speakers:
            for system in systems():
                kind = system.split(" ")[0]
                if kind in chosen and (seed == FIRST_SEED or kind not in ("window", "weight")):
                    yield speaker, seed, system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="fsdd_8k.npz; default: in TERCET_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is trained")
    parser.add_argument("--out", type=Path, help="folder for digits.json and digits.png, of whatever is there")
    parser.add_argument("--speakers", help="commas between; default: all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--systems", default="all_on,gated,small,window,weight")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clips = read_clips(options.data or real_data("speech", "fsdd_8k.npz"))
    bench = Bench(clips, options.work)
    seeds, chosen = [int(seed) for seed in options.seeds.split(",")], options.systems.split(",")
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
    for name in ("all_on", "gated", "window", "small"):
        if name in made:
            print(name, {key: value for key, value in made[name].items() if not key.startswith("by_")})


if __name__ == "__main__":
    main()
