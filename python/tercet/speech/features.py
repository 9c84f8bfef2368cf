"""Log-mel features of speech at 8 kHz: a function of samples that a stream computes with the same figures.

Log-mel frame t (one every 10 ms) is

    x[t, m] = log(1e-5 + sum_f mel[m, f] |sum_n hann[n] s[80 t - 120 + n] exp(-2 pi i f n / 256)|^2),  n = 0..199

for samples s in -1..1, zero before the first: a periodic Hann window of 25 ms that ends where the frame ends, so that
nothing waits for later samples; a transform of 256 points; 24 triangles of height 1 whose corners are equally far
apart on the mel scale 2595 log10(1 + f / 700) from 60 to 3,800 Hz: few enough that none tells one harmonic of a voice
from the next, so that pitch hardly shows. It is normalised by what has been heard so far,

    z[t] = (x[t] - (P mean + sum_{u <= t} x[u]) / (P + t + 1)) / deviation,  P = 100 frames (1 s)

with mean and deviation of the training data: a running mean takes away what a microphone and a level add. Four frames
side by side are one frame of the encoder: 40 ms, 96 figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

RATE = 8000
WINDOW, HOP, TRANSFORM = 200, 80, 256
BINS, LOWEST, HIGHEST = 24, 60.0, 3800.0
STACK = 4
FRAME = STACK * HOP  # samples of one frame of the encoder
FLOOR = 1e-5
PRIOR = 100  # log-mel frames that the mean of the training data counts as
SILENCE = 3  # frames of the encoder heard behind the end of a recording, in which the last digit is named
LOUDEST = 1e3  # beyond it samples are no sound in -1..1, whatever their scale: an int16 recording was not divided, say


def checked_samples(op: str, samples: Tensor) -> Tensor:
    """Samples [n] of any floating dtype as float32; `op` is who asks.

    Raises:
        TypeError: they are no floating tensor. ValueError: they have another shape, or a value is not finite or beyond
            LOUDEST.
    """
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        got = samples.dtype if isinstance(samples, Tensor) else type(samples).__name__
        raise TypeError(f"{op}: samples must be a floating tensor, got {got}")
    if samples.dim() != 1:
        raise ValueError(f"{op}: samples must be [n], got {list(samples.shape)}")
    good = samples.abs() <= LOUDEST  # not for NaN
    if not bool(good.all()):
        bad = float(samples[~good][0])
        raise ValueError(f"{op}: samples must be finite and at most {LOUDEST:g} in size, got {bad}")
    return samples.float()


def silence_behind(num_samples: int) -> int:
    """How many zeros a recording of so many samples gets: up to a whole frame, and SILENCE frames."""
    return -num_samples % FRAME + SILENCE * FRAME


def mel_filters() -> Tensor:
    """The triangles over the bins of the transform: float32 [BINS, TRANSFORM // 2 + 1].

    Example:
        >>> mel_filters().shape, mel_filters().max() <= 1
        (torch.Size([24, 129]), tensor(True))
    """
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (torch.linspace(low, high, BINS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(TRANSFORM // 2 + 1, dtype=torch.float64) * RATE / TRANSFORM
    left, top, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (top - left), (right - bins) / (right - top)
    return torch.minimum(rising, falling).clamp(min=0).float()


@dataclass
class FeatureState:
    """What a stream of features keeps: `tail` [B, 120] the last samples, `total` float64 [B, 24] the sum of log-mel
    frames, which stays exact over hours, `count` int64 [B] how many they were."""

    tail: Tensor
    total: Tensor
    count: Tensor


class LogMel(nn.Module):
    """Samples -> normalised log-mel frames, four to a row.

    Attributes:
        mean, deviation: float32 [24], of log-mel frames of the training data (see `fit`).
    """

    window: Tensor
    filters: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("deviation", torch.ones(BINS))

    def log_mel(self, samples: Tensor, hop: int = HOP) -> Tensor:
        """[B, WINDOW - HOP + n] -> [B, (n - HOP) // hop + 1, BINS]: the first 120 samples are those before the first
        frame."""
        if samples.shape[-1] < WINDOW:
            return samples.new_zeros(len(samples), 0, BINS)
        # The transform sets zeros behind the window; where it lies among the points leaves the power as it is.
        frames = samples.unfold(-1, WINDOW, hop) * self.window
        power = torch.view_as_real(torch.fft.rfft(frames, TRANSFORM)).square().sum(-1)
        return torch.log(power @ self.filters.T + FLOOR)

    def initial_state(self, batch_size: int) -> FeatureState:
        """Silence before, nothing heard."""
        zeros = self.mean.new_zeros
        total = zeros(batch_size, BINS, dtype=torch.float64)
        return FeatureState(zeros(batch_size, WINDOW - HOP), total, zeros(batch_size, dtype=torch.int64))

    def step(self, samples: Tensor, state: FeatureState) -> tuple[Tensor, FeatureState]:
        """[B, k * FRAME] samples -> [B, k, STACK * BINS] and the state after them.

        Raises:
            ValueError: the number of samples is no multiple of FRAME.
        """
        if samples.dim() != 2 or samples.shape[1] % FRAME:
            wanted = f"[batch, a multiple of {FRAME}]"
            raise ValueError(f"tercet.speech.LogMel: samples must be {wanted}, got {list(samples.shape)}")
        return self._normalised(torch.cat([state.tail, samples], 1), state, HOP)

    def _normalised(self, heard: Tensor, state: FeatureState, hop: int) -> tuple[Tensor, FeatureState]:
        frames = self.log_mel(heard, hop)
        frames = frames[:, : frames.shape[1] // STACK * STACK]
        totals = state.total[:, None] + frames.cumsum(1)
        counts = state.count[:, None] + torch.arange(1, frames.shape[1] + 1, device=frames.device)
        mean = (PRIOR * self.mean + totals.to(frames.dtype)) / (PRIOR + counts)[..., None]
        rows = ((frames - mean) / self.deviation).unflatten(1, (-1, STACK)).flatten(2)
        if not frames.shape[1]:
            return rows, state
        return rows, FeatureState(heard[:, -(WINDOW - HOP) :], totals[:, -1], counts[:, -1])

    def forward(self, samples: Tensor) -> Tensor:
        """[B, n] samples in -1..1 -> [B, n // FRAME, STACK * BINS]; what is over after whole frames is not heard."""
        whole = samples.shape[-1] // FRAME * FRAME
        return self.step(samples[:, :whole], self.initial_state(len(samples)))[0]

    def stretched(self, samples: Tensor, frames: Tensor, hop: int) -> tuple[Tensor, Tensor]:
        """Features of [B, n] samples as if they were spoken HOP / hop times as slowly, in the same voice, and how many
        of their rows belong to each string of `frames` [B] frames: a log-mel frame every `hop` samples."""
        padded = nn.functional.pad(samples, (WINDOW - HOP, 0))
        rows = self._normalised(padded, self.initial_state(len(samples)), hop)[0]
        return rows, ((frames * FRAME - HOP) // hop + 1) // STACK

    def fit(self, utterances: list[Tensor]) -> LogMel:
        """Set mean and deviation to those of the log-mel frames of `utterances`, each [n]."""
        frames = [self.log_mel(nn.functional.pad(samples[None], (WINDOW - HOP, 0)))[0] for samples in utterances]
        deviation, mean = torch.std_mean(torch.cat(frames).double(), 0)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=1e-3))
        return self


def mask_bins(rows: Tensor, most: int) -> Tensor:
    """Rows [B, T, STACK * BINS] with two bands of 0..most bins at their mean, in each string other ones, drawn from
    torch's own generator."""
    bins = torch.arange(BINS)
    masked = torch.zeros(len(rows), BINS, dtype=torch.bool)
    for _ in range(2):
        width = torch.randint(0, most + 1, (len(rows), 1))
        first = (torch.rand(len(rows), 1) * (BINS - width + 1)).long()
        masked |= (bins >= first) & (bins < first + width)
    return rows.masked_fill(masked.repeat(1, STACK)[:, None], 0)
