"""What decides a run of training."""

from __future__ import annotations

from dataclasses import dataclass

from tercet.ops.translation import NORMS
from tercet.ops.translation_training import LOSSES, OPTIMIZERS, SAMPLINGS, Loss, Optimizer

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
        initial_bound: first values are uniform in -initial_bound .. initial_bound; None: 6 / sqrt(dim).
        num_negatives: for each positive, or with "shared" for each chunk.
        sampling: "uniform": half of the negatives replace the head and half the tail, by any other entity;
            "bernoulli": heads more often where they have many tails, and the other way round; "shared": the positives
            of a chunk share their negatives.
        chunk_size: positives in a chunk; for "shared".
        filter_negatives: no negative is a training triple.
        loss: "margin", "softmax" or "self_adversarial"; see `tercet.ops.translation_training.Loss`.
        margin: of "margin" and "self_adversarial".
        temperature: of "self_adversarial".
        optimizer: "sgd", "adagrad" (row-wise) or "adam" (rows that a batch touches).
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

    norm: str = "l2"
    dim: int = 128
    dtype: str = "float32"
    inverses: bool = False
    initial_bound: float | None = None
    num_negatives: int = 64
    sampling: str = "uniform"
    chunk_size: int = 50
    filter_negatives: bool = False
    loss: str = "softmax"
    margin: float = 1.0
    temperature: float = 1.0
    optimizer: str = "adagrad"
    learning_rate: float = 0.1
    schedule: str = "constant"
    unit_ball: bool = False
    epochs: int = 100
    batch_size: int = 1000
    seed: int = 0
    valid_every: int = 5
    patience: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{_OP}: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{_OP}: {name} must be a positive integer, got {value!r}")
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{_OP}: {name} must be above 0, got {getattr(self, name)}")
        if self.initial_bound is not None and not 0 < self.initial_bound < float("inf"):
            raise ValueError(f"{_OP}: initial_bound must be above 0, got {self.initial_bound}")
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"{_OP}: margin must be at least 0, got {self.margin}")

    def loss_rule(self) -> Loss:
        """The loss as the training steps take it."""
        return Loss(self.loss, margin=self.margin, temperature=self.temperature)

    def optimizer_rule(self, progress: float = 0.0) -> Optimizer:
        """The optimizer as the training steps take it, where `progress` of all steps, in 0..1, are done."""
        rate = self.learning_rate * (1 - progress if self.schedule == "linear" else 1)
        return Optimizer(self.optimizer, learning_rate=rate)


_OP = "tercet.embedding.train"
