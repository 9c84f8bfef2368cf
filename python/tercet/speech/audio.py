"""Sound files as samples at 8 kHz."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from tercet.speech.features import RATE, checked_samples


def read_sound(path: str | PathLike[str]) -> tuple[Tensor, int]:
    """The samples of a sound file at 8 kHz, float32 [n] in -1..1, and the rate that it has.

    Channels are averaged; another rate is resampled by soxr.

    Raises:
        FileNotFoundError: there is no file. ValueError: it is empty, no sound file, or holds values that are not
            finite or beyond 1e3. ImportError: soundfile or soxr is missing (extra `speech`).
    """
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise ImportError("reading sound needs soundfile and soxr: pip install 'tercet[speech]'") from error
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such sound file")
    if not path.stat().st_size:
        raise ValueError(f"{path}: expected a sound file, got an empty one")
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: expected a sound file: {error}") from error
    samples = sound.mean(1)
    if rate != RATE and len(samples):
        samples = soxr.resample(samples, rate, RATE)
    if not len(samples):  # a few samples of a higher rate make none of ours
        raise ValueError(f"{path}: the sound file holds no samples at {RATE} Hz")
    return checked_samples(str(path), torch.as_tensor(samples, dtype=torch.float32)), int(rate)
