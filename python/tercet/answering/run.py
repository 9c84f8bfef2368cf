"""A run of training: epochs, validation, early stopping, and the state that checkpoints keep."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tercet.answering.data import GroundedQuestion
from tercet.answering.encoder import make_encoder
from tercet.answering.evaluating import evaluate_model
from tercet.answering.model import AnswerModel, answer_loss, make_batch
from tercet.answering.storage import save_model
from tercet.checkpoints import (
    Checkpoint,
    check_same,
    finish_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    under,
)
from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.settings import check_counts

# A pretrained encoder learns this much slower than what is trained from scratch.
_PRETRAINED_RATE = 1 / 60
# Whether to exclude the seed is tried out over at least this many steps a choice.
_TRIAL_STEPS = 200


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a run, beside graph, questions and device. Arguments as for `train`."""

    hops: int
    encoder: str = "gru"
    dim: int = 128
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-3
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        check_counts(self, "tercet.answering.train", ("hops", "dim", "epochs", "batch_size", "patience"))
        if self.dim % 2:
            raise ValueError(f"tercet.answering.train: dim must be even, got {self.dim}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"tercet.answering.train: learning_rate must be above 0, got {self.learning_rate}")


@dataclass(frozen=True)
class Epoch:
    """One epoch as it was measured: losses are means, hits_at_1 and f1 are of validation."""

    epoch: int
    loss: float
    valid_loss: float
    hits_at_1: float
    f1: float
    exclude_seed: bool
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What training came to.

    Attributes:
        path: the model directory.
        epochs: every epoch of the run that was kept.
        best_epoch: whose weights the model has.
        hits_at_1, f1: on validation, in 0..1.
        threshold: of the answer set, learnt on validation.
        exclude_seed: whether later hops leave out the question's entity, chosen on validation.
        questions, valid_questions: how many.
        absent_answers: answers, of both, that name no entity of the graph.
        unanswerable: questions, of both, without any answer in the graph.
        seconds: of training, validation and the choice of exclude_seed included.
    """

    path: Path
    epochs: list[Epoch]
    best_epoch: int
    hits_at_1: float
    f1: float
    threshold: float
    exclude_seed: bool
    questions: int
    valid_questions: int
    absent_answers: int
    unanswerable: int
    seconds: float


class Reporter:
    """Hears how training goes; does nothing. Subclasses draw progress bars."""

    def on_start(self, questions: int, valid_questions: int) -> None:
        """Before the first epoch."""

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float, exclude_seed: bool) -> None:
        """After every training step."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After every epoch and its validation."""


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Layers draw from torch's global generators: lend them `seed`, then put back what they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


class Run:
    """A run of training between its epochs; `snapshot` and `restore` are all that checkpoints need."""

    def __init__(
        self, settings: TrainingSettings, graph: KnowledgeGraph, questions: list[GroundedQuestion],
        valid: list[GroundedQuestion], device: torch.device, reporter: Reporter,
    ) -> None:  # fmt: skip
        self.settings, self.graph, self.device, self.reporter = settings, graph, device, reporter
        # Without an answer in the graph there is nothing to learn from; validation counts such questions as missed.
        self.questions, self.valid = [question for question in questions if question.answers], valid
        if not self.questions:
            raise ValueError("tercet.answering.train: questions must have answers in the graph, got none")
        self.every_question = [*questions, *valid]
        self.num_questions = len(questions)
        rows = [(q.question.text, mention) for q in self.questions for mention in range(len(q.seeds))]
        with _seeded(settings.seed, device):
            encoder = make_encoder(settings.encoder, rows, settings.dim)
            model = AnswerModel(encoder, graph.num_relations, settings.hops, dim=settings.dim)
        self.model = model.to(device)
        pretrained = settings.encoder != "gru"
        own = [p for name, p in model.named_parameters() if not (pretrained and name.startswith("encoder."))]
        groups: list[dict[str, Any]] = [{"params": own, "lr": settings.learning_rate}]
        if pretrained:
            rate = settings.learning_rate * _PRETRAINED_RATE
            groups.append({"params": list(encoder.parameters()), "lr": rate})
        self.optimizer = torch.optim.Adam(groups)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.history: list[Epoch] = []
        self.best_epoch, self.stale, self.seconds = 0, 0, 0.0
        self.best_weights: dict[str, Tensor] = {}

    def digest(self) -> str:
        """A hash of the questions, in order."""
        lines = [f"{q.question.text}\t{'|'.join(q.question.answers)}" for q in self.every_question]
        return hashlib.sha256("\n".join([*lines, str(self.num_questions)]).encode()).hexdigest()[:16]

    def check_same(self, state: dict[str, Any], folder: Path) -> None:
        """Raises ValueError where the checkpoint is of other settings, questions or graph."""
        own = {**asdict(self.settings), "questions": self.digest(), "graph": self.graph.fingerprint}
        before = {**state.get("settings", {}), "questions": state.get("questions"), "graph": state.get("graph")}
        check_same(folder, before, own)

    def snapshot(self) -> Checkpoint:
        """All that the next epoch depends on, copied."""
        state = {
            "epoch": len(self.history),
            "settings": asdict(self.settings),
            "questions": self.digest(),
            "graph": self.graph.fingerprint,
            "exclude_seed": self.model.exclude_seed,
            "best_epoch": self.best_epoch,
            "stale": self.stale,
            "seconds": self.seconds,
            "history": [asdict(epoch) for epoch in self.history],
        }
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_weights.items()}
        tensors |= optimizer_tensors(self.optimizer, "optimizer")
        tensors["generator"] = self.generator.get_state()
        return Checkpoint(state, {name: value.detach().clone() for name, value in tensors.items()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be as at `snapshot`."""
        state, tensors = checkpoint.state, checkpoint.tensors
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best_epoch, self.stale, self.seconds = state["best_epoch"], state["stale"], state["seconds"]
        self.model.exclude_seed = state["exclude_seed"]
        self.model.load_state_dict(under(tensors, "model"))
        self.best_weights = {name: value.clone() for name, value in under(tensors, "best").items()}
        restore_optimizer(self.optimizer, tensors, "optimizer")
        self.generator.set_state(tensors["generator"].cpu())

    def finish(self, folder: Path, graph_path: str | PathLike[str] | None) -> TrainingResult:
        """Train to the end, a checkpoint after each epoch; save the best model."""
        if not self.history:
            self.choose_exclusion()
            save_checkpoint(folder, self.snapshot())
        while len(self.history) < self.settings.epochs and self.stale < self.settings.patience:
            self.train_epoch()
            save_checkpoint(folder, self.snapshot())
        self.model.load_state_dict(self.best_weights)
        final = evaluate_model(self.model, self.graph, self.valid, batch_size=self.settings.batch_size)
        state = {**self.snapshot().state, "threshold": final.threshold, "f1": final.f1}
        config = {
            "threshold": final.threshold,
            "graph": {
                "fingerprint": self.graph.fingerprint,
                "path": str(Path(graph_path).resolve()) if graph_path else None,
            },
            "training": {
                **asdict(self.settings),
                "questions": self.num_questions,
                "valid_questions": len(self.valid),
                "best_epoch": self.best_epoch,
                "hits_at_1": final.hits_at_1,
                "f1": final.f1,
            },
        }  # fmt: skip
        save_model(folder, self.model, config)
        finish_checkpoint(folder, state)
        return self.result(folder, state)

    def choose_exclusion(self) -> None:
        """Start once with every seed allowed and once without; go on with what validates better.

        Hits@1 alone would not miss a seed that is one right answer of several, so F1 counts too.
        """
        if self.settings.hops == 1:
            self.train_epoch()
            return
        steps = -(-len(self.questions) // self.settings.batch_size)
        epochs = min(self.settings.epochs, -(-_TRIAL_STEPS // steps))
        start, chosen, seconds = self.snapshot(), None, 0.0
        for exclude_seed in (False, True):
            self.restore(start)
            self.model.exclude_seed = exclude_seed
            for _ in range(epochs):
                self.train_epoch()
            seconds += self.seconds
            best = self.history[self.best_epoch - 1]
            score = best.hits_at_1 + best.f1
            if chosen is None or score > chosen[0]:
                chosen = score, self.snapshot()
        assert chosen is not None
        self.restore(chosen[1])
        self.stale, self.seconds = 0, seconds

    def _score(self) -> tuple[float, float]:
        best = self.history[self.best_epoch - 1]
        return best.hits_at_1, -best.valid_loss

    def train_epoch(self) -> None:
        """One pass over the questions, then validation."""
        started, size = time.perf_counter(), self.settings.batch_size
        order = torch.randperm(len(self.questions), generator=self.generator).tolist()
        seed = int(torch.randint(2**62, (), generator=self.generator))
        epoch, num_steps, total = len(self.history) + 1, -(-len(order) // size), 0.0
        self.model.train()
        with _seeded(seed, self.device):
            for step in range(num_steps):
                chosen = [self.questions[index] for index in order[step * size : (step + 1) * size]]
                loss = self.train_step(chosen)
                total += loss * len(chosen)
                self.reporter.on_step(epoch, step + 1, num_steps, loss, self.model.exclude_seed)
        valid = evaluate_model(self.model, self.graph, self.valid, batch_size=size)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        loss = total / len(order)
        self.history.append(Epoch(epoch, loss, valid.loss, valid.hits_at_1, valid.f1, self.model.exclude_seed, seconds))
        before = self._score() if self.best_epoch else (-1.0, 0.0)
        now = (valid.hits_at_1, -valid.loss)
        self.stale = 0 if now[0] > before[0] else self.stale + 1
        if now > before:
            self.best_epoch = epoch
            self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.reporter.on_epoch(self.history[-1])

    def train_step(self, questions: Sequence[GroundedQuestion]) -> float:
        """One step of the optimizer; returns the loss."""
        batch = make_batch(self.model.encoder, questions, self.graph.num_entities, self.device)
        loss = answer_loss(self.model(self.graph, batch), batch.answers)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def result(self, folder: Path, state: dict[str, Any]) -> TrainingResult:
        """The result, from the state of a finished run."""
        history = [Epoch(**epoch) for epoch in state["history"]]
        best = history[state["best_epoch"] - 1]
        return TrainingResult(
            path=folder,
            epochs=history,
            best_epoch=state["best_epoch"],
            hits_at_1=best.hits_at_1,
            f1=state["f1"],
            threshold=state["threshold"],
            exclude_seed=state["exclude_seed"],
            questions=self.num_questions,
            valid_questions=len(self.valid),
            absent_answers=sum(question.absent for question in self.every_question),
            unanswerable=sum(not question.answers for question in self.every_question),
            seconds=state["seconds"],
        )
