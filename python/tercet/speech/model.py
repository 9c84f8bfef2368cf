"""A streaming recogniser of spoken digits: log-mel frames, gated Transformer blocks, connectionist temporal
classification (Graves et al., ICML 2006).

    y = relu(W z)                                  z: four log-mel frames, 96 figures every 40 ms
    x[t] = y[t] + sum_k c[k] * y[t - k]            a causal convolution of each channel: where in a digit a frame lies
    p = softmax(V norm(encoder(x)))                blank and ten digits

No part looks ahead: frame t of the output depends on samples up to 320 (t + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer, ComputeCost
from tercet.speech.digits import BLANK
from tercet.speech.features import BINS, STACK, TRANSFORM, WINDOW, LogMel
from tercet.speech.settings import ModelSettings

_BINS_OF_TRANSFORM = TRANSFORM // 2 + 1
# Multiply-adds of the log-mel of one frame of the encoder: the window; a transform of real values at the usual
# 2.5 n log2(n) operations, two of which make a multiply-add; the power, two for each of its bins; the filters, as a
# matrix.
LOG_MEL_COST = STACK * (
    WINDOW + round(1.25 * TRANSFORM * math.log2(TRANSFORM)) + 2 * _BINS_OF_TRANSFORM + BINS * _BINS_OF_TRANSFORM
)


def fixed_cost(settings: ModelSettings) -> int:
    """Multiply-adds a frame of log-mel, front end and head, which no gate saves."""
    return LOG_MEL_COST + settings.dim * (STACK * BINS + settings.context + BLANK + 1)


@dataclass(frozen=True)
class Spent:
    """Multiply-adds at each frame, int64 [B, T], 0 at padding: of log-mel frames (LOG_MEL_COST) and of all linear maps,
    convolutions and attention products from them to logits.

    Attributes:
        spent: the arbitrators included.
        dense: with every gate on, and no arbitrators.
    """

    spent: Tensor
    dense: Tensor

    @property
    def share(self) -> float:
        """Spent over dense; 0 without frames; above 1 where arbitrators cost more than they save."""
        return float(self.spent.sum() / self.dense.sum().clamp(min=1))


class Recognition(NamedTuple):
    """What the model makes of samples: `log_probs` float [B, T, 11], the blank last; `cost` of the encoder; `total` of
    the whole model."""

    log_probs: Tensor
    cost: ComputeCost
    total: Spent


class DigitRecognizer(nn.Module):
    """See the module.

    Args:
        settings: sizes.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        dim = settings.dim
        self.features = LogMel()
        self.projection = nn.Linear(STACK * BINS, dim)
        self.context = nn.Conv1d(dim, dim, settings.context, groups=dim)
        layer = ArbitratedEncoderLayer(
            dim, settings.num_heads, settings.feed_forward_dim, 0.0, keys="kept", causal=True,
            window=settings.window,
        )  # fmt: skip
        self.encoder = ArbitratedEncoder(layer, settings.num_layers, nn.LayerNorm(dim))
        for block in self.encoder.blocks:  # copies of one layer: let each start from values of its own
            for weight in (block.self_attn.in_proj_weight, block.self_attn.out_proj.weight, block.linear1.weight,
                           block.linear2.weight):  # fmt: skip
                nn.init.xavier_uniform_(weight)
            if settings.gates == "on":  # for streams, which ask
                block.attention_threshold.fill_(-torch.inf)
                block.feed_forward_threshold.fill_(-torch.inf)
        self.head = nn.Linear(dim, BLANK + 1)

    def front_end(self, rows: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows of four log-mel frames [B, T, 96] -> input of the encoder [B, T, dim], and what the next call needs
        before its rows: [B, context - 1, dim], zeros at first."""
        y = F.relu(self.projection(rows))
        if before is None:
            before = y.new_zeros(len(y), self.settings.context - 1, self.settings.dim)
        heard = torch.cat([before, y], 1)
        x = y + self.context(heard.transpose(1, 2)).transpose(1, 2) if y.shape[1] else y
        return x, heard[:, heard.shape[1] - before.shape[1] :]

    def classify(self, encoded: Tensor) -> Tensor:
        """The encoder's output -> log-probabilities."""
        log_probs: Tensor = self.head(encoded).log_softmax(-1)
        return log_probs

    def forward(
        self, rows: Tensor, padding: Tensor, *, forced: bool | None = None, gates: Tensor | None = None
    ) -> Recognition:
        """What is said in `rows` [B, T, 96], the features of samples (`features`).

        Args:
            rows: as `features` gives them.
            padding: bool [B, T], True behind an utterance's end.
            forced: whether every gate is on and no arbitrator is asked; None: as the settings say.
            gates: bool [num_layers, 2, B, T], decided before by the same arbitrators, whose cost is counted.
        """
        forced = self.settings.gates == "on" if forced is None else forced
        if forced:
            gates = padding.new_ones(self.settings.num_layers, 2, *padding.shape, dtype=torch.bool)
        encoded, cost = self.encoder(self.front_end(rows)[0], src_key_padding_mask=padding, gates=gates)
        fixed = cost.valid * self.fixed_cost
        spent = cost.dense if forced else cost.multiply_adds.sum(0)
        return Recognition(self.classify(encoded), cost, Spent(spent + fixed, cost.dense + fixed))

    @property
    def fixed_cost(self) -> int:
        """Multiply-adds a frame that no gate saves: front end and head."""
        return fixed_cost(self.settings)
