"""`tercet speech`: train a recogniser of spoken digits, evaluate it, transcribe with it, draw what it does."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from tercet.cli.common import Json, Threads, print_json, set_up
from tercet.cli.progress import Bar
from tercet.plotting import check_plotting
from tercet.speech import (
    Clips,
    Epoch,
    Evaluation,
    Latency,
    ModelSettings,
    Reporter,
    TrainingResult,
    TrainingSettings,
    evaluate,
    measure_latency,
    read_clips,
    strings_to_test,
    train,
)
from tercet.speech.audio import read_sound
from tercet.speech.digits import WORDS
from tercet.speech.features import RATE
from tercet.speech.plotting import Point, plot_blocks, plot_compute
from tercet.speech.storage import load_config, load_model
from tercet.speech.strings import TEST_SNRS
from tercet.speech.transcribing import transcribe

app = typer.Typer(no_args_is_help=True, help="Recognise strings of spoken digits with blocks that run where needed.")

_TRAINING, _SIZES = TrainingSettings(), ModelSettings()
_STREAMED = 20  # strings whose latency is measured
_NEAR = 0.01  # of a target that is met
Model = Annotated[Path, typer.Option(help="The model directory.")]
Data = Annotated[Path, typer.Option(help="An npz file of spoken digits (Free Spoken Digit Dataset at 8 kHz).")]
HoldOut = Annotated[
    str | None, typer.Option(help="The speaker that is not learnt from; without one, the data set's own test clips.")
]
Tested = Annotated[
    str | None,
    typer.Option(help="The speaker whose clips are tested on; default: the one that was held out in training, if any,"
                 " else the data set's own test clips."),
]  # fmt: skip
Snr = Annotated[
    list[float] | None,
    typer.Option("--snr", help=f"Signal-to-noise ratio in dB, may be repeated; default {TEST_SNRS}."),
]
Beam = Annotated[int | None, typer.Option(min=1, help="Width of prefix beam search; default: greedy decoding.")]


class ProgressReporter(Reporter):
    """Draws training on a console: one bar over all epochs, and a line now and then."""

    def __init__(self, console: Console, settings: TrainingSettings) -> None:
        self.console, self.settings = console, settings
        self.bar = Bar(console)

    def on_start(self, clips: Clips, first_epoch: int) -> None:
        """Say how much there is to learn from."""
        self.console.print(
            f"{len(clips):,} clips of {len(clips.names())} speakers to learn from: {', '.join(clips.names())}"
            + (f"; going on with epoch {first_epoch}" if first_epoch > 1 else ""),
            highlight=False,
            soft_wrap=True,
        )
        self.bar.start("epochs", self.settings.epochs, first_epoch - 1)

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """Move the bar."""
        self.bar.move(epoch - 1 + step / num_steps, f"loss {loss:.3f}")

    def on_epoch(self, epoch: Epoch) -> None:
        """A line of figures with every checkpoint."""
        if epoch.epoch % self.settings.checkpoint_every == 0:
            self.console.print(
                f"epoch {epoch.epoch:>4}  loss {epoch.loss:.3f}  compute {100 * epoch.compute_share:.1f} %"
                f"  weight {epoch.cost_weight:.3f}  {epoch.seconds:.2f} s",
                highlight=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self.bar.close()


def _setting(name: str, text: str) -> Any:
    """An option that overrides a setting; None leaves it."""
    default = getattr(_TRAINING if hasattr(_TRAINING, name) else _SIZES, name)
    return typer.Option(help=text, show_default=str(default))


@app.command("train")
def train_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="The model directory to make.")],
    hold_out: HoldOut = None,
    gates: Annotated[str | None, _setting("gates", "learnt, or on: every block runs at every frame.")] = None,
    cost_weight: Annotated[float | None, _setting("cost_weight", "Of compute in the loss.")] = None,
    target_compute: Annotated[
        float | None, _setting("target_compute", "Share of all multiply-adds to steer the weight to.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Model directory of a recogniser to learn from, such as one with gates on."),
    ] = None,
    teacher_weight: Annotated[float | None, _setting("teacher_weight", "Of learning from the teacher.")] = None,
    dim: Annotated[int | None, _setting("dim", "Of the blocks.")] = None,
    num_layers: Annotated[int | None, _setting("num_layers", "How many blocks.")] = None,
    num_heads: Annotated[int | None, _setting("num_heads", "Of attention.")] = None,
    feed_forward_dim: Annotated[int | None, _setting("feed_forward_dim", "Hidden units.")] = None,
    window: Annotated[int | None, _setting("window", "Frames of 40 ms to the left that attention sees.")] = None,
    context: Annotated[int | None, _setting("context", "Frames that the front end's first convolution sees.")] = None,
    front_end_layers: Annotated[int | None, _setting("front_end_layers", "Convolutions before the blocks.")] = None,
    back_end_layers: Annotated[int | None, _setting("back_end_layers", "Convolutions behind the blocks.")] = None,
    warm_up: Annotated[float | None, _setting("warm_up", "Share of steps with every block on.")] = None,
    ramp: Annotated[float | None, _setting("ramp", "Share of steps over which compute gets its cost.")] = None,
    settle: Annotated[float | None, _setting("settle", "Share of steps, the last, with gates as in use.")] = None,
    temperature: Annotated[float | None, _setting("temperature", "Of relaxed gates, at first.")] = None,
    last_temperature: Annotated[float | None, _setting("last_temperature", "Of relaxed gates, at last.")] = None,
    epochs: Annotated[int | None, _setting("epochs", "Each makes fresh strings.")] = None,
    batches: Annotated[int | None, _setting("batches", "Of an epoch.")] = None,
    batch_size: Annotated[int | None, _setting("batch_size", "Strings of a batch.")] = None,
    short: Annotated[float | None, _setting("short", "Share of epochs with strings of one or two digits.")] = None,
    learning_rate: Annotated[float | None, _setting("learning_rate", "The highest.")] = None,
    weight_decay: Annotated[float | None, _setting("weight_decay", "Of Muon and AdamW.")] = None,
    lowest_snr: Annotated[float | None, _setting("lowest_snr", "Of training strings, in dB.")] = None,
    highest_snr: Annotated[float | None, _setting("highest_snr", "Of training strings, in dB.")] = None,
    masked_bins: Annotated[int | None, _setting("masked_bins", "At most, in each of two bands.")] = None,
    mode: Annotated[str | None, _setting("mode", "Of training with gates: dense or compact.")] = None,
    seed: Annotated[int | None, _setting("seed", "Of everything that is drawn.")] = None,
    checkpoint_every: Annotated[int | None, _setting("checkpoint_every", "Epochs.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn to recognise strings of digits in noise, made from the clips; checkpoints are kept on the way.

    Without --cost-weight, --target-compute or --gates on, arbitrators learn but compute is free: nothing asks them to
    close, and their own cost may bring the model's share of multiply-adds above 100 %.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    if teacher_weight is not None and teacher is None:
        raise ValueError("--teacher-weight is that of a --teacher, and there is none")
    settings = replace(_TRAINING, **{name: value for name, value in given.items() if hasattr(_TRAINING, name)})
    sizes = replace(_SIZES, **{name: value for name, value in given.items() if hasattr(_SIZES, name)})
    set_up("cpu", threads)
    with closing(ProgressReporter(Console(stderr=True, quiet=as_json), settings)) as reporter:
        result = train(
            read_clips(data), settings, sizes, hold_out=hold_out, out=out, resume=resume, teacher=teacher,
            reporter=reporter,
        )  # fmt: skip
    if settings.target_compute is not None and abs(result.compute_share - settings.target_compute) > _NEAR:
        Console(stderr=True).print(
            f"{out}: the model takes {100 * result.compute_share:.1f} % of the multiply-adds, not the target's"
            f" {100 * settings.target_compute:.1f} %: no shift of its thresholds comes closer",
            highlight=False,
            soft_wrap=True,
        )
    if as_json:
        print_json(training_summary(result))
    else:
        describe_training(Console(), result)


def training_summary(result: TrainingResult) -> dict[str, Any]:
    """What training came to, for programs."""
    return {
        "path": str(result.path),
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "clips": result.clips,
        "seconds": result.seconds,
        "compute_share": result.compute_share,
    }


def describe_training(console: Console, result: TrainingResult) -> None:
    """What training came to, for people."""
    last = result.epochs[-1]
    console.print(
        f"Trained in {result.seconds:.1f} s; the last epoch had a loss of {last.loss:.3f} with"
        f" {100 * last.compute_share:.1f} % of the multiply-adds. The finished model takes"
        f" {100 * result.compute_share:.1f} % on fresh strings.\nModel: {result.path}",
        highlight=False,
        soft_wrap=True,
    )


@app.command("eval")
def eval_command(
    model: Model,
    data: Data,
    hold_out: Tested = None,
    snr: Snr = None,
    beam: Beam = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Word error rate, share of compute, and latency of a stream, on strings of clips that were not learnt from."""
    set_up("cpu", threads)
    hold_out, snrs = _tested(model, hold_out), _snrs(snr)
    strings = strings_to_test(read_clips(data), hold_out, snrs)
    heard = _heard_in_training(Console(stderr=True), model, hold_out)
    recognizer = load_model(model)
    found = evaluate(recognizer, strings, beam=beam)
    latency = measure_latency(recognizer, strings[:: -(-len(strings) // _STREAMED)])
    levels = {level: found.where(np.array([string.snr == level for string in strings])) for level in snrs}
    if as_json:
        print_json({
            **evaluation_summary(found),
            "hold_out": hold_out,
            "heard_in_training": heard,
            "real_time_factor": latency.real_time_factor,
            "step_median_ms": latency.median_ms,
            "step_95_ms": latency.percentile_95_ms,
            "by_snr": {f"{level:g}": evaluation_summary(part) for level, part in levels.items()},
        })  # fmt: skip
    else:
        describe_evaluation(Console(), found, levels, latency)


def _tested(model: Path, hold_out: str | None) -> str | None:
    """The speaker to test on: the one that is asked for, else the one that the model's training held out."""
    return load_config(model).get("hold_out") if hold_out is None else hold_out


def _snrs(given: list[float] | None) -> tuple[float, ...]:
    """Signal-to-noise ratios to test at, checked."""
    snrs = tuple(given or TEST_SNRS)
    if not np.isfinite(snrs).all() or len(set(snrs)) < len(snrs):
        raise ValueError(f"--snr must be finite and given once each, got {', '.join(f'{snr:g}' for snr in snrs)}")
    return snrs


def _heard_in_training(console: Console, model: Path, hold_out: str | None) -> bool:
    """Whether the model has learnt from clips that it is tested on; says so."""
    learnt = load_config(model).get("hold_out")
    if learnt == hold_out:
        return False
    held = f"{learnt} was held out" if learnt else "no speaker was held out"
    console.print(f"{model}: {held} in training, so it has heard clips of these strings", highlight=False)
    return True


def evaluation_summary(found: Evaluation) -> dict[str, Any]:
    """The figures, for programs."""
    return {
        "word_error_rate": found.word_error_rate,
        "compute_share": found.compute_share,
        "compute_share_speech": found.compute_share_speech,
        "strings": len(found.words),
        "words": int(found.words.sum()),
    }


def describe_evaluation(console: Console, found: Evaluation, levels: dict[float, Evaluation], latency: Latency) -> None:
    """A table with a line for each noise level and one for all; a line about the stream."""
    table = Table("signal to noise", "words", "word error rate", "compute", "of speech alone")
    for label, part in [*((f"{level:g} dB", part) for level, part in levels.items()), ("all", found)]:
        rates = part.word_error_rate, part.compute_share, part.compute_share_speech
        table.add_row(label, f"{part.words.sum():,}", *(f"{100 * rate:.1f} %" for rate in rates))
    console.print(table)
    console.print(
        f"A stream takes {latency.median_ms:.2f} ms for 40 ms of sound (95th percentile {latency.percentile_95_ms:.2f}"
        f" ms), real-time factor {latency.real_time_factor:.4f}, over {latency.steps:,} steps in one thread.",
        highlight=False,
        soft_wrap=True,
    )


@app.command("transcribe")
def transcribe_command(
    model: Model,
    sound: Annotated[Path, typer.Argument(help="A sound file (WAV, FLAC, ...).")],
    beam: Beam = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """The digits that are said in a sound file."""
    set_up("cpu", threads)
    recognizer = load_model(model)
    samples, rate = _heard(Console(stderr=True), sound)
    found = transcribe(recognizer, samples, beam=beam)
    if as_json:
        print_json({
            "digits": "".join(map(str, found.digits)),
            "words": " ".join(WORDS[digit] for digit in found.digits),
            "seconds": len(samples) / RATE,
            "rate": rate,
            "resampled": rate != RATE,
            "compute_share": found.compute_share,
        })  # fmt: skip
    else:
        text = " ".join(WORDS[digit] for digit in found.digits) or "(no digits)"
        Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _heard(console: Console, sound: Path) -> tuple[torch.Tensor, int]:
    """The samples of a sound file and its rate; says so where it was resampled."""
    samples, rate = read_sound(sound)
    if rate != RATE:
        console.print(f"{sound}: resampled from {rate} to {RATE} Hz", highlight=False, soft_wrap=True)
    return samples, rate


@app.command("plot")
def plot_command(
    model: Annotated[list[Path], typer.Option(help="A model directory; may be repeated, each is a point.")],
    out: Annotated[Path, typer.Option(help="The folder for compute.png and blocks.png.")],
    data: Annotated[Path | None, typer.Option(help="An npz file of spoken digits, for word errors.")] = None,
    sound: Annotated[Path | None, typer.Option(help="To draw blocks for; else a string of --data.")] = None,
    string: Annotated[int, typer.Option(min=0, help="Which of the test strings to draw blocks for.")] = 0,
    hold_out: Tested = None,
    snr: Snr = None,
    threads: Threads = None,
) -> None:
    """Word errors against compute of each model, and which blocks of the first ran at which frame of an utterance.

    Compute is a share of the first model's multiply-adds with every block on, so that models of other sizes compare.
    """
    if data is None and sound is None:
        raise ValueError("give --data, for word errors and an utterance, or --sound, for an utterance alone")
    set_up("cpu", threads)
    check_plotting()
    console = Console(stderr=True)
    recognizers = [load_model(folder) for folder in model]
    samples, title = torch.zeros(0), ""
    if sound is not None:
        (samples, _), title = _heard(console, sound), sound.name
    if data is not None:
        hold_out = _tested(model[0], hold_out)  # all models on the same strings
        strings = strings_to_test(read_clips(data), hold_out, _snrs(snr))
        if string >= len(strings):
            raise ValueError(f"--string must be one of the {len(strings)} test strings, 0..{len(strings) - 1}")
        chosen = strings[string]
        if sound is None:
            samples = torch.from_numpy(chosen.samples)
            title = f"{' '.join(map(str, chosen.digits))} ({chosen.speaker}, {chosen.noise} noise, {chosen.snr:g} dB)"
        points, whole = [], 0
        for folder, recognizer in zip(model, recognizers, strict=True):
            _heard_in_training(console, folder, hold_out)
            found = evaluate(recognizer, strings)
            whole = whole or int(found.dense.sum())
            points.append(Point(str(folder), float(found.spent.sum()) / whole, found.word_error_rate))
        words = sum(len(said.digits) for said in strings)
        plot_compute(
            points,
            out / "compute.png",
            title=f"{len(strings):,} strings, {words:,} words",
            whole=f"those of {model[0]} with every block on",
        )
    plot_blocks(recognizers[0], samples, out / "blocks.png", title=title)
    Console().print(f"Drawn in {out}", highlight=False, soft_wrap=True)
