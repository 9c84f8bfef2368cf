"""What decides a recogniser and a run of its training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tercet.nn.block import MODES
from tercet.settings import check_counts
from tercet.speech.features import BINS

GATES = ("on", "learnt")


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of a recogniser.

    Attributes:
        dim: of the blocks.
        num_layers: how many blocks.
        num_heads: of attention.
        feed_forward_dim: hidden units of the feed-forward maps.
        window: frames to the left that attention sees, beside the frame itself; 40 ms each.
        context: frames that the front end's first convolution sees, the frame itself included.
        front_end_layers, back_end_layers: convolutions before and behind the blocks, five frames each; they run at
            every frame.
        gates: "learnt", or "on": every block runs at every frame, and arbitrators are not asked.

    Raises:
        ValueError: a setting is out of range.
    """

    dim: int = 64
    num_layers: int = 8
    num_heads: int = 4
    feed_forward_dim: int = 256
    window: int = 24
    context: int = 9
    front_end_layers: int = 3
    back_end_layers: int = 2
    gates: str = "learnt"

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        check_counts(self, _SIZES, ("dim", "num_layers", "num_heads", "feed_forward_dim", "context"))
        check_counts(self, _SIZES, ("front_end_layers", "back_end_layers"), 0)
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 0:
            raise ValueError(f"{_SIZES}: window must be an integer of at least 0, got {self.window!r}")
        if self.dim % self.num_heads:
            raise ValueError(f"{_SIZES}: dim must be a multiple of num_heads = {self.num_heads}, got {self.dim}")
        if self.gates not in GATES:
            raise ValueError(f"{_SIZES}: gates must be one of {', '.join(GATES)}, got {self.gates!r}")


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a run of training, beside data and model.

    The blocks all run for the share `warm_up` of the steps. Then arbitrators decide, and what they leave on costs
    `cost_weight` times its share of the encoder's multiply-adds; the weight rises linearly over the share `ramp` of the
    steps. With `target_compute` a controller finds the weight instead (`tercet.nn.CostWeight`), and the target falls
    from 1 over the share `ramp`.

    In the last share `settle` of the epochs, whole ones, gates are decided without noise, as in use, and learn no more:
    the blocks learn to do with what they get. With a target, thresholds are shifted now and then so that it stays met.

    Attributes:
        cost_weight: of compute in the loss; 0: compute is free.
        target_compute: None, or the share of the whole model's all-on multiply-adds to steer to, in 0..1.
        warm_up, ramp, settle: shares of all steps; `settle` is rounded down to whole epochs. With a cost or a target
            they must leave arbitrators steps to learn in: a sum of at most 1.
        temperature, last_temperature: of relaxed gates; it moves geometrically from one to the other.
        epochs: each makes fresh strings.
        batches: of an epoch.
        batch_size: strings of a batch.
        short: share of the epochs, the first, whose strings have one or two digits: alignments are learnt from these in
            a fraction of the time.
        learning_rate: of Muon and AdamW, the highest; reached linearly over the first 4 % of the steps, kept until the
            last 20 %, then linear down to 0.
        weight_decay: of both.
        lowest_snr, highest_snr: signal-to-noise ratios of training strings, in dB.
        masked_bins: at most so many log-mel bins are masked, in each of two places (Park et al.: SpecAugment,
            Interspeech 2019).
        mode: of training while gates are drawn: "dense" or "compact"; see `tercet.nn.ArbitratedEncoderLayer`. Where
            they are decided, only kept frames are computed, which is the same but for rounding.
        teacher_weight: of the divergence from a teacher's log-probabilities (`tercet.speech.guides`) after the
            warm-up, where there is a teacher.
        seed: of everything that is drawn; at least 0.
        checkpoint_every: epochs.

    Raises:
        ValueError: a setting is out of range.
    """

    cost_weight: float = 0.0
    target_compute: float | None = None
    warm_up: float = 0.4
    ramp: float = 0.1
    settle: float = 0.5
    temperature: float = 1.0
    last_temperature: float = 1.0
    epochs: int = 200
    batches: int = 16
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    lowest_snr: float = 3.0
    highest_snr: float = 30.0
    masked_bins: int = 8
    short: float = 0.2
    mode: str = "dense"
    teacher_weight: float = 4.0
    seed: int = 0
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        """Raises ValueError where a setting is out of range."""
        check_counts(self, _OP, ("epochs", "batches", "batch_size", "checkpoint_every"))
        check_counts(self, _OP, ("seed",), 0)
        for name in ("learning_rate", "temperature", "last_temperature", "teacher_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{_OP}: {name} must be above 0, got {getattr(self, name)}")
        for name in ("cost_weight", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{_OP}: {name} must be at least 0, got {getattr(self, name)}")
        for name in ("warm_up", "ramp", "settle", "short"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{_OP}: {name} must be in 0..1, got {getattr(self, name)}")
        if self.target_compute is not None and not 0 < self.target_compute <= 1:
            raise ValueError(f"{_OP}: target_compute must be above 0 and at most 1, got {self.target_compute}")
        if self.target_compute is not None and self.cost_weight:
            raise ValueError(f"{_OP}: give cost_weight or target_compute, not both: a target finds its own weight")
        for name in ("lowest_snr", "highest_snr"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{_OP}: {name} must be finite, got {getattr(self, name)}")
        if not self.lowest_snr <= self.highest_snr:
            got = f"{self.lowest_snr} and {self.highest_snr}"
            raise ValueError(f"{_OP}: lowest_snr must be at most highest_snr, got {got}")
        if isinstance(self.masked_bins, bool) or not 0 <= self.masked_bins <= BINS:
            raise ValueError(f"{_OP}: masked_bins must be in 0..{BINS}, got {self.masked_bins}")
        if self.mode not in MODES:
            raise ValueError(f"{_OP}: mode must be one of {', '.join(MODES)}, got {self.mode!r}")

    @property
    def warm_up_epochs(self) -> int:
        """Whole epochs before arbitrators decide."""
        return int(self.warm_up * self.epochs)

    @property
    def settle_epoch(self) -> int:
        """Whole epochs before gates are decided without noise."""
        return self.epochs - int(self.settle * self.epochs)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.batches


_SIZES, _OP = "tercet.speech.ModelSettings", "tercet.speech.TrainingSettings"
