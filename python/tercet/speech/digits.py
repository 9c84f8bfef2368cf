"""Clips of single spoken digits with their speakers, from one npz file.

The file is that of the Free Spoken Digit Dataset (Jackson et al.) at 8 kHz: `audio` int16 [samples] one clip after
another, `offsets` [n + 1], `digit` [n] in 0..9, `speaker` [n] names, `index` [n] the repetition (0..4 are the data
set's own test clips), `sr` the rate.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from tercet.speech.features import RATE

Samples = np.ndarray[Any, np.dtype[np.float32]]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BLANK = len(WORDS)  # the symbol that says nothing
TEST_INDICES = 5
_TRIM_DECIBEL = 40.0
_TRIM_HOP = 80
_ARRAYS: dict[str, tuple[type[np.generic], int, str]] = {  # of a file: kind of dtype, dimensions, both in words
    "audio": (np.int16, 1, "int16 [samples]"),
    "offsets": (np.integer, 1, "integers [clips + 1]"),
    "digit": (np.integer, 1, "integers [clips]"),
    "speaker": (np.str_, 1, "strings [clips]"),
    "index": (np.integer, 1, "integers [clips]"),
    "sr": (np.integer, 0, "an integer"),
}


@dataclass(frozen=True)
class Clips:
    """Spoken digits.

    Attributes:
        audio: of each clip, float32 [samples], trimmed, of root mean square 1.
        digits: int64 [n].
        speakers: of each clip, its speaker's name.
        test: bool [n], of the data set's own test split.
    """

    audio: list[Samples]
    digits: np.ndarray[Any, np.dtype[np.int64]]
    speakers: np.ndarray[Any, Any]
    test: np.ndarray[Any, np.dtype[np.bool_]]

    def __len__(self) -> int:
        return len(self.audio)

    def names(self) -> list[str]:
        """The speakers, sorted."""
        return sorted(set(self.speakers.tolist()))

    def where(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Clips:
        """The clips for which `chosen`, bool [n], holds."""
        places = np.flatnonzero(chosen)
        audio = [self.audio[place] for place in places]
        return Clips(audio, self.digits[places], self.speakers[places], self.test[places])

    def to_train(self, hold_out: str | None) -> Clips:
        """All clips of the other speakers; without a speaker to hold out, those that are not of the test split.

        Raises:
            ValueError: there is no such speaker, or no other.
        """
        if hold_out is not None and self.names() == [self._speaker(hold_out)]:
            raise ValueError(f"{hold_out!r} cannot be held out: no other speaker is left to learn from")
        return self.where(~self.test if hold_out is None else self.speakers != hold_out)

    def to_test(self, hold_out: str | None) -> Clips:
        """All clips of the speaker; without one, those of the test split."""
        return self.where(self.test if hold_out is None else self.speakers == self._speaker(hold_out))

    def faster(self, factor: float) -> Clips:
        """The clips played `factor` times as fast: shorter, and higher in pitch and formants, as another voice."""
        audio = [resize(clip, max(1, round(len(clip) / factor))) for clip in self.audio]
        return Clips(audio, self.digits, self.speakers, self.test)

    def _speaker(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"the speaker to hold out must be one of {', '.join(self.names())}, got {name!r}")
        return name


def read_clips(path: str | PathLike[str]) -> Clips:
    """The clips of a file (see the module), trimmed at both ends (see `trim`) and scaled to a root mean square of 1:
    silence is then what a generator of strings puts between them.

    Raises:
        FileNotFoundError: there is no file. ValueError: it is empty, broken, of another rate, or no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected an npz file of spoken digits, got a folder")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of spoken digits")
    if not is_zipfile(path):  # numpy would speak of pickle
        raise ValueError(f"{path}: expected an npz file of spoken digits, which is a zip archive")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
    except Exception as error:  # numpy, zipfile and zlib raise errors of a dozen kinds, as bytes are broken
        raise ValueError(f"{path}: expected an npz file of spoken digits: {error}") from error
    for name, (kind, dimensions, wanted) in _ARRAYS.items():
        array = arrays[name]
        if array.ndim != dimensions or not np.issubdtype(array.dtype, kind):
            raise ValueError(f"{path}: {name} must be {wanted}, got {array.dtype} {list(array.shape)}")
    audio, offsets = arrays["audio"], arrays["offsets"].astype(np.int64)
    if int(arrays["sr"]) != RATE:
        raise ValueError(f"{path}: clips must be of {RATE} Hz, got {arrays['sr']}")
    count = len(offsets) - 1
    if count < 1 or offsets[0] != 0 or offsets[-1] != len(audio) or (np.diff(offsets) < 1).any():
        raise ValueError(f"{path}: offsets must rise from 0 to the {len(audio)} samples, one clip or more")
    if not len(arrays["digit"]) == len(arrays["speaker"]) == len(arrays["index"]) == count:
        raise ValueError(f"{path}: digit, speaker and index must each hold {count} values, one for a clip")
    digits = arrays["digit"].astype(np.int64)
    if ((digits < 0) | (digits > 9)).any():
        raise ValueError(f"{path}: digits must be 0..9, got {digits.min()}..{digits.max()}")
    pieces = [trim(audio[start:end].astype(np.float32)) for start, end in itertools.pairwise(offsets)]
    test = np.asarray(arrays["index"] < TEST_INDICES)
    return Clips([piece / _level(piece) for piece in pieces], digits, arrays["speaker"], test)


def trim(clip: Samples) -> Samples:
    """The clip between its first and last 30 ms that are within 40 dB of its loudest, in power of the differences
    s[n] - s[n - 1], which let a hiss weigh as much as a vowel; silence stays as it is."""
    steps = len(clip) // _TRIM_HOP
    if steps < 3:
        return clip
    power = (np.diff(clip[: steps * _TRIM_HOP], prepend=clip[:1]).reshape(steps, _TRIM_HOP) ** 2).mean(1)
    power = np.convolve(power, np.ones(3) / 3, "same")
    loud = np.flatnonzero(power > power.max() * 10 ** (-_TRIM_DECIBEL / 10))
    if not len(loud):
        return clip
    return clip[loud[0] * _TRIM_HOP : (loud[-1] + 1) * _TRIM_HOP]


def resize(clip: Samples, length: int) -> Samples:
    """The clip as `length` samples, by its spectrum: band-limited, as if it were periodic."""
    spectrum = np.fft.rfft(clip)[: length // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, length) * (length / len(clip)), np.float32)


def _level(clip: Samples) -> float:
    return float(np.sqrt(np.mean(clip**2))) or 1.0
