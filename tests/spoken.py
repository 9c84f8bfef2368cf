"""Clips that stand for spoken digits in tests: chords, one for each digit, of three speakers. They are not speech."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from tercet.speech.digits import Clips, read_clips

SPEAKERS = ("ann", "bob", "cy")
REPETITIONS = 2


def arrays() -> dict[str, np.ndarray]:
    """The arrays of a file of 60 clips, 0.12 to 0.2 s long."""
    rng = np.random.default_rng(0)
    pieces, digits, speakers, indices = [], [], [], []
    for place, speaker in enumerate(SPEAKERS):
        for digit in range(10):
            for repetition in range(REPETITIONS):
                time = np.arange(int(rng.integers(960, 1600))) / 8000
                hertz = 300 * 1.25**digit * (1 + 0.02 * place)
                wave = np.sin(2 * np.pi * hertz * time) + 0.5 * np.sin(2 * np.pi * (hertz + 150) * time + repetition)
                pieces.append((4000 * wave).astype(np.int16))
                digits.append(digit)
                speakers.append(speaker)
                indices.append(repetition * 5)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    return {
        "audio": np.concatenate(pieces), "offsets": offsets, "digit": np.array(digits, np.uint8),
        "speaker": np.array(speakers), "index": np.array(indices, np.uint8), "sr": np.array(8000),
    }  # fmt: skip


def write_tones(path: Path, **changes: np.ndarray | None) -> Path:
    """Write the file with some arrays changed, or left out where None."""
    np.savez(path, **{name: value for name, value in {**arrays(), **changes}.items() if value is not None})
    return path


@functools.cache
def tones() -> Clips:
    """The clips as they are read."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read_clips(write_tones(Path(folder) / "tones.npz"))
