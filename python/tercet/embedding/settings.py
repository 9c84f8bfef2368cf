"""What decides a run of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tercet.ops.translation import NORMS
from tercet.ops.translation_training import LOSSES, OPTIMIZERS, SAMPLINGS, Loss, Optimizer
from tercet.settings import check_counts

DTYPES = ("float32", "float64")
SCHEDULES = ("constant", "linear")
_CHOICES = {
    "norm": NORMS,
    "dtype": DTYPES,
    "sampling": SAMPLINGS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
_COUNTS = ("dim", "num_negatives", "chunk_size", "epochs", "batch_size", "valid_every", "patience")


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a run of training, beside data and device.

    Attributes:
        norm: of the score: "l1", "l2" or "dot".
        dim: of the vectors.
        dtype: "float32" or "float64".
        inverses: learn a vector of its own for the way from tail to head, from (tail, inverse, head) as a second
            triple for each; heads are then ranked as its tails.
        initial_bound: first values are uniform in -initial_bound .. initial_bound; None: 6 / sqrt(dim) (Bordes et al.
            2013); where the loss is "self_adversarial" and the norm a distance, what brings first distances near the
            margin: (margin + 2) / dim for "l1" (Sun et al., RotatE, ICLR 2019), (margin + 2) / sqrt(dim) for "l2".
        num_negatives: for each positive, or with "shared" for each chunk.
        sampling: "uniform": half of the negatives replace the head and half the tail, by any other entity;
            "bernoulli": heads more often where they have many tails, and the other way round; "shared": the positives
            of a chunk share their negatives.
        chunk_size: positives in a chunk; for "shared".
        filter_negatives: no negative is a training triple.
        loss: "margin", "softmax" or "self_adversarial"; see `tercet.ops.translation_training.Loss`.
        margin: of "margin" and "self_adversarial".
        temperature: of "self_adversarial".
        optimizer: "sgd", "adagrad", "rowwise_adagrad" (one step size a row) or "adam" (rows that a batch touches).
        learning_rate: in the first step.
        schedule: "constant", or "linear": down to 0 over all steps of all epochs.
        unit_ball: entities longer than 1 are scaled to length 1.
        epochs: at most.
        batch_size: positives a step.
        seed: of everything that is drawn.
        valid_every: epochs between validations; the last epoch has one too.
        patience: stop after so many validations without a better MRR.

    Raises:
        ValueError: a setting is out of range.
    """

    norm: str = "l1"
    dim: int = 200
    dtype: str = "float32"
    inverses: bool = False
    initial_bound: float | None = None
    num_negatives: int = 256
    sampling: str = "shared"
    chunk_size: int = 64
    filter_negatives: bool = True
    loss: str = "self_adversarial"
    margin: float = 7.0
    temperature: float = 1.0
    optimizer: str = "adam"
    learning_rate: float = 4e-3
    schedule: str = "linear"
    unit_ball: bool = False
    epochs: int = 50
    batch_size: int = 1024
    seed: int = 0
    valid_every: int = 5
    patience: int = 10

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{_OP}: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        check_counts(self, _OP, _COUNTS)
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{_OP}: {name} must be above 0, got {getattr(self, name)}")
        if self.initial_bound is not None and not 0 < self.initial_bound < float("inf"):
            raise ValueError(f"{_OP}: initial_bound must be above 0, got {self.initial_bound}")
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"{_OP}: margin must be at least 0, got {self.margin}")

    def first_bound(self) -> float:
        """How large first values are; see initial_bound."""
        if self.initial_bound is not None:
            return self.initial_bound
        if self.loss == "self_adversarial" and self.norm != "dot":
            return (self.margin + 2) / (self.dim if self.norm == "l1" else math.sqrt(self.dim))
        return 6 / math.sqrt(self.dim)

    def loss_rule(self) -> Loss:
        """The loss as the training steps take it."""
        return Loss(self.loss, margin=self.margin, temperature=self.temperature)

    def optimizer_rule(self, progress: float = 0.0) -> Optimizer:
        """The optimizer as the training steps take it, where `progress` of all steps, in 0..1, are done."""
        rate = self.learning_rate * (1 - progress if self.schedule == "linear" else 1)
        return Optimizer(self.optimizer, learning_rate=rate)


_OP = "tercet.embedding.train"
