"""Sound files of several channels and rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tercet.speech.audio import read_sound

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra `speech`)")
pytest.importorskip("soxr", reason="soxr is not installed (extra `speech`)")


def tone(rate: int) -> np.ndarray:
    """Half a second of 1 kHz."""
    return 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate // 2) / rate)


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = tone(8000)
    soundfile.write(tmp_path / "left.wav", np.stack([samples, np.zeros_like(samples)], 1), 8000, subtype="FLOAT")
    heard, rate = read_sound(tmp_path / "left.wav")
    assert rate == 8000
    np.testing.assert_allclose(heard.numpy(), samples / 2, atol=1e-6)


def test_another_rate_is_the_same_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fast.wav", tone(44100), 44100, subtype="FLOAT")
    heard, rate = read_sound(tmp_path / "fast.wav")
    wanted = tone(8000)
    assert rate == 44100
    assert len(heard) == len(wanted)
    inner = slice(400, -400)  # the ends ring
    np.testing.assert_allclose(heard.numpy()[inner], wanted[inner], atol=1e-3)
