"""Training a label model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path

from tercet.checkpoints import open_run
from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.preparing import source_of
from tercet.labeling.training.run import Reporter, Run, TrainingResult

Dialogues = Sequence[Dialogue] | Callable[[], Iterable[Dialogue]]


def train(
    dialogues: Sequence[Dialogue] | Callable[[], Iterable[Dialogue]],
    settings: TrainingSettings | None = None,
    sizes: ModelSettings | None = None,
    *,
    start: LabelModel | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a label model on the CPU, for the tasks that the dialogues have, and save it where `out` says.

    Of each dialogue, a task is learnt from `labels`, where it is there, else from what annotators say: as the share of
    those who say so, counted by their confidence where they have any, or as their consensus. What is in neither is not
    learnt from that dialogue. Of 4,000 dialogues and more a tenth teaches ridge regression alone, where it does a task,
    and says how much it and the blocks count.

    The same arguments give the same model bit for bit on one machine and number of threads, also when the run was
    broken and resumed. Global random state is left as it was.

    Args:
        dialogues: in memory, or a function that iterates over them anew at each call, such as
            `lambda: DialogueReader(path)`, for those that do not fit.
        settings: how to train; None: the defaults.
        sizes: of the model; None: the defaults.
        start: a model of `pretrain`, or of other tasks, whose encoder, blocks and vocabulary this one takes over, with
            its sizes.
        out: the model directory to make; must be empty or absent unless `resume`. None: nothing is written.
        resume: go on from the checkpoint in `out`, if there is one.
        reporter: hears of steps and epochs.

    Raises:
        ValueError: there is nothing to learn from, `out` is not empty, the checkpoint is of another run, or training
            diverges. OSError: a file cannot be written; the checkpoint before stays.
    """
    settings = TrainingSettings() if settings is None else settings
    sizes = ModelSettings() if sizes is None else sizes
    return run_of(Run, "train", dialogues, settings, sizes, start, out, resume, reporter)


def run_of(
    kind: type[Run],
    name: str,
    dialogues: Dialogues,
    settings: TrainingSettings,
    sizes: ModelSettings,
    start: LabelModel | None,
    out: str | PathLike[str] | None,
    resume: bool,
    reporter: Reporter | None,
) -> TrainingResult:
    """A run of training, from its beginning or its checkpoint to its end."""
    if resume and out is None:
        raise ValueError(f"tercet.labeling.{name}: resume needs out, the directory of the run to go on with")
    folder = None if out is None else Path(out)
    checkpoint = None if folder is None else open_run(folder, resume=resume)
    run = kind(source_of(dialogues), settings, sizes, start, reporter or Reporter())
    if folder is not None and checkpoint is not None:
        run.check_same(folder, checkpoint.state)
        if checkpoint.state.get("finished"):
            return run.finished(checkpoint.state, folder)
        run.restore(checkpoint)
    counts = run.survey.dialogues, run.survey.held_out
    run.reporter.on_start(*counts, run.model.parts, len(run.history) + 1)
    return run.finish(folder)
