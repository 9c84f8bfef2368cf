"""`tercet label pretrain`, `train` and `generate`: a model of labels, and the labels that it is sure of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tercet.cli.common import Json, Threads, print_json, set_up
from tercet.cli.label_data import say_skipped
from tercet.cli.progress import Bar
from tercet.labeling import (
    Dialogue,
    DialogueReader,
    Epoch,
    GenerationReport,
    ModelSettings,
    Reporter,
    TrainingResult,
    TrainingSettings,
    calibrate,
    generate,
    load_model,
    pretrain,
    thresholds_of,
    train,
    write_dialogues,
)
from tercet.labeling.data.reading import check_suffix
from tercet.labeling.model.storage import load_config

_TRAINING, _SIZES = TrainingSettings(), ModelSettings()
Data = Annotated[Path, typer.Option(help="A .jsonl or .parquet file of dialogues; it may be larger than memory.")]
Out = Annotated[Path, typer.Option(help="The model directory to make.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")]
Skip = Annotated[
    bool, typer.Option("--skip-malformed", help="Count malformed lines and go on; else the first is an error.")
]


class ProgressReporter(Reporter):
    """Draws training on a console: one bar over all epochs, and a line for each."""

    def __init__(self, console: Console, settings: TrainingSettings) -> None:
        self.console, self.settings = console, settings
        self.bar = Bar(console)

    def on_start(self, dialogues: int, held_out: int, parts: tuple[str, ...], first_epoch: int) -> None:
        """Say how much there is to learn from."""
        self._say(
            f"{dialogues:,} dialogues to learn {', '.join(parts)} from, {held_out:,} held out"
            + (f"; going on with epoch {first_epoch}" if first_epoch > 1 else "")
        )
        self.bar.start("epochs", self.settings.epochs, first_epoch - 1)

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """Move the bar."""
        self.bar.move(epoch - 1 + step / max(num_steps, step), f"loss {loss:.3f}")

    def on_epoch(self, epoch: Epoch) -> None:
        """A line of figures."""
        losses = "  ".join(f"{part} {loss:.3f}" for part, loss in epoch.loss.items())
        self._say(f"epoch {epoch.epoch:>3}  {losses}  {epoch.seconds:.1f} s")

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self.bar.close()

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def _setting(name: str, text: str) -> Any:
    """An option that overrides a setting; None leaves it."""
    default = getattr(_TRAINING if hasattr(_TRAINING, name) else _SIZES, name)
    return typer.Option(help=text, show_default=str(default))


Epochs = Annotated[int | None, _setting("epochs", "Passes over the data.")]
BatchSize = Annotated[int | None, _setting("batch_size", "Dialogues of a batch.")]
LearningRate = Annotated[float | None, _setting("learning_rate", "The highest.")]
EncoderRate = Annotated[float | None, _setting("encoder_learning_rate", "The highest, of a Hugging Face encoder.")]
Seed = Annotated[int | None, _setting("seed", "Of everything that is drawn.")]
Buffer = Annotated[int | None, _setting("buffer", "Dialogues that are kept ready and shuffled together.")]
Every = Annotated[int | None, _setting("checkpoint_every", "Epochs.")]
Encoder = Annotated[
    str | None, typer.Option(help="Directory of a Hugging Face encoder; default: a small one from scratch.")
]
Tune = Annotated[bool | None, typer.Option("--tune-encoder/--freeze-encoder", help="Of a Hugging Face encoder.")]
Dim = Annotated[int | None, _setting("dim", "Of turns and blocks.")]
Heads = Annotated[int | None, _setting("num_heads", "Of attention.")]
Hidden = Annotated[int | None, _setting("feed_forward_dim", "Hidden units.")]
TextLayers = Annotated[int | None, _setting("text_layers", "Blocks over words, of the small encoder.")]
MixingLayers = Annotated[int | None, _setting("mixing_layers", "Blocks over the parts of a turn.")]
DialogueLayers = Annotated[
    int | None, _setting("dialogue_layers", "Blocks over turns; 0: turns know nothing of each other.")
]
MaxTokens = Annotated[int | None, _setting("max_tokens", "Of a text; longer ones are read in windows.")]
MaxWords = Annotated[int | None, _setting("max_words", "With a vector of their own.")]
Gates = Annotated[
    str | None, _setting("gates", "on, or learnt: arbitrators switch the text encoder's blocks off word by word.")
]
Target = Annotated[float | None, _setting("target_compute", "Share of the text encoder's compute with learnt gates.")]
Dropout = Annotated[float | None, _setting("dropout", "In training.")]
Feedback = Annotated[
    bool | None, typer.Option("--feedback/--no-feedback", help="Whether feedback signals are inputs; default: yes.")
]


def pretrain_command(
    data: Data, out: Out, epochs: Epochs = None, batch_size: BatchSize = None, learning_rate: LearningRate = None,
    encoder: Encoder = None, tune_encoder: Tune = None, encoder_learning_rate: EncoderRate = None, dim: Dim = None,
    num_heads: Heads = None, feed_forward_dim: Hidden = None, text_layers: TextLayers = None,
    mixing_layers: MixingLayers = None, dialogue_layers: DialogueLayers = None, max_tokens: MaxTokens = None,
    max_words: MaxWords = None, gates: Gates = None, target_compute: Target = None, dropout: Dropout = None,
    feedback: Feedback = None, buffer: Buffer = None,
    seed: Seed = None, checkpoint_every: Every = None, skip_malformed: Skip = False, resume: Resume = False,
    threads: Threads = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Learn without labels: to tell answers that were swapped between dialogues from real ones.

    The model that comes of it is what `tercet label train --start` begins with.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    settings = replace(_given(_TRAINING, given), held_out=0.0)
    sizes = _given(_SIZES, given)
    _run(data, skip_malformed, settings, as_json, threads, lambda source, reporter: pretrain(
        source, settings, sizes, out=out, resume=resume, reporter=reporter))  # fmt: skip


def train_command(
    data: Data, out: Out,
    start: Annotated[
        Path | None, typer.Option(help="A model of pretrain to begin with; it brings its sizes and its encoder.")
    ] = None,
    epochs: Epochs = None, batch_size: BatchSize = None, learning_rate: LearningRate = None,
    weight_decay: Annotated[float | None, _setting("weight_decay", "Of AdamW.")] = None,
    held_out: Annotated[
        float | None, _setting("held_out", "Share of the dialogues that confidence is calibrated on.")
    ] = None,
    soft: Annotated[
        str | None, _setting("soft", "Where annotators stand in for gold: share, or consensus (Dawid and Skene).")
    ] = None,
    wide: Annotated[
        bool | None, typer.Option("--wide/--no-wide", help="Ridge regression on words beside the blocks; default: yes.")
    ] = None,
    encoder: Encoder = None, tune_encoder: Tune = None, encoder_learning_rate: EncoderRate = None, dim: Dim = None,
    num_heads: Heads = None, feed_forward_dim: Hidden = None, text_layers: TextLayers = None,
    mixing_layers: MixingLayers = None, dialogue_layers: DialogueLayers = None, max_tokens: MaxTokens = None,
    max_words: MaxWords = None, gates: Gates = None, target_compute: Target = None, dropout: Dropout = None,
    feedback: Feedback = None, buffer: Buffer = None,
    seed: Seed = None, checkpoint_every: Every = None, skip_malformed: Skip = False, resume: Resume = False,
    threads: Threads = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Learn every task that the dialogues have labels or annotations of; checkpoints are kept on the way.

    A task that a dialogue lacks is not learnt from it. Part of the dialogues is held out, on which confidence is
    calibrated and `tercet label generate` chooses its thresholds.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    settings, sizes = _given(_TRAINING, given), _given(_SIZES, given)
    begun = None if start is None else load_model(start)[0]
    _run(data, skip_malformed, settings, as_json, threads, lambda source, reporter: train(
        source, settings, sizes, start=begun, out=out, resume=resume, reporter=reporter))  # fmt: skip


def generate_command(
    model: Annotated[Path, typer.Option(help="The model directory.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The file to write: .jsonl or .parquet.")],
    min_precision: Annotated[
        float | None,
        typer.Option(help="Write only labels whose precision is at least this, by kind; default: write every label."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Probability at most that a kind's precision is below it nevertheless.")
    ] = 0.05,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Labelled dialogues to choose thresholds on; default: those that training held out."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task to label, may be repeated; default: all of the model's.")
    ] = None,
    annotator: Annotated[str, typer.Option(help="The name under which the labels are written.")] = "tercet",
    human_rate: Annotated[
        float | None, typer.Option(help="Labels an hour that a person makes, to compare with; there is no default.")
    ] = None,
    skip_malformed: Skip = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Add a model's labels to dialogues, with their confidence: those that are sure enough, and report how many.

    Thresholds are chosen by kind of label on labelled dialogues that the model has not learnt from, such that the exact
    lower bound of precision passes; a kind for which none does is left out. What is not sure enough leaves its turn
    open alone: `judged` names the turns of which all was. What is in the dialogues stays.
    """
    if min_precision is not None and not 0 < min_precision < 1:
        raise ValueError(f"--min-precision must be between 0 and 1, got {min_precision}")
    if human_rate is not None and human_rate <= 0:
        raise ValueError(f"--human-rate must be above 0, got {human_rate}")
    check_suffix(out)
    set_up("cpu", threads)
    made, measured = load_model(model)
    if calibration is not None:
        measured = calibrate(made, DialogueReader(calibration))
    thresholds = None if min_precision is None else thresholds_of(made, measured, min_precision, alpha=alpha)
    source = f"model {model} weights {load_config(model)['weights']}"
    source += "" if min_precision is None else f" min_precision {min_precision} alpha {alpha}"
    report = GenerationReport()
    with closing(Bar(Console(stderr=True, quiet=as_json))) as bar:
        bar.start("reading", 1)
        reader = DialogueReader(
            data, skip_malformed=skip_malformed, progress=lambda done, total: _move(bar, done, total)
        )
        labelled = generate(made, reader, measured, thresholds, annotator=annotator, provenance=source, report=report)
        write_dialogues(out, labelled)
    report.skipped = reader.skipped
    say_skipped(reader)
    found = {"file": str(out), **report.to_json(), "min_precision": min_precision, "human_rate": human_rate}
    if human_rate is not None:
        found["times_human_rate"] = found["labels_per_hour"] / human_rate
    print_json(found) if as_json else _describe(Console(), found)


def _given(settings: Any, given: dict[str, Any]) -> Any:
    return replace(settings, **{name: value for name, value in given.items() if hasattr(settings, name)})


def _run(
    data: Path, skip_malformed: bool, settings: TrainingSettings, as_json: bool, threads: int | None,
    learn: Callable[[Callable[[], Iterable[Dialogue]], Reporter], TrainingResult],
) -> None:  # fmt: skip
    set_up("cpu", threads)
    reader = DialogueReader(data, skip_malformed=skip_malformed)
    with closing(ProgressReporter(Console(stderr=True, quiet=as_json), settings)) as reporter:
        result = learn(lambda: reader, reporter)
    say_skipped(reader)
    if as_json:
        print_json({**training_summary(result), "skipped": reader.skipped})
        return
    Console().print(
        f"Learnt {', '.join(result.model.parts)} from {result.dialogues:,} dialogues in {result.seconds:.1f} s;"
        f" {result.held_out:,} were held out.\nModel: {result.path}",
        highlight=False,
        soft_wrap=True,
    )


def training_summary(result: TrainingResult) -> dict[str, Any]:
    """What training came to, for programs."""
    return {
        "path": str(result.path),
        "parts": list(result.model.parts),
        "dialogues": result.dialogues,
        "held_out": result.held_out,
        "seconds": result.seconds,
        "epochs": [asdict(epoch) for epoch in result.epochs],
        "calibration": {
            kind: {
                "claims": len(judged.correct),
                "correct": int(judged.correct.sum()),
                "temperature": judged.temperature,
            }
            for kind, judged in result.calibration.kinds.items()
        },
    }


def _move(bar: Bar, done: int, total: int) -> None:
    if bar.progress is not None:
        bar.progress.update(bar.progress.task_ids[0], completed=done, total=total)


def _describe(console: Console, found: dict[str, Any]) -> None:
    table = Table("labels", "could be made", "written", "coverage", "threshold", "precision bound")
    for kind, each in found["kinds"].items():
        threshold, bound = each.get("threshold"), each.get("bound")
        table.add_row(
            kind, f"{each['claimed']:,}", f"{each['written']:,}", f"{100 * each['coverage']:.1f} %",
            "" if "bound" not in each else "abstains" if threshold is None else f"{threshold:.3f}",
            "" if threshold is None or bound is None else f"{bound:.3f}",
        )  # fmt: skip
    console.print(table)
    lines = [
        f"{found['file']}: {found['dialogues']:,} dialogues, {found['turns']:,} turns,"
        f" {found['turns_per_second']:,.0f} turns a second, {found['labels_per_hour']:,.0f} labels an hour"
        + (f" ({found['times_human_rate']:,.1f} times the stated {found['human_rate']:,.0f} of a person)"
           if "times_human_rate" in found else "")
    ]  # fmt: skip
    if found["long_turns"]:
        lines.append(f"{found['long_turns']:,} turns were longer than the encoder takes and were read in windows")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
