"""A streaming recogniser of spoken digits: log-mel frames, gated Transformer blocks, connectionist temporal
classification (Graves et al., ICML 2006).

    y = relu(W z)                                  z: four log-mel frames, 96 figures every 40 ms
    x[t] = y[t] + sum_k c[k] * y[t - k]            a causal convolution of each channel: where in a digit a frame lies
    x = x + U relu(d * norm(x))                    front_end_layers times, d a causal convolution of each channel
    x = norm(encoder(x))
    x = x + U relu(d * norm(x))                    back_end_layers times
    p = softmax(V x)                               blank and ten digits

Both ends are cheap and run at every frame: what the front end finds, blocks need not, and the back end sees which
digits were just heard, where frames without blocks cannot. No part looks ahead: frame t of the output depends on
samples up to 320 (t + 1).
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

KERNEL = 5  # frames of a layer of either end
_BINS_OF_TRANSFORM = TRANSFORM // 2 + 1
# Multiply-adds of the log-mel of one frame of the encoder: the window; a transform of real values at the usual
# 2.5 n log2(n) operations, two of which make a multiply-add; the power, two for each of its bins; the filters, as a
# matrix.
LOG_MEL_COST = STACK * (
    WINDOW + round(1.25 * TRANSFORM * math.log2(TRANSFORM)) + 2 * _BINS_OF_TRANSFORM + BINS * _BINS_OF_TRANSFORM
)


def fixed_cost(settings: ModelSettings) -> int:
    """Multiply-adds a frame of log-mel, both ends and head, which no gate saves."""
    layers = (settings.front_end_layers + settings.back_end_layers) * (KERNEL + settings.dim)
    return LOG_MEL_COST + settings.dim * (STACK * BINS + settings.context + layers + BLANK + 1)


def dense_cost(settings: ModelSettings) -> int:
    """Multiply-adds of a frame with a full window and every block on, without arbitrators."""
    dim = settings.dim
    block = 4 * dim * dim + 2 * dim * (settings.window + 1) + 2 * dim * settings.feed_forward_dim
    return settings.num_layers * block + fixed_cost(settings)


def least_share(settings: ModelSettings) -> float:
    """The share of `dense_cost` that is left with every gate off: what no gate saves, and both arbitrators of each
    block."""
    return (fixed_cost(settings) + settings.num_layers * 2 * settings.dim) / dense_cost(settings)


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


def check_evaluating(op: str, model: nn.Module) -> None:
    """Raises RuntimeError where a model is in training mode, in which it draws gates; `op` is who asks."""
    if model.training:
        raise RuntimeError(f"{op}: the model is in training mode, in which gates are drawn; call model.eval() first")


class CausalConvolution(nn.Conv1d):
    """A convolution of each channel over the frames so far: [B, t, dim] -> [B, t, dim]."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__(dim, dim, kernel, groups=dim)

    def step(self, frames: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next frames, and what the call after needs before its own: [B, kernel - 1, dim], zeros at first."""
        if before is None:
            before = frames.new_zeros(len(frames), self.kernel_size[0] - 1, self.in_channels)
        heard = torch.cat([before, frames], 1)
        out = self(heard.transpose(1, 2)).transpose(1, 2) if frames.shape[1] else frames
        return out, heard[:, frames.shape[1] :]


class ConvolutionLayer(nn.Module):
    """x + U relu(d * norm(x)); U starts at zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.convolution = CausalConvolution(dim, KERNEL)
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def step(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `CausalConvolution.step`."""
        seen, after = self.convolution.step(self.norm(x), before)
        return x + self.output(F.relu(seen)), after


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
        self.context = CausalConvolution(dim, settings.context)
        self.front_end_layers = nn.ModuleList(ConvolutionLayer(dim) for _ in range(settings.front_end_layers))
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
        self.back_end_layers = nn.ModuleList(ConvolutionLayer(dim) for _ in range(settings.back_end_layers))
        self.head = nn.Linear(dim, BLANK + 1)

    def front_end(self, rows: Tensor, before: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Rows of four log-mel frames [B, T, 96] -> input of the encoder [B, T, dim], and what the next call needs
        before its rows, of each convolution; None at first."""
        y = F.relu(self.projection(rows))
        seen, first = self.context.step(y, None if before is None else before[0])
        x, after = _through(self.front_end_layers, y + seen, None if before is None else before[1:])
        return x, [first, *after]

    def back_end(self, encoded: Tensor, before: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The encoder's output -> log-probabilities, and what the next call needs before, as `front_end`."""
        x, after = _through(self.back_end_layers, encoded, before)
        return self.head(x).log_softmax(-1), after

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
        return Recognition(self.back_end(encoded)[0], cost, Spent(spent + fixed, cost.dense + fixed))

    @property
    def fixed_cost(self) -> int:
        """Multiply-adds a frame that no gate saves: both ends and head."""
        return fixed_cost(self.settings)


def _through(layers: nn.ModuleList, x: Tensor, before: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """The output of the layers, and what each needs before its next frames."""
    after = []
    for number, layer in enumerate(layers):
        assert isinstance(layer, ConvolutionLayer)
        x, kept = layer.step(x, None if before is None else before[number])
        after.append(kept)
    return x, after
