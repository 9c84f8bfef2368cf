"""What decides a label model and a run of its training."""

from __future__ import annotations

from dataclasses import dataclass

from tercet.settings import check_counts

SOFT = ("share", "consensus")
GATES = ("on", "learnt")


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of a label model.

    Attributes:
        dim: of turns and of the blocks.
        num_heads: of attention.
        feed_forward_dim: hidden units of the feed-forward maps.
        text_layers, mixing_layers, dialogue_layers: blocks over the words of a turn (of the small text encoder), over
            the parts of a turn, and over the turns of a dialogue; a dialogue without layers knows no other turns.
        max_words: the most different words that have a vector of their own.
        max_tokens: of a text; longer ones are read in overlapping windows.
        wide: whether a ridge regression on words and what is known of turns stands beside the blocks.
        encoder: the directory of a Hugging Face encoder with its fast tokenizer, in the place of the small text
            encoder; None: the small one.
        tune_encoder: whether that encoder is trained too, or stays as it is.
        gates: "on", or "learnt": arbitrators decide which tokens need which blocks of the text encoder.
        dropout: in training.
        feedback: whether feedback signals are inputs; not where they are what labels come from.

    Raises:
        ValueError: a setting is out of range.
    """

    dim: int = 64
    num_heads: int = 4
    feed_forward_dim: int = 128
    text_layers: int = 1
    mixing_layers: int = 1
    dialogue_layers: int = 2
    max_words: int = 20_000
    max_tokens: int = 128
    wide: bool = True
    encoder: str | None = None
    tune_encoder: bool = True
    gates: str = "on"
    dropout: float = 0.3
    feedback: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        check_counts(self, _SIZES, ("dim", "num_heads", "feed_forward_dim", "max_words"))
        check_counts(self, _SIZES, ("text_layers", "mixing_layers", "dialogue_layers"), 0)
        check_counts(self, _SIZES, ("max_tokens",), 8)
        if self.dim % self.num_heads:
            raise ValueError(f"{_SIZES}: dim must be a multiple of num_heads = {self.num_heads}, got {self.dim}")
        if self.gates not in GATES:
            raise ValueError(f"{_SIZES}: gates must be one of {', '.join(GATES)}, got {self.gates!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{_SIZES}: dropout must be in 0..1 without 1, got {self.dropout}")


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a run of training, beside data and model.

    Attributes:
        epochs: passes over the data.
        batch_size: dialogues of a batch.
        learning_rate: of AdamW, the highest; reached linearly over the first tenth of the steps, then linear down to 0.
        encoder_learning_rate: the same for a Hugging Face encoder that is tuned.
        weight_decay: of AdamW.
        soft: where annotators stand in for gold: "share" of those who say so, or the "consensus" that Dawid and Skene's
            model finds.
        held_out: share of the dialogues, in 0..0.5, that are not learnt from: confidence is calibrated on them, and
            `generate` chooses its thresholds on them. 0: no calibration.
        buffer: how many dialogues are kept ready and shuffled together; data that need more are read anew every epoch.
        target_compute: of learnt gates: the share of the text encoder's multiply-adds to come down to.
        seed: of everything that is drawn.
        checkpoint_every: epochs.

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int = 6
    batch_size: int = 16
    learning_rate: float = 2e-3
    encoder_learning_rate: float = 5e-5
    weight_decay: float = 0.05
    soft: str = "share"
    held_out: float = 0.1
    buffer: int = 20_000
    target_compute: float = 0.4
    seed: int = 0
    checkpoint_every: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        check_counts(self, _OP, ("epochs", "batch_size", "buffer", "checkpoint_every"))
        for name in ("learning_rate", "encoder_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{_OP}: {name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"{_OP}: weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.held_out <= 0.5:
            raise ValueError(f"{_OP}: held_out must be in 0..0.5, got {self.held_out}")
        if not 0 < self.target_compute <= 1:
            raise ValueError(f"{_OP}: target_compute must be above 0 and at most 1, got {self.target_compute}")
        if self.soft not in SOFT:
            raise ValueError(f"{_OP}: soft must be one of {', '.join(SOFT)}, got {self.soft!r}")


_SIZES, _OP = "tercet.labeling.ModelSettings", "tercet.labeling.TrainingSettings"
