"""Strings of spoken digits in noise, made from clips: a fixed generator, a function of the clips and a seed.

A string is 3 to 7 clips of one speaker, with pauses before, between and behind:

- silence: a share drawn uniformly from 5 to 25 % of all samples, divided over the pauses in uniformly drawn parts (the
  pause behind the last digit gets at least 60 ms, or all there is); the string fills whole frames of 40 ms;
- level: speech has a root mean square of 0.05 of full scale, times a gain drawn uniformly from -6 to 6 dB;
- noise, over the whole string: white; pink (power falls as 1 / f above 30 Hz); or babble, the sum of six voices that
  speak without a pause, clips of the other speakers drawn one by one. Its root mean square lies the signal-to-noise
  ratio below the speech's, pauses not counted.

`training_batch` draws everything, each clip also from among faster and slower copies; `test_strings` takes every clip
once at each of some signal-to-noise ratios, in a drawn order, and goes round the kinds of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.speech.digits import Clips, Samples
from tercet.speech.features import FRAME, RATE

NOISES = ("white", "pink", "babble")
SHORTEST, LONGEST = 3, 7
LEAST_SILENCE, MOST_SILENCE = 0.05, 0.25
LEVEL, GAIN_DECIBEL = 0.05, 6.0
VOICES = 6
_LAST_PAUSE = 480  # samples
_PINK_FROM = 30.0  # hertz


@dataclass(frozen=True)
class DigitString:
    """A string of digits as it sounds.

    Attributes:
        samples: float32 [n], n a multiple of the frame.
        digits: what is said.
        speech: bool [n / FRAME]; a frame is speech where any of its samples is of a clip.
        speaker: who says it.
        snr: signal-to-noise ratio in dB.
        noise: its kind.
    """

    samples: Samples
    digits: tuple[int, ...]
    speech: np.ndarray[Any, np.dtype[np.bool_]]
    speaker: str
    snr: float
    noise: str


@dataclass(frozen=True)
class Batch:
    """Strings side by side.

    Attributes:
        samples: float32 [B, longest], zero behind a string's end.
        frames: int64 [B], of each string.
        digits: int64 [sum of lengths], one string after another.
        lengths: int64 [B], digits of each string.
        speech: bool [B, T], False behind a string's end.
    """

    samples: Tensor
    frames: Tensor
    digits: Tensor
    lengths: Tensor
    speech: Tensor

    def padding(self) -> Tensor:
        """bool [B, T], True behind a string's end."""
        return torch.arange(self.speech.shape[1]) >= self.frames[:, None]


def collate(strings: Sequence[DigitString]) -> Batch:
    """The strings as one batch."""
    frames = torch.tensor([len(string.speech) for string in strings])
    longest = int(frames.max())
    samples, speech = torch.zeros(len(strings), longest * FRAME), torch.zeros(len(strings), longest, dtype=torch.bool)
    for row, string in enumerate(strings):
        samples[row, : len(string.samples)] = torch.from_numpy(string.samples)
        speech[row, : len(string.speech)] = torch.from_numpy(string.speech)
    digits = torch.tensor([digit for string in strings for digit in string.digits])
    return Batch(samples, frames, digits, torch.tensor([len(string.digits) for string in strings]), speech)


class StringMaker:
    """Makes strings of `clips`, in babble of `others` (default: the same clips).

    Raises:
        ValueError: there are no clips.
    """

    def __init__(self, clips: Clips, others: Clips | None = None, speeds: Sequence[float] = (1.0,)) -> None:
        if not len(clips):
            raise ValueError("tercet.speech.StringMaker: clips must be at least one, got none")
        self.clips, self.others = clips, clips if others is None else others
        self.copies = [clips if speed == 1 else clips.faster(speed) for speed in speeds]
        self.of_speaker = {name: np.flatnonzero(clips.speakers == name) for name in clips.names()}

    def training_batch(self, seed: int, step: int, size: int, snr: tuple[float, float]) -> Batch:
        """`size` strings with signal-to-noise ratios drawn uniformly from `snr`; a function of seed and step."""
        rng = np.random.default_rng([seed, step])
        strings = []
        for _ in range(size):
            places = self.of_speaker[str(rng.choice(list(self.of_speaker)))]
            places = rng.choice(places, rng.integers(SHORTEST, LONGEST + 1))
            copy = self.copies[rng.integers(len(self.copies))]
            strings.append(self.string(rng, places, copy, float(rng.uniform(*snr)), str(rng.choice(NOISES))))
        return collate(strings)

    def test_strings(self, seed: int, snrs: Sequence[float]) -> list[DigitString]:
        """Every clip once at each ratio, speaker by speaker; only what is over after cutting makes a shorter string."""
        strings = []
        for level, snr in enumerate(snrs):
            for place, clips in enumerate(self.of_speaker.values()):
                rng = np.random.default_rng([seed, level, place])
                order, start = rng.permutation(clips), 0
                while start < len(order):
                    length = int(rng.integers(SHORTEST, LONGEST + 1))
                    noise = NOISES[len(strings) % len(NOISES)]
                    strings.append(self.string(rng, order[start : start + length], self.clips, snr, noise))
                    start += length
        return strings

    def string(
        self, rng: np.random.Generator, places: np.ndarray[Any, Any], clips: Clips, snr: float, noise: str
    ) -> DigitString:
        """The clips at `places` as one string."""
        speech, marks = self._with_pauses(rng, [clips.audio[place] for place in places])
        speaker = str(clips.speakers[places[0]])
        heard = speech + 10 ** (-snr / 20) * self._noise(rng, noise, len(speech), speaker)
        gain = LEVEL * 10 ** (rng.uniform(-GAIN_DECIBEL, GAIN_DECIBEL) / 20)
        digits = tuple(int(digit) for digit in clips.digits[places])
        frames = marks.reshape(-1, FRAME).any(1)
        return DigitString((gain * heard).astype(np.float32), digits, frames, speaker, snr, noise)

    def _with_pauses(self, rng: np.random.Generator, pieces: list[Samples]) -> tuple[Samples, Any]:
        """Clips and pauses, and where the clips are: [n] samples each, n a multiple of FRAME."""
        spoken = sum(map(len, pieces))
        share = rng.uniform(LEAST_SILENCE, MOST_SILENCE)
        most = (spoken + int(spoken * MOST_SILENCE / (1 - MOST_SILENCE))) // FRAME
        total = min(max(round(spoken / (1 - share) / FRAME), -(-spoken // FRAME)), max(most, -(-spoken // FRAME)))
        silence = total * FRAME - spoken
        last = min(_LAST_PAUSE, silence)
        cuts = np.sort(rng.integers(0, silence - last + 1, len(pieces)))
        samples, marks = np.zeros(total * FRAME, np.float32), np.zeros(total * FRAME, bool)
        at = 0
        for pause, piece in zip(np.diff(cuts, prepend=0), pieces, strict=True):
            at += int(pause)
            samples[at : at + len(piece)], marks[at : at + len(piece)] = piece, True
            at += len(piece)
        return samples, marks

    def _noise(self, rng: np.random.Generator, kind: str, length: int, speaker: str) -> Samples:
        """[length] of root mean square 1."""
        if kind == "babble":
            noise = self._babble(rng, length, speaker)
        else:
            noise = rng.standard_normal(length, np.float32)
            if kind == "pink":
                spectrum = np.fft.rfft(noise)
                hertz = np.fft.rfftfreq(length, 1 / RATE)
                noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, _PINK_FROM)), length)
        return np.asarray(noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9), np.float32)

    def _babble(self, rng: np.random.Generator, length: int, speaker: str) -> Samples:
        others = np.flatnonzero(self.others.speakers != speaker)
        if not len(others):  # one speaker alone babbles with himself
            others = np.arange(len(self.others))
        total = np.zeros(length, np.float32)
        for _ in range(VOICES):
            first = self.others.audio[rng.choice(others)]
            at = -int(rng.integers(len(first)))  # voices start within a digit
            while at < length:
                end = min(at + len(first), length)
                total[max(at, 0) : end] += first[max(-at, 0) : end - at]
                at, first = at + len(first), self.others.audio[rng.choice(others)]
        return total
