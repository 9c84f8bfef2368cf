"""Strings of spoken digits in noise, made from clips: a fixed generator, a function of the clips and a seed.

A string is 3 to 7 clips of one speaker, with pauses before, between and behind:

- silence: a share drawn uniformly from 5 to 25 % of all samples, divided over the pauses in uniformly drawn parts (the
  pause behind the last digit gets at least 60 ms, or all there is); the string fills whole frames of 40 ms;
- level: speech has a root mean square of 0.05 of full scale, times a gain drawn uniformly from -6 to 6 dB;
- noise, over the whole string: white; pink (power falls as 1 / f above 30 Hz); or babble, the sum of six voices that
  speak without a pause, clips of the other speakers drawn one by one. It is cut from a drawn place of a minute that is
  made once, another one for tests than for training. Its root mean square lies the signal-to-noise ratio below the
  speech's, pauses not counted.

`training_batches` draws everything; which of several copies of the clips, some faster and some slower, a string is made
from; and a tilt of the spectrum, s[n] - a s[n - 1] with a uniform in -0.9..0.6, as between one microphone and another
(up to 12 dB from the lowest frequency to the highest). `every_clip_once` takes each clip once, in a drawn order, the
same strings at each of some signal-to-noise ratios, and goes round the kinds of noise; what is over at the end of a
speaker's clips may make one string of 1 or 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.speech.digits import BLANK, Clips, Samples
from tercet.speech.features import FRAME, HOP, RATE, STACK

TEST_SEED, TEST_SNRS = 0, (30.0, 20.0, 15.0, 10.0)
NOISES = ("white", "pink", "babble")
SHORTEST, LONGEST = 3, 7
LEAST_SILENCE, MOST_SILENCE = 0.05, 0.25
LEVEL, GAIN_DECIBEL = 0.05, 6.0
TILTS = (-0.9, 0.6)
VOICES, NOISE_SECONDS = 6, 60
_LAST_PAUSE = 480  # samples
_PINK_FROM = 30.0  # hertz
_TRAINING_NOISE, _TEST_NOISE = 1, 2  # seeds


@dataclass(frozen=True)
class DigitString:
    """A string of digits as it sounds.

    Attributes:
        samples: float32 [n], n a multiple of the frame.
        digits: what is said.
        speech: bool [n / FRAME]; a frame is speech where any of its samples is of a clip.
        symbols: int64 [n / HOP]; the digit in the second half of its clip, else BLANK: a path of connectionist temporal
            classification that says what is said.
        speaker: who says it.
        snr: signal-to-noise ratio in dB.
        noise: its kind.
    """

    samples: Samples
    digits: tuple[int, ...]
    speech: np.ndarray[Any, np.dtype[np.bool_]]
    symbols: np.ndarray[Any, np.dtype[np.int64]]
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
        symbols: int64 [B, 4 T], see `DigitString`; BLANK behind a string's end.
    """

    samples: Tensor
    frames: Tensor
    digits: Tensor
    lengths: Tensor
    speech: Tensor
    symbols: Tensor

    def padding(self) -> Tensor:
        """bool [B, T], True behind a string's end."""
        return torch.arange(self.speech.shape[1]) >= self.frames[:, None]


def collate(strings: Sequence[DigitString]) -> Batch:
    """The strings as one batch."""
    frames = torch.tensor([len(string.speech) for string in strings])
    longest = int(frames.max())
    samples, speech = torch.zeros(len(strings), longest * FRAME), torch.zeros(len(strings), longest, dtype=torch.bool)
    symbols = torch.full((len(strings), longest * STACK), BLANK)
    for row, string in enumerate(strings):
        symbols[row, : len(string.symbols)] = torch.from_numpy(string.symbols)
        samples[row, : len(string.samples)] = torch.from_numpy(string.samples)
        speech[row, : len(string.speech)] = torch.from_numpy(string.speech)
    digits = torch.tensor([digit for string in strings for digit in string.digits])
    lengths = torch.tensor([len(string.digits) for string in strings])
    return Batch(samples, frames, digits, lengths, speech, symbols)


class StringMaker:
    """Makes strings of `clips`, in babble of `others` (default: the same clips).

    Raises:
        ValueError: there are no clips.
    """

    def __init__(
        self,
        clips: Clips,
        others: Clips | None = None,
        speeds: Sequence[float] = (1.0,),
        noise_seed: int = _TRAINING_NOISE,
    ) -> None:
        if not len(clips):
            raise ValueError("tercet.speech.StringMaker: clips must be at least one, got none")
        self.clips, self.others = clips, clips if others is None else others
        self.copies = [clips if speed == 1 else clips.faster(speed) for speed in speeds]
        self.of_speaker = {name: np.flatnonzero(clips.speakers == name) for name in clips.names()}
        self.noise_seed, self.noises = noise_seed, dict[str, Samples]()

    def training_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        num_batches: int,
        snr: tuple[float, float],
        lengths: tuple[int, int] = (SHORTEST, LONGEST),
    ) -> list[Batch]:
        """Batches of strings of like durations, in a drawn order. Signal-to-noise ratios are drawn uniformly from
        `snr`, numbers of digits from `lengths`, last one included. A function of the arguments."""
        rng = np.random.default_rng([seed, epoch])
        names, strings = list(self.of_speaker), []
        for _ in range(batch_size * num_batches):
            places = self.of_speaker[names[rng.integers(len(names))]]
            places = rng.choice(places, rng.integers(lengths[0], lengths[1] + 1))
            copy = self.copies[rng.integers(len(self.copies))]
            noise = NOISES[rng.integers(len(NOISES))]
            tilt = float(rng.uniform(*TILTS))
            strings.append(self.string(rng, places, copy, float(rng.uniform(*snr)), noise, tilt))
        strings.sort(key=lambda string: len(string.samples))
        order = batch_size * rng.permutation(num_batches)
        return [collate(strings[first : first + batch_size]) for first in order]

    def every_clip_once(self, seed: int, snrs: Sequence[float]) -> list[DigitString]:
        """Every clip once at each ratio, speaker by speaker; only what is over after cutting makes a shorter string.
        The strings of one ratio are those of another, digits, pauses and gain, in noise of another level or kind."""
        strings: list[DigitString] = []
        for snr in snrs:
            for number, places in enumerate(self.of_speaker.values()):
                rng = np.random.default_rng([seed, number])
                order, start = rng.permutation(places), 0
                while start < len(order):
                    length = int(rng.integers(SHORTEST, LONGEST + 1))
                    noise = NOISES[len(strings) % len(NOISES)]
                    strings.append(self.string(rng, order[start : start + length], self.clips, snr, noise))
                    start += length
        return strings

    def string(
        self,
        rng: np.random.Generator,
        places: np.ndarray[Any, Any],
        clips: Clips,
        snr: float,
        noise: str,
        tilt: float = 0.0,
    ) -> DigitString:
        """The clips at `places` as one string."""
        pieces = [clips.audio[place] for place in places]
        speech, starts = _with_pauses(rng, [_tilted(piece, tilt) for piece in pieces] if tilt else pieces)
        speaker = str(clips.speakers[places[0]])
        whole = self._minute(noise, speaker)
        start = int(rng.integers(len(whole)))
        cut = np.take(whole, np.arange(start, start + len(speech)), mode="wrap")
        gain = LEVEL * 10 ** (rng.uniform(-GAIN_DECIBEL, GAIN_DECIBEL) / 20)
        level = 10 ** (-snr / 20) / max(float(np.sqrt(np.mean(cut**2))), 1e-9)
        digits = tuple(int(digit) for digit in clips.digits[places])
        spoken, symbols = np.zeros(len(speech), bool), np.full(len(speech), BLANK)
        for start, piece, digit in zip(starts, pieces, digits, strict=True):
            spoken[start : start + len(piece)] = True
            symbols[start + len(piece) // 2 : start + len(piece)] = digit
        frames = np.asarray(spoken.reshape(-1, FRAME).any(1))
        heard = (gain * (speech + level * cut)).astype(np.float32)
        return DigitString(heard, digits, frames, symbols[HOP - 1 :: HOP], speaker, snr, noise)

    def _minute(self, kind: str, speaker: str) -> Samples:
        """A minute of noise; of babble without `speaker`, unless there is no one else."""
        key = f"{kind} {speaker}" if kind == "babble" else kind
        if key not in self.noises:
            rng = np.random.default_rng([self.noise_seed, *key.encode()])
            self.noises[key] = _babble(rng, self.others, speaker) if kind == "babble" else _hiss(rng, kind)
        return self.noises[key]


def strings_to_test(
    clips: Clips, hold_out: str | None = None, snrs: Sequence[float] = TEST_SNRS, seed: int = TEST_SEED
) -> list[DigitString]:
    """The clips that a model has not learnt from (see `Clips.to_test`), each once at each signal-to-noise ratio; always
    the same strings, so that models can be compared string by string."""
    return StringMaker(clips.to_test(hold_out), clips, noise_seed=_TEST_NOISE).every_clip_once(seed, snrs)


def _tilted(piece: Samples, tilt: float) -> Samples:
    """piece[n] - tilt piece[n - 1], of the same root mean square."""
    tilted = piece - tilt * np.concatenate([piece[:1], piece[:-1]])
    level = np.sqrt(np.mean(piece**2) / max(float(np.mean(tilted**2)), 1e-12))
    return np.asarray(level * tilted, np.float32)


def _with_pauses(rng: np.random.Generator, pieces: list[Samples]) -> tuple[Samples, list[int]]:
    """Clips and pauses, [n] samples, n a multiple of FRAME; and where the clips begin."""
    spoken = sum(map(len, pieces))
    least, most = -(-spoken // FRAME), int(spoken / (1 - MOST_SILENCE)) // FRAME
    share = rng.uniform(LEAST_SILENCE, MOST_SILENCE)
    total = max(min(round(spoken / (1 - share) / FRAME), most), least)
    silence = total * FRAME - spoken
    cuts = np.sort(rng.integers(0, silence - min(_LAST_PAUSE, silence) + 1, len(pieces)))
    samples, starts, at = np.zeros(total * FRAME, np.float32), [], 0
    for pause, piece in zip(np.diff(cuts, prepend=0), pieces, strict=True):
        at += int(pause)
        starts.append(at)
        samples[at : at + len(piece)] = piece
        at += len(piece)
    return samples, starts


def _hiss(rng: np.random.Generator, kind: str) -> Samples:
    """White or pink noise."""
    noise = rng.standard_normal(NOISE_SECONDS * RATE, np.float32)
    if kind == "pink":
        hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
        shaped = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(hertz, _PINK_FROM)), len(noise))
        return np.asarray(shaped, np.float32)
    return noise


def _babble(rng: np.random.Generator, clips: Clips, speaker: str) -> Samples:
    """Voices that speak without a pause."""
    others = np.flatnonzero(clips.speakers != speaker)
    if not len(others):
        others = np.arange(len(clips))
    total = np.zeros(NOISE_SECONDS * RATE, np.float32)
    for _ in range(VOICES):
        at = 0
        while at < len(total):
            piece = clips.audio[rng.choice(others)][: len(total) - at]
            total[at : at + len(piece)] += piece
            at += len(piece)
    return total
