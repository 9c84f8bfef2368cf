"""Sounds of turns: frames that do not depend on the rate, and models that hear."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from label_models import SIZES
from tercet.labeling import Audio, Dialogue, Labels, TrainingSettings, Turn, train
from tercet.labeling.model.sound import BINS, SoundEncoder, log_mel, samples_of


def tone(hertz: float, rate: int = 8000, seconds: float = 0.2) -> Audio:
    """After as much silence: of a tone alone, less its own mean, nothing is left."""
    wave = 0.3 * np.sin(2 * math.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return Audio(None, array("f", np.concatenate([0 * wave, wave]).astype(np.float32)), rate)


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_is_in_the_same_bin_at_any_rate(hertz: int) -> None:
    def loudest(rate: int) -> int:
        samples, _ = samples_of(tone(hertz, rate))
        return int(log_mel(samples, rate)[-5:].mean(0).argmax())

    assert len({loudest(rate) for rate in (8000, 16000, 44100)}) == 1


@given(st.sampled_from([1, 2, 300, 8000, 16000]), st.sampled_from([0, 1, 50, 5000]))
def test_any_recording_has_frames(rate: int, count: int) -> None:
    frames = log_mel(torch.linspace(-1, 1, count), rate)
    assert frames.shape[0] >= 1
    assert frames.shape[1] == BINS
    assert bool(frames.isfinite().all())
    assert SoundEncoder(8).eval()([Audio(None, array("f", [0.5] * count), rate)]).shape == (1, 8)


def test_a_model_hears() -> None:
    """What decides the label is in the sound alone; half of the turns have none."""

    def call(number: int) -> Dialogue:
        high = bool(number % 2)
        turns = (Turn("user", "go on", audio=tone(2000 if high else 400)), Turn("system", "yes"))
        return Dialogue(str(number), turns, Labels(defects=(1,) if high else ()))

    settings = TrainingSettings(epochs=30, batch_size=8, held_out=0.0, learning_rate=5e-3)
    model = train([call(number) for number in range(16)], settings, SIZES).model
    found = [float(each.defects[1]) for each in model.predict([call(0), call(1)]) if each.defects is not None]
    assert found[0] < 0.3
    assert found[1] > 0.7
    silent = replace(call(1), turns=tuple(replace(turn, audio=None) for turn in call(1).turns))
    assert model.predict([silent])[0].defects is not None


def test_files(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed (extra `labels`)")
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 2), np.float32), 8000)
    samples, rate = samples_of(Audio(str(tmp_path / "a.wav")))
    assert (samples.shape, rate) == ((100,), 8000)
    with pytest.raises(FileNotFoundError, match="no such sound file"):
        samples_of(Audio(str(tmp_path / "b.wav")))
    (tmp_path / "c.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="expected a sound file"):
        samples_of(Audio(str(tmp_path / "c.wav")))
