"""Training a recogniser of spoken digits."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from tercet.checkpoints import Checkpoint, open_run
from tercet.speech.digits import Clips
from tercet.speech.guides import Teacher
from tercet.speech.model import least_share
from tercet.speech.run import Reporter, Run, TrainingResult
from tercet.speech.settings import ModelSettings, TrainingSettings

_ROUNDING = 1e-9  # of a sum of shares


def train(
    clips: Clips,
    settings: TrainingSettings | None = None,
    sizes: ModelSettings | None = None,
    *,
    hold_out: str | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    start: Checkpoint | None = None,
    teacher: str | PathLike[str] | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a recogniser of strings of digits in noise, on the CPU, and save it where `out` says.

    Every epoch makes fresh strings of copies of the clips that are played faster or slower (`run.SPEEDS`), with a drawn
    tilt of the spectrum, at a tempo that is drawn for each step (`run.SHORTEST_HOP` to `run.LONGEST_HOP`). In the first
    four fifths of the steps the loss also holds the cross-entropy along the path that the strings' maker knows, with a
    weight that falls from 1 to 0 (`guides.along_path`).

    The same arguments, and a teacher of the same weights, give the same model bit for bit on one machine and number of
    threads, also when the run was broken and resumed. Global random state is left as it was.

    Args:
        clips: of all speakers.
        settings: how to train; None: the defaults.
        sizes: of the model; None: the defaults.
        hold_out: a speaker none of whose clips is learnt from. None: the clips of the test split are left out instead.
        out: the model directory to make; must be empty or absent unless `resume`. None: nothing is written.
        resume: go on from the checkpoint in `out`, if there is one.
        start: from `warm_up`, of a run that differs at most in gates, cost_weight, target_compute, ramp, settle,
            temperature, last_temperature, mode, the window, the teacher and its weight: its epochs count as this run's.
            The model is then the same as without a start, bit for bit, if the start had this run's window.
        teacher: model directory of a recogniser that has learnt from the same clips; after the warm-up its
            log-probabilities are learnt from, too (`guides.Teacher`), and features are normalised as its are. A gated
            model comes closer to one with every gate on if that is its teacher. A run that is resumed needs it, too.
        reporter: hears of steps and epochs.

    Raises:
        ValueError: there is no such speaker, no clip is left, `out` is not empty, the checkpoint or the start is of
            another run, the target is below what no gate saves, arbitrators that have a cost or a target get no steps
            to learn in (warm_up + ramp + settle is above 1), the teacher's files are broken, it has learnt from other
            clips or gets no steps to teach in, or training diverges. FileNotFoundError: there is no teacher. OSError: a
            file cannot be written; the checkpoint before stays.

    Source:
        Xie et al.: Compute Cost Amortized Transformer for Streaming ASR, Interspeech 2022, for the gates and their cost
        in the loss; the schedules are ours. Teachers: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural
        Network, 2015.
    """
    settings = TrainingSettings() if settings is None else settings
    sizes = ModelSettings() if sizes is None else sizes
    if sizes.gates == "on" and (settings.cost_weight or settings.target_compute is not None):
        raise ValueError("tercet.speech.train: with gates on there is no cost to weigh and no target to steer to")
    if settings.cost_weight or settings.target_compute is not None:
        shares = settings.warm_up, settings.ramp, settings.settle
        if sum(shares) > 1 + _ROUNDING:
            got = " + ".join(f"{share:g}" for share in shares)
            wanted = "with a cost or a target warm_up + ramp + settle must be at most 1"
            raise ValueError(f"tercet.speech.train: {wanted}, or arbitrators have no steps to learn in; got {got}")
    least, target = least_share(sizes), settings.target_compute
    if target is not None and target <= least:
        what = "log-mel, convolutions, head and arbitrators, which no gate saves, take"
        raise ValueError(f"tercet.speech.train: target_compute must be above {least:.4f}, which {what}; got {target}")
    if teacher is not None and settings.warm_up == 1:
        raise ValueError(
            "tercet.speech.train: a teacher teaches after the warm-up, which is all there is: warm_up is 1"
        )
    if resume and out is None:
        raise ValueError("tercet.speech.train: resume needs out, the directory of the run to go on with")
    folder = None if out is None else Path(out)
    checkpoint = None if folder is None else open_run(folder, resume=resume)
    run = Run(clips, settings, sizes, hold_out, reporter or Reporter(), None if teacher is None else Teacher(teacher))
    if folder is not None and checkpoint is not None:
        run.check_same(folder, checkpoint.state)
        if checkpoint.state.get("finished"):
            return run.finished(checkpoint.state, folder)
        run.restore(checkpoint)
    elif start is not None:
        run.start_from(start)
    run.reporter.on_start(run.clips, len(run.history) + 1)
    return run.finish(folder)


def warm_up(
    clips: Clips,
    settings: TrainingSettings | None = None,
    sizes: ModelSettings | None = None,
    *,
    hold_out: str | None = None,
    reporter: Reporter | None = None,
) -> Checkpoint:
    """The part of `train` before arbitrators decide, in which all blocks run: a start that runs with other costs, with
    gates on, a teacher, or another window after it can share (see `train`: all that may differ)."""
    settings = TrainingSettings() if settings is None else settings
    run = Run(clips, settings, ModelSettings() if sizes is None else sizes, hold_out, reporter or Reporter())
    while len(run.history) < settings.warm_up_epochs:
        run.train_epoch()
    return run.snapshot()
