"""What was heard in a turn -> a vector: log-mel frames, two convolutions, and their mean and largest values.

Frames of 25 ms every 10 ms, whatever the rate; 24 triangles equally far apart on the mel scale between 60 and 3,800 Hz
(what lies above half the rate is empty); each recording less its own mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.data.dialogues import Audio
from tercet.labeling.model.blocks import Linear

BINS = 24
LOWEST, HIGHEST = 60.0, 3800.0
_SECONDS = 20.0  # of a recording, from its beginning
_FLOOR = 1e-5


def samples_of(audio: Audio) -> tuple[Tensor, int]:
    """Samples float32 [n] of the first channel's mean, and their rate.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no sound file. ImportError: soundfile is missing.
    """
    if audio.samples is not None and audio.rate is not None:
        return torch.from_numpy(np.array(audio.samples, np.float32)), audio.rate
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("reading sound needs soundfile: pip install 'tercet[labels]'") from error
    if audio.path is None or not Path(audio.path).is_file():
        raise FileNotFoundError(f"{audio.path}: no such sound file")
    try:
        sound, rate = soundfile.read(audio.path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise ValueError(f"{audio.path}: expected a sound file: {error}") from error
    return torch.from_numpy(sound.mean(1)), int(rate)


def log_mel(samples: Tensor, rate: int) -> Tensor:
    """Frames [num_frames, BINS], one at least."""
    width, hop = max(2, round(0.025 * rate)), max(1, round(0.01 * rate))
    samples = samples[: int(_SECONDS * rate)]
    samples = F.pad(samples, (0, max(0, width - len(samples))))
    size = 1 << (width - 1).bit_length()
    frames = samples.unfold(0, width, hop) * torch.hann_window(width)
    power = torch.view_as_real(torch.fft.rfft(frames, size)).square().sum(-1) / width
    mel = torch.log(power @ _filters(size, rate).T + _FLOOR)
    return mel - mel.mean(0)


@lru_cache
def _filters(size: int, rate: int) -> Tensor:
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (torch.linspace(low, high, BINS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * rate / size
    left, top, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (top - left), (right - bins) / (right - top)
    return torch.minimum(rising, falling).clamp(min=0).float()


class SoundEncoder(nn.Module):
    """Sounds -> [num_sounds, dim], each by itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(BINS, dim, 5, stride=2, padding=2)
        self.second = nn.Conv1d(dim, dim, 5, stride=2, padding=2)
        self.out = Linear(2 * dim, dim)

    def forward(self, sounds: Sequence[Audio]) -> Tensor:
        """[num_sounds, dim]."""
        found = []
        for sound in sounds:
            frames = log_mel(*samples_of(sound)).T[None]
            hidden = F.relu(self.second(F.relu(self.first(frames))))[0]
            found.append(torch.cat([hidden.mean(1), hidden.amax(1)]))
        rows: Tensor = self.out(torch.stack(found))
        return rows
