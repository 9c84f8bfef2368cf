"""A run of training: epochs over dialogues, the loss of all parts together, the state that checkpoints keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from tercet.labeling.annotation.consensus import consensus_of
from tercet.labeling.model import storage
from tercet.labeling.model.batches import Batch, Example
from tercet.labeling.model.heads import loss_of
from tercet.labeling.model.label_model import LabelModel, Output
from tercet.labeling.model.tagging import given_before
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.gates import Steering, meet_target
from tercet.labeling.training.preparing import Source, Survey, batches_of, fit_wide, is_held_out
from tercet.labeling.training.stacking import hidden, is_apart, stack
from tercet.labeling.trust.calibrating import Calibration, calibrate

_RISE = 0.1  # share of the steps over which the learning rate rises
_LARGEST_GRADIENT = 1.0
_OF_TOKENS = ("slots", "slot_names", "edits", "choice")  # whose losses are of tokens or hypotheses
_MEASURED = 64  # dialogues whose texts gates are set by


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was measured.

    Attributes:
        epoch: counted from 1. loss: the mean over steps, by part, before weighting. seconds: it took.
    """

    epoch: int
    loss: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What training came to.

    Attributes:
        model: after the last step, in evaluation mode.
        calibration: of its confidence, on the dialogues that were held out; empty without any.
        path: its directory, if it was given one.
        epochs: every epoch. dialogues, held_out: how many it learnt from, and did not.
        seconds: of training.
    """

    model: LabelModel
    calibration: Calibration
    path: Path | None
    epochs: list[Epoch]
    dialogues: int
    held_out: int
    seconds: float


class Reporter:
    """Hears how training goes; does nothing. Subclasses draw progress bars."""

    def on_start(self, dialogues: int, held_out: int, parts: tuple[str, ...], first_epoch: int) -> None:
        """Before the first epoch of this process; `first_epoch` is above 1 where a run is resumed."""

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """After every step of an epoch; `loss` is its own, of all parts."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After every epoch."""


class Run:
    """A run of training between its epochs; `snapshot` and `restore` are all that checkpoints need.

    Subclasses learn other tasks: `surveyed`, `examples` and `calibrated` say which.
    """

    name = "tercet.labeling.train"

    def __init__(
        self, source: Source, settings: TrainingSettings, sizes: ModelSettings, start: LabelModel | None,
        reporter: Reporter,
    ) -> None:  # fmt: skip
        self.source, self.settings, self.reporter = source, settings, reporter
        self.sizes = sizes if start is None else replace(start.settings, wide=sizes.wide)
        self.survey = self.surveyed()
        if not self.survey.dialogues:
            raise ValueError(f"{self.name}: there must be a dialogue to learn from, got none")
        facts = self.survey.facts
        if not facts.tasks.parts:
            raise ValueError(f"{self.name}: dialogues must have labels or annotations of a task, got none of any")
        if start is not None:
            facts = replace(facts, vocabulary=start.facts.vocabulary, words=start.facts.words)
        self.consensus = consensus_of(self.learnt) if settings.soft == "consensus" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_key(settings.seed, 0))
            self.model = LabelModel(self.sizes, facts, None if start is None else start.folder)
        if start is not None:
            take_over(self.model, start)
        self.ready = self._prepare()
        self.optimizer = optimizer(self.model, settings)
        self.steps = -(-self.survey.dialogues // settings.batch_size) * settings.epochs
        self.history: list[Epoch] = []
        learnt = self.sizes.gates == "learnt"
        self.steering = Steering(self.model.encoder, settings.target_compute) if learnt else None

    def surveyed(self) -> Survey:
        """What follows from the data."""
        return Survey(self.source(), self.settings, self.sizes)

    def learnt(self) -> Iterator[Any]:
        """The dialogues to learn from, in their order."""
        return (dialogue for dialogue in self.source() if not is_held_out(dialogue, self.settings))

    def _prepare(self) -> list[Example] | None:
        """All examples, if they are few enough; ridge regression is fitted to the first."""
        few = self.survey.dialogues <= self.settings.buffer
        if not few and not self.sizes.wide:
            return None
        first: list[Example] = []
        for dialogue in self.learnt():
            if len(first) == self.settings.buffer:
                break
            first.append(self.model.prepare(dialogue, learn=True, consensus=self.consensus, wide=False))
        if self.sizes.wide:
            whole, turns, figures = fit_wide(first, self.model.facts.tasks)
            self.model.set_wide(whole, turns)
            first = [replace(each, figures=pair) for each, pair in zip(first, figures, strict=True)]
        self._figures = {} if few else {each.dialogue.id: each.figures for each in first}
        return first if few else None

    def examples(self, epoch: int) -> Iterator[Example]:
        """Those of an epoch, in the order of the data; some hide labels from the blocks (`stacking`)."""
        for place, example in self._prepared(lambda place: True):
            yield hidden(example, self.model.heads.scales) if self.is_apart(place) else example

    def is_apart(self, place: int) -> bool:
        """Whether the dialogue at this place hides from the blocks what ridge learns too."""
        return bool(self.model.heads.scales) and is_apart(place, self.survey.dialogues)

    def _prepared(self, chosen: Callable[[int], bool]) -> Iterator[tuple[int, Example]]:
        """The examples at the chosen places."""
        if self.ready is not None:
            yield from ((place, example) for place, example in enumerate(self.ready) if chosen(place))
            return
        for place, dialogue in enumerate(self.learnt()):
            if chosen(place):
                figures = self._figures.get(dialogue.id)
                example = self.model.prepare(dialogue, learn=True, consensus=self.consensus, wide=figures is None)
                yield place, replace(example, figures=figures or self.model.figures_of(example))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        version = {"version": storage.VERSION}
        return {**asdict(self.settings), **asdict(self.sizes), **version, "data": self.survey.digest}

    def snapshot(self) -> Checkpoint:
        """All that the next epoch depends on."""
        state = {"epoch": len(self.history), "run": self.identity, "history": [asdict(e) for e in self.history]}
        if self.steering is not None:
            state["steering"] = self.steering.state()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return Checkpoint(state, tensors | optimizer_tensors(self.optimizer, "optimizer"))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as at `snapshot`."""
        self.history = [Epoch(**row) for row in checkpoint.state["history"]]
        if self.steering is not None:
            self.steering.restore(checkpoint.state["steering"])
        self.model.load_state_dict(under(checkpoint.tensors, "model"))
        restore_optimizer(self.optimizer, checkpoint.tensors, "optimizer")

    def check_same(self, folder: Path, state: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint is of other settings or data."""
        check_same(folder, state.get("run", {}), self.identity)

    def finish(self, folder: Path | None) -> TrainingResult:
        """Train to the end, with checkpoints; calibrate and save the model."""
        while len(self.history) < self.settings.epochs:
            self.train_epoch()
            if folder is not None and len(self.history) % self.settings.checkpoint_every == 0:
                save_checkpoint(folder, self.snapshot())
        self.model.eval()
        share = 1.0 if self.steering is None else self.meet_target()
        if any(map(self.is_apart, range(self.survey.dialogues))):
            apart = (example for _, example in self._prepared(self.is_apart))
            stack(self.model, islice(apart, self.settings.buffer), self.settings.batch_size)
        calibration = self.calibrated()
        if folder is not None:
            facts = {"training": asdict(self.settings), "dialogues": self.survey.dialogues, "compute_share": share}
            storage.save_model(folder, self.model, calibration, facts)
            finish_checkpoint(folder, self.snapshot().state)
        return self.result(self.model, calibration, folder)

    def meet_target(self) -> float:
        """Shift the thresholds of the text encoder's gates until it takes the target's share of compute."""
        some = [example for _, example in zip(range(_MEASURED), self.examples(0), strict=False)]
        texts = self.model.batch(some).texts
        return meet_target(self.model.encoder, self.settings.target_compute, lambda: self.model.encoder(texts))

    def calibrated(self) -> Calibration:
        """On the dialogues that were held out."""
        held_out = (dialogue for dialogue in self.source() if is_held_out(dialogue, self.settings))
        return calibrate(self.model, held_out if self.survey.held_out else ())

    def train_epoch(self) -> None:
        """All dialogues once."""
        started, epoch = time.perf_counter(), len(self.history) + 1
        rng = np.random.default_rng([self.settings.seed, epoch])
        per_epoch = self.steps // self.settings.epochs
        losses: dict[str, list[float]] = {}
        self.model.train()
        with torch.random.fork_rng(devices=[]):  # dropout is drawn from torch's own generator
            torch.manual_seed(_key(self.settings.seed, epoch))
            batches = batches_of(
                lambda: self.examples(epoch), self.settings.batch_size, self.settings.buffer,
                lambda count: rng.permutation(count).tolist(),
            )  # fmt: skip
            for number, examples in enumerate(batches):
                found = self.train_step(self.model.batch(examples), (epoch - 1) * per_epoch + number)
                for part, loss in found.items():
                    losses.setdefault(part, []).append(loss)
                self.reporter.on_step(epoch, number + 1, per_epoch, sum(found.values()))
        means = {part: float(np.mean(values)) for part, values in sorted(losses.items())}
        self.history.append(Epoch(epoch, means, time.perf_counter() - started))
        self.reporter.on_epoch(self.history[-1])

    def train_step(self, batch: Batch, step: int) -> dict[str, float]:
        """One step of the optimizer: the losses of its parts."""
        if self.steering is not None:
            self.steering.begin(step / self.steps)
        losses = losses_of(batch, self.model(batch))
        cost = None if self.steering is None else self.steering.cost(step / self.steps)
        if not losses:
            return {}
        whole = self.model.heads.total(losses)
        whole = whole if cost is None else whole + cost
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * rate
        self.optimizer.zero_grad()
        whole.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        found = {part: loss.item() for part, loss in losses.items()}
        if not all(map(math.isfinite, [*found.values(), norm.item()])):
            raise ValueError(
                f"{self.name}: training diverged in step {step + 1}: lower learning_rate, it is"
                f" {self.settings.learning_rate}"
            )
        self.optimizer.step()
        return found

    def rate(self, step: int) -> float:
        """The share of the highest learning rate at a step."""
        progress = min(1.0, (step + 1) / self.steps)
        return min(progress / _RISE, (1 - progress) / (1 - _RISE) + 1 / self.steps, 1.0)

    def result(self, model: LabelModel, calibration: Calibration, folder: Path | None) -> TrainingResult:
        """The result, once the run has finished."""
        seconds = sum(epoch.seconds for epoch in self.history)
        counts = self.survey.dialogues, self.survey.held_out
        return TrainingResult(model, calibration, folder, self.history, *counts, seconds)

    def finished(self, state: dict[str, Any], folder: Path) -> TrainingResult:
        """The result of a run that had finished before."""
        self.history = [Epoch(**row) for row in state["history"]]
        return self.result(*storage.load_model(folder), folder)


def losses_of(batch: Batch, output: Output) -> dict[str, Tensor]:
    """The loss of each part of which the batch knows anything."""
    found: dict[str, Tensor | None] = {
        part: loss_of(logits, *batch.targets[part])
        for part, logits in output.logits.items()
        if part in batch.targets and part not in _OF_TOKENS
    }
    if "slots" in output.logits:
        kinds, known = batch.targets["slots"]
        where = _of_tags(given_before(output.logits["slots"], kinds, batch.token_turn), kinds, known)
        names = _of_tags(output.logits["slot_names"], *batch.targets["slot_names"])
        found["slots"] = where if where is None or names is None else where + names
    if "edits" in output.logits:
        edits = _of_tags(output.logits["edits"], *batch.targets["edits"])
        choice = _choice(batch, output.logits["choice"])
        found["transcription"] = edits if choice is None or edits is None else edits + choice
    return {part: loss for part, loss in found.items() if loss is not None}


def _of_tags(logits: Tensor, tags: Tensor, weights: Tensor) -> Tensor | None:
    whole = weights.sum()
    if not bool(whole > 0):
        return None
    return (F.cross_entropy(logits, tags, reduction="none") * weights).sum() / whole


def _choice(batch: Batch, scores: Tensor) -> Tensor | None:
    """Cross-entropy of the hypotheses of each turn that has several."""
    wanted, weights = batch.targets["choice"]
    if not bool((weights > 0).any()):
        return None
    _, turn = batch.candidate_turn.unique(return_inverse=True)
    count = int(turn.max()) + 1
    top = scores.detach().new_full((count,), -torch.inf).scatter_reduce(0, turn, scores.detach(), "amax")
    total = torch.zeros(count).index_add(0, turn, (scores - top[turn]).exp())
    each = -(scores - top[turn] - total.log()[turn]) * wanted * weights
    return each.sum() / (wanted * weights).sum()


def optimizer(model: LabelModel, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW; weights of maps decay, vectors do not; a Hugging Face encoder has its own learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = settings.encoder_learning_rate if name.startswith("encoder.model.") else settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [
        {"params": found, "lr": rate, "highest": rate, "weight_decay": decay} for (rate, decay), found in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=(0.9, 0.98))


def take_over(model: LabelModel, start: LabelModel) -> None:
    """Give a model the weights of another for all that both have: encoder, mixing, dialogue, vectors of features."""
    own, theirs = model.state_dict(), start.state_dict()
    shared = {
        name: theirs[name]
        for name, value in own.items()
        if not name.startswith(("heads.", "wide_")) and name in theirs and theirs[name].shape == value.shape
    }
    model.load_state_dict({**own, **shared})


def _key(seed: int, epoch: int) -> int:
    """A seed of torch's generator."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
