"""A run of training: epochs of fresh strings, the course of gates and their cost, the state that checkpoints keep."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tercet.checkpoints import (
    Checkpoint,
    check_same,
    finish_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from tercet.graph.storage import digest
from tercet.nn import CostWeight
from tercet.speech import storage
from tercet.speech.digits import BLANK, Clips
from tercet.speech.features import FRAME, mask_bins
from tercet.speech.guides import Teacher, along_path
from tercet.speech.model import DigitRecognizer
from tercet.speech.optimizers import optimizers
from tercet.speech.settings import ModelSettings, TrainingSettings
from tercet.speech.strings import LONGEST, SHORTEST, Batch, StringMaker

SPEEDS = (0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.25)  # of the copies that training strings are made from
SHORTEST_HOP, LONGEST_HOP = 56, 112  # of log-mel frames in training: 1.43 times as slow to 1.4 times as fast
_FIT = 128  # strings that features are normalised by
_LARGEST_GRADIENT = 1.0
_RATE = 0.05  # of the controller
_WIDEST_SHIFT, _HALVINGS = 4.0, 12  # of thresholds, in logits
_MEET_EVERY = 5  # epochs of settling: as blocks change, so does the share that their gates leave on
_RISE, _FALL = 0.04, 0.2  # shares of the steps over which the learning rate rises and falls
_GUIDED = 0.8  # share of the steps that know the path: blocks learn anew what gates leave them, and it helps then, too
_AFTER_WARM_UP = (
    "gates",
    "cost_weight",
    "target_compute",
    "ramp",
    "settle",
    "temperature",
    "last_temperature",
    "mode",
    "window",
    "teacher",
    "teacher_weight",
)
_SHORT = (1, 2)  # digits of a string in the first epochs


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was measured.

    Attributes:
        epoch: counted from 1.
        loss: of recognition, the mean over steps.
        compute_share: of the whole model's all-on multiply-adds, the mean over steps, with drawn gates; while settling,
            with decided ones.
        cost_weight: of the last step; while settling the loss holds no cost, whatever the weight.
        seconds: it took.
    """

    epoch: int
    loss: float
    compute_share: float
    cost_weight: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What training came to.

    Attributes:
        model: after the last step, in evaluation mode.
        path: its directory, if it was given one.
        epochs: every epoch.
        clips: how many it learnt from.
        seconds: of training.
        compute_share: of the finished model, of its all-on multiply-adds, on fresh training strings, with gates decided
            as in use; above 1 where arbitrators cost more than they save.
    """

    model: DigitRecognizer
    path: Path | None
    epochs: list[Epoch]
    clips: int
    seconds: float
    compute_share: float


class Reporter:
    """Hears how training goes; does nothing. Subclasses draw progress bars."""

    def on_start(self, clips: Clips, first_epoch: int) -> None:
        """Before the first epoch of this process; `first_epoch` is above 1 where a run is resumed."""

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """After every step of an epoch; `loss` is its own."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After every epoch."""


class Run:
    """A run of training between its epochs; `snapshot` and `restore` are all that checkpoints need."""

    def __init__(
        self,
        clips: Clips,
        settings: TrainingSettings,
        sizes: ModelSettings,
        hold_out: str | None,
        reporter: Reporter,
        teacher: Teacher | None = None,
    ) -> None:
        self.settings, self.sizes, self.hold_out = settings, sizes, hold_out
        self.reporter, self.teacher = reporter, teacher
        self.clips = clips.to_train(hold_out)
        self.maker = StringMaker(self.clips, speeds=SPEEDS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_key(settings.seed, 0))
            self.model = DigitRecognizer(sizes)
        if teacher is not None:
            teacher.check_clips(self.data, hold_out)
            teacher.teach_to_hear(self.model.features)
        else:
            strings = self._batches(0, _FIT, 1)[0]
            heard = zip(strings.samples, strings.frames, strict=True)
            self.model.features.fit([samples[: int(frames) * FRAME] for samples, frames in heard])
        self.optimizers = optimizers(self.model, settings)
        self.loss = nn.CTCLoss(blank=BLANK, zero_infinity=True)  # infinite where a string is too short for its digits
        self.steer = CostWeight(rate=_RATE)
        self.history: list[Epoch] = []

    @cached_property
    def data(self) -> str:
        """A digest of the clips that are learnt from."""
        clips = self.clips
        parts = {"audio": torch.from_numpy(np.concatenate(clips.audio)), "digits": torch.from_numpy(clips.digits)}
        return digest(parts, [len(clip) for clip in clips.audio], clips.speakers.tolist())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Of the run, beside its settings; `teacher` is which weights that has."""
        teacher = None if self.teacher is None else self.teacher.config["weights"]
        return {"hold_out": self.hold_out, "data": self.data, "teacher": teacher}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        settings = asdict(self.settings)
        if self.teacher is None:  # tells nothing then
            del settings["teacher_weight"]
        return {**settings, **asdict(self.sizes), **self.facts}

    def snapshot(self) -> Checkpoint:
        """All that the next epoch depends on."""
        state = {
            "epoch": len(self.history),
            "run": self.identity,
            "steer": self.steer.state(),
            "history": [asdict(epoch) for epoch in self.history],
        }
        return Checkpoint(state, self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that changes from epoch to epoch, by name; not copied."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for kind, optimizer in self.optimizers.items():
            tensors |= optimizer_tensors(optimizer, kind)
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as at `snapshot`."""
        self.history = [Epoch(**row) for row in checkpoint.state["history"]]
        self.steer.restore(checkpoint.state["steer"])
        self.model.load_state_dict(under(checkpoint.tensors, "model"))
        for kind, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, checkpoint.tensors, kind)

    def start_from(self, warm: Checkpoint) -> None:
        """Be as after the epochs of another run that lie within the warm-up of both.

        Raises:
            ValueError: that run has other data, or other settings than those that tell only after a warm-up (gates,
                cost_weight, target_compute, ramp, settle, temperature, last_temperature, mode, the teacher and its
                weight, and the window, which the blocks then learn anew), has other features (those of a teacher who
                learnt with another seed), or has come further.
        """
        theirs, name = warm.state["run"], "tercet.speech.train"
        for key, value in self.identity.items():
            if key not in _AFTER_WARM_UP and theirs.get(key) != value:
                raise ValueError(f"{name}: the run to start from has {key} = {theirs.get(key)!r}, this one {value!r}")
        if warm.state["epoch"] > self.settings.warm_up_epochs:
            wanted = f"must have come to epoch {self.settings.warm_up_epochs} at most"
            raise ValueError(f"{name}: the run to start from {wanted}, got {warm.state['epoch']}")
        for key, value in self.model.features.state_dict().items():
            if not torch.equal(warm.tensors[f"model.features.{key}"], value):
                raise ValueError(f"{name}: the run to start from hears by another {key}: a teacher of another seed")
        thresholds = {key: value for key, value in self.model.state_dict().items() if key.endswith("_threshold")}
        own = {f"model.{key}": value.clone() for key, value in thresholds.items()}
        self.restore(Checkpoint(warm.state, {**warm.tensors, **own}))

    def check_same(self, folder: Path, state: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint is of other settings or data."""
        check_same(folder, state.get("run", {}), self.identity)

    def finish(self, folder: Path | None) -> TrainingResult:
        """Train to the end, with checkpoints; save the model."""
        while len(self.history) < self.settings.epochs:
            self.train_epoch()
            if folder is not None and len(self.history) % self.settings.checkpoint_every == 0:
                save_checkpoint(folder, self.snapshot())
        target = self.settings.target_compute
        share = self.compute_share(*self._to_measure()) if target is None else self.meet_target(target)
        self.model.eval()
        if folder is not None:
            state = self.snapshot().state
            told = {"training": asdict(self.settings), "compute_share": share}
            storage.save_model(folder, self.model, {**told, **self.facts})
            finish_checkpoint(folder, state)
        return self.result(self.model, folder, share)

    def train_epoch(self) -> None:
        """Fresh strings, once each."""
        started = time.perf_counter()
        epoch, target = len(self.history) + 1, self.settings.target_compute
        settled = epoch - self.settings.settle_epoch - 1
        if target is not None and settled >= 0 and settled % _MEET_EVERY == 0:
            self.meet_target(target)
        self.model.train()
        for block in self.model.encoder.blocks:  # gates that are decided have no gradient, which compact would lose
            block.mode = "compact" if self.settles(epoch) else self.settings.mode
        batches = self._batches(epoch, self.settings.batch_size, self.settings.batches)
        losses, shares = [], []
        with torch.random.fork_rng(devices=[]):  # gates and masks are drawn from torch's own generator
            torch.manual_seed(_key(self.settings.seed, epoch))
            for number, batch in enumerate(batches):
                loss, share = self.train_step(batch, (epoch - 1) * self.settings.batches + number)
                losses.append(loss)
                shares.append(share)
                self.reporter.on_step(epoch, number + 1, len(batches), loss)
        seconds = time.perf_counter() - started
        means = float(np.mean(losses)), float(np.mean(shares))
        self.history.append(Epoch(epoch, *means, self.cost_weight(epoch * self.settings.batches - 1), seconds))
        self.reporter.on_epoch(self.history[-1])

    def _batches(self, epoch: int, size: int, count: int) -> list[Batch]:
        snr = self.settings.lowest_snr, self.settings.highest_snr
        short = 0 < epoch <= self.settings.short * self.settings.epochs
        lengths = _SHORT if short else (SHORTEST, LONGEST)
        return self.maker.training_batches(self.settings.seed, epoch, size, count, snr, lengths)

    def train_step(self, batch: Batch, step: int) -> tuple[float, float]:
        """One step of the optimizer: its loss and share of compute."""
        settings, progress = self.settings, step / self.settings.steps
        hop = int(torch.randint(SHORTEST_HOP, LONGEST_HOP + 1, ()))
        with torch.no_grad():
            rows, frames = self.model.features.stretched(batch.samples, batch.frames, hop)
            rows = mask_bins(rows, settings.masked_bins)
        padding = torch.arange(rows.shape[1]) >= frames[:, None]
        self.model.encoder.temperature = (
            settings.temperature * (settings.last_temperature / settings.temperature) ** progress
        )
        warmed_up = progress >= settings.warm_up
        gated = self.sizes.gates == "learnt" and warmed_up
        settles = gated and self.settles(step // settings.batches + 1)
        gates = self.decided(rows, padding) if settles else None
        log_probs, cost, total = self.model(rows, padding, forced=not gated, gates=gates)
        loss = self.loss(log_probs.transpose(0, 1), batch.digits, frames, batch.lengths)
        share, whole = total.share, loss + self.guidance(step) * along_path(log_probs, batch, frames, hop)
        if self.teacher is not None and warmed_up:
            whole = whole + settings.teacher_weight * self.teacher.divergence(rows, padding, log_probs)
        if gated and not settles:
            if settings.target_compute is not None:
                self.steer.update(share, 1 - (1 - settings.target_compute) * self.ramp(step))
            whole = whole + self.cost_weight(step) * cost.penalty
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = self.learning_rate(step)
            optimizer.zero_grad()
        whole.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        task = loss.item()
        if not (math.isfinite(task) and math.isfinite(norm.item())):
            raise ValueError(
                f"tercet.speech.train: training diverged in step {step + 1} (loss {task}): lower learning_rate,"
                f" it is {settings.learning_rate}"
            )
        for optimizer in self.optimizers.values():
            optimizer.step()
        return task, share

    def settles(self, epoch: int) -> bool:
        """Whether gates are decided without noise in this epoch, and learn no more."""
        return self.sizes.gates == "learnt" and epoch > self.settings.settle_epoch

    @torch.no_grad()
    def decided(self, rows: Tensor, padding: Tensor) -> Tensor:
        """The gates as they will be in use: without noise."""
        self.model.eval()
        gates: Tensor = self.model(rows, padding).cost.gates
        self.model.train()
        return gates

    @torch.no_grad()
    def _to_measure(self) -> tuple[Tensor, Tensor]:
        """Features and padding of fresh strings like those of training, always the same."""
        batch = self._batches(self.settings.epochs + 1, _FIT, 1)[0]
        return self.model.features(batch.samples), batch.padding()

    @torch.no_grad()
    def compute_share(self, rows: Tensor, padding: Tensor) -> float:
        """What the model takes with gates as in use."""
        self.model.eval()
        share: float = self.model(rows, padding).total.share
        return share

    def meet_target(self, target: float) -> float:
        """Shift the thresholds of all arbitrators alike so that fresh training strings take the target's share; the
        share that they then take.

        Drawn gates, which training steers, and decided ones differ a little in number. Where even the widest shift
        takes less or more, it stays at that.
        """
        rows, padding = self._to_measure()
        low, high = -_WIDEST_SHIFT, _WIDEST_SHIFT
        for _ in range(_HALVINGS):
            shift = (low + high) / 2
            for block in self.model.encoder.blocks:
                block.attention_threshold.fill_(shift)
                block.feed_forward_threshold.fill_(shift)
            share = self.compute_share(rows, padding)
            low, high = (shift, high) if share > target else (low, shift)
        return share

    def guidance(self, step: int) -> float:
        """Weight of the known path in the loss: falls from 1 to 0."""
        return max(0.0, 1 - step / (_GUIDED * self.settings.steps))

    def ramp(self, step: int) -> float:
        """How far the cost has come to its full size: 0..1."""
        past = step / self.settings.steps - self.settings.warm_up
        return min(max(past / self.settings.ramp, 0.0), 1.0) if self.settings.ramp else float(past >= 0)

    def cost_weight(self, step: int) -> float:
        """Of the step."""
        if self.settings.target_compute is not None:
            return self.steer.weight
        return self.settings.cost_weight * self.ramp(step)

    def learning_rate(self, step: int) -> float:
        """Of the step."""
        progress = (step + 1) / self.settings.steps
        return self.settings.learning_rate * min(1.0, progress / _RISE, (1 - progress) / _FALL)

    def result(self, model: DigitRecognizer, folder: Path | None, share: float) -> TrainingResult:
        """The result, once the run has finished."""
        seconds = sum(epoch.seconds for epoch in self.history)
        return TrainingResult(model, folder, self.history, len(self.clips), seconds, share)

    def finished(self, state: dict[str, Any], folder: Path) -> TrainingResult:
        """The result of a run that had finished before."""
        self.history = [Epoch(**row) for row in state["history"]]
        return self.result(storage.load_model(folder), folder, float(storage.load_config(folder)["compute_share"]))


def _key(seed: int, epoch: int) -> int:
    """A seed of torch's generator."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
