"""A run of training: epochs, validation, early stopping, and the state that checkpoints keep."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tercet.checkpoints import Checkpoint, check_same, finish_checkpoint, save_checkpoint
from tercet.embedding import storage
from tercet.embedding.model import TransE
from tercet.embedding.settings import TrainingSettings
from tercet.evaluation.ranking import RankingMetrics, link_prediction_metrics
from tercet.graph.splits import Splits, Unseen
from tercet.graph.storage import digest
from tercet.ops.translation_training import (
    Batches,
    Gradients,
    apply_gradients,
    batch_gradients,
    epoch_key,
    optimizer_state,
    sample_batches,
    tail_probability,
)

_BLOCK = 16  # batches that are sampled at once


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was measured.

    Attributes:
        epoch: counted from 1.
        loss: the mean over positives, each with the tables of its step.
        valid: metrics of validation, heads and tails together; None where the epoch has none.
        seconds: of training.
        valid_seconds: of validation.
    """

    epoch: int
    loss: float
    valid: RankingMetrics | None
    seconds: float
    valid_seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What training came to.

    Attributes:
        model: the best one.
        path: its directory, if it was given one.
        epochs: every epoch.
        best_epoch: whose tables the model has: the one with the highest MRR on validation.
        valid: its metrics on validation.
        triples, valid_triples: how many.
        unseen: what validation holds that training does not.
        seconds: of training and validation.
    """

    model: TransE
    path: Path | None
    epochs: list[Epoch]
    best_epoch: int
    valid: RankingMetrics
    triples: int
    valid_triples: int
    unseen: Unseen
    seconds: float


class Reporter:
    """Hears how training goes; does nothing. Subclasses draw progress bars."""

    def on_start(self, splits: Splits, first_epoch: int) -> None:
        """Before the first epoch of this process; `first_epoch` is above 1 where a run is resumed."""

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """After every few steps; `loss` is the mean of the epoch so far."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After every epoch and its validation."""


class Run:
    """A run of training between its epochs; `snapshot` and `restore` are all that checkpoints need."""

    def __init__(
        self, settings: TrainingSettings, splits: Splits, device: torch.device, num_threads: int | None,
        reporter: Reporter, start: TransE | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.splits, self.reporter, self.num_threads = settings, splits, reporter, num_threads
        model = TransE(
            splits.num_entities, splits.num_relations, settings.dim, norm=settings.norm, inverses=settings.inverses,
            dtype=getattr(torch, settings.dtype), seed=settings.seed, initial_bound=settings.first_bound(),
            vocabulary=splits.vocabulary,
        ).to(device)  # fmt: skip
        self.model = model
        # The tables' own memory: the steps change it in place.
        self.tables = model.entities.detach(), model.relations.detach()
        self.started_from = None if start is None else digest({"e": start.entities, "r": start.relations})
        if start is not None:
            for table, first in zip(self.tables, (start.entities, start.relations), strict=True):
                table.copy_(first.detach())
        if settings.unit_ball:
            self.tables[0].div_(self.tables[0].norm(dim=1, keepdim=True).clamp(min=1))
        triples = model.with_inverses(splits.train) if settings.inverses else splits.train
        self.triples = triples.int().to(device)
        self.known = model.filter_index(splits.known, num_threads=num_threads)
        self.filter = model.filter_index(splits.train, num_threads=num_threads) if settings.filter_negatives else None
        self.tail_probability: Tensor | None = None
        if settings.sampling == "bernoulli":
            self.tail_probability = tail_probability(self.triples, len(model.relations))
        self.state = optimizer_state(settings.optimizer_rule(), *self.tables)
        self.num_steps = -(-len(self.triples) // settings.batch_size)
        self.history: list[Epoch] = []
        self.best_epoch, self.stale = 0, 0
        self.gradients: Gradients | None = None  # memory of the last step, for the next
        self.best: tuple[Tensor, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the run that resumes it."""
        data = {"data": self.splits.fingerprint, "valid": digest({"valid": self.splits.valid})}
        return {**asdict(self.settings), **data, "start": self.started_from}

    def snapshot(self) -> Checkpoint:
        """All that the next epoch depends on."""
        state = {
            "epoch": len(self.history),
            "run": self.identity(),
            "best_epoch": self.best_epoch,
            "stale": self.stale,
            "history": [asdict(epoch) for epoch in self.history],
        }
        return Checkpoint(state, self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that changes from epoch to epoch, by name; not copied."""
        tensors = dict(zip(("entities", "relations"), self.tables, strict=True))
        tensors |= dict(zip(("best.entities", "best.relations"), self.best, strict=False))
        for kind, parts in self.state._asdict().items():
            tensors |= {f"optimizer.{kind}.{place}": part for place, part in enumerate(parts)}
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as at `snapshot`."""
        state = checkpoint.state
        self.history = _history(state)
        self.best_epoch, self.stale = state["best_epoch"], state["stale"]
        self.best = tuple(torch.empty_like(table) for table in self.tables)
        for name, tensor in self._tensors().items():
            tensor.copy_(checkpoint.tensors[name])

    def check_same(self, folder: Path, state: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint is of other settings or data."""
        check_same(folder, state.get("run", {}), self.identity())

    def finish(self, folder: Path | None) -> TrainingResult:
        """Train to the end, with a checkpoint at each validation; save the best model."""
        while len(self.history) < self.settings.epochs and self.stale < self.settings.patience:
            self.train_epoch()
            if folder is not None and self.history[-1].valid is not None:
                save_checkpoint(folder, self.snapshot())
        for table, best in zip(self.tables, self.best, strict=True):
            table.copy_(best)
        if folder is not None:
            state = self.snapshot().state
            training = {**asdict(self.settings), "best_epoch": self.best_epoch}
            config = {**self.model.settings(), "data": self.splits.fingerprint, "training": training}
            storage.save_model(folder, *self.tables, self.splits.vocabulary, config)
            finish_checkpoint(folder, state)
        return self.result(self.model, folder)

    def train_epoch(self) -> None:
        """One pass over the triples in an order of its own; then validation, where it is due."""
        started = time.perf_counter()
        epoch = len(self.history) + 1
        generator = torch.Generator().manual_seed(epoch_key(self.settings.seed, epoch))
        order = torch.randperm(len(self.triples), generator=generator)
        triples = self.triples[order.to(self.triples.device)]
        total = torch.zeros((), dtype=torch.float64, device=triples.device)
        step = 0
        for batches in self._blocks(triples, epoch):
            for index in range(len(batches.triples)):
                step += 1
                total += self.train_step(batches, index, (epoch - 1) * self.num_steps + step)
            done = min(step * self.settings.batch_size, len(triples))
            self.reporter.on_step(epoch, step, self.num_steps, float(total) / done)
        loss = float(total) / len(triples)
        if not (math.isfinite(loss) and all(bool(table.isfinite().all()) for table in self.tables)):
            raise ValueError(
                f"tercet.embedding.train: training diverged in epoch {epoch} (loss {loss}): lower learning_rate, it is"
                f" {self.settings.learning_rate}, or keep entities within the unit ball (unit_ball)"
            )
        trained = time.perf_counter()
        valid = self.validate() if epoch % self.settings.valid_every == 0 or epoch == self.settings.epochs else None
        seconds = trained - started, time.perf_counter() - trained
        self.history.append(Epoch(epoch, loss, valid, *seconds))
        if valid is not None:
            self._keep_best(valid)
        self.reporter.on_epoch(self.history[-1])

    def _blocks(self, triples: Tensor, epoch: int) -> Iterator[Batches]:
        """The batches of an epoch, several at a time; what is left over makes a smaller last one."""
        size = min(self.settings.batch_size, len(triples))
        chunk_size = self.settings.chunk_size if self.settings.sampling == "shared" else 1
        full = len(triples) // size
        bounds = [(first, min(first + _BLOCK, full) * size) for first in range(0, full, _BLOCK)]
        shaped = [(first, triples[first * size : end].view(-1, size, 3)) for first, end in bounds]
        if full * size < len(triples):
            shaped.append((full, triples[full * size :][None]))
        for batch, block in shaped:
            yield sample_batches(
                block, num_entities=self.model.num_entities, num_negatives=self.settings.num_negatives,
                chunk_size=chunk_size, tail_probability=self.tail_probability, known=self.filter,
                seed=self.settings.seed, epoch=epoch, first=batch * -(-size // chunk_size),
                num_threads=self.num_threads,
            )  # fmt: skip

    def train_step(self, batches: Batches, index: int, step: int) -> Tensor:
        """One step of the optimizer; returns the sum of the losses of its positives."""
        settings, norm = self.settings, self.settings.norm
        fits = self.gradients is not None and len(self.gradients.loss) == batches.triples.shape[1]
        gradients = self.gradients = batch_gradients(
            *self.tables, batches, index, norm=norm, loss=settings.loss_rule(), known=self.filter,
            out=self.gradients if fits else None, num_threads=self.num_threads,
        )  # fmt: skip
        optimizer = settings.optimizer_rule((step - 1) / (settings.epochs * self.num_steps))
        apply_gradients(
            *self.tables, self.state, batches, index, gradients, norm=norm, optimizer=optimizer, step=step,
            unit_ball=settings.unit_ball, num_threads=self.num_threads,
        )  # fmt: skip
        return gradients.loss.sum()

    def validate(self) -> RankingMetrics:
        """Metrics on validation; known triples of all splits are no rivals."""
        ranks = self.model.rank(self.splits.valid, known=self.known, num_threads=self.num_threads)
        return link_prediction_metrics(ranks).both

    def _keep_best(self, valid: RankingMetrics) -> None:
        if self.best_epoch and valid.mrr <= _valid_of(self.history[self.best_epoch - 1]).mrr:
            self.stale += 1
            return
        self.best_epoch, self.stale = len(self.history), 0
        self.best = tuple(table.clone() for table in self.tables)

    def result(self, model: TransE, folder: Path | None) -> TrainingResult:
        """The result, once the run has finished."""
        return TrainingResult(
            model=model,
            path=folder,
            epochs=self.history,
            best_epoch=self.best_epoch,
            valid=_valid_of(self.history[self.best_epoch - 1]),
            triples=len(self.splits.train),
            valid_triples=len(self.splits.valid),
            unseen=self.splits.unseen("valid"),
            seconds=sum(epoch.seconds + epoch.valid_seconds for epoch in self.history),
        )

    def finished(self, state: dict[str, Any], folder: Path) -> TrainingResult:
        """The result of a run that had finished before."""
        self.history, self.best_epoch = _history(state), state["best_epoch"]
        return self.result(TransE.load(folder, device=self.tables[0].device), folder)


def _history(state: dict[str, Any]) -> list[Epoch]:
    rows = ({**row, "valid": RankingMetrics(**row["valid"]) if row["valid"] else None} for row in state["history"])
    return [Epoch(**row) for row in rows]


def _valid_of(epoch: Epoch) -> RankingMetrics:
    assert epoch.valid is not None, "the best epoch was validated"
    return epoch.valid
