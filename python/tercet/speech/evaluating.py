"""Word errors, compute and latency of a recogniser on strings of digits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tercet.speech.decode import beam_search, greedy
from tercet.speech.digits import BLANK, WORDS
from tercet.speech.features import FRAME, HOP, RATE, silence_behind
from tercet.speech.model import DigitRecognizer, check_evaluating
from tercet.speech.streaming import Stream
from tercet.speech.strings import DigitString, collate

Counts = np.ndarray[Any, np.dtype[np.int64]]
_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """Of each string, int64 [n]; ratios are of sums.

    Attributes:
        errors, words: substitutions, deletions and insertions; words that were said.
        spent, dense: multiply-adds of the whole model, and with every gate on; see `tercet.speech.model.Spent`.
        spent_speech, dense_speech: the same, of frames of speech.
    """

    errors: Counts
    words: Counts
    spent: Counts
    dense: Counts
    spent_speech: Counts
    dense_speech: Counts

    @property
    def word_error_rate(self) -> float:
        """Errors over words."""
        return float(self.errors.sum() / self.words.sum())

    @property
    def compute_share(self) -> float:
        """Spent over dense; above 1 where arbitrators cost more than they save."""
        return float(self.spent.sum() / self.dense.sum())

    @property
    def compute_share_speech(self) -> float:
        """Spent over dense at frames of speech."""
        return float(self.spent_speech.sum() / self.dense_speech.sum())

    def where(self, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Evaluation:
        """Of the strings for which `chosen`, bool [n], holds."""
        return Evaluation(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Latency:
    """Of a stream that gets one frame of 40 ms at a step, in one thread.

    Attributes:
        real_time_factor: seconds of computing for a second of sound.
        median_ms, percentile_95_ms: of a step, features and decoding included.
        steps: how many were measured.
    """

    real_time_factor: float
    median_ms: float
    percentile_95_ms: float
    steps: int


def word_errors(said: Sequence[int], heard: Sequence[int]) -> int:
    """Substitutions, deletions and insertions between two strings of digits, by jiwer (extra `speech`).

    Raises:
        ImportError: jiwer is missing. ValueError: nothing was said.
    """
    try:
        import jiwer
    except ImportError as error:
        raise ImportError("word error rates need jiwer: pip install 'tercet[speech]'") from error
    if not said:
        raise ValueError("tercet.speech.word_errors: a string must say at least one digit, got none")
    found = jiwer.process_words(*(" ".join(WORDS[digit] for digit in digits) for digits in (said, heard)))
    return int(found.substitutions + found.deletions + found.insertions)


@torch.inference_mode()
def evaluate(model: DigitRecognizer, strings: Sequence[DigitString], *, beam: int | None = None) -> Evaluation:
    """Recognise the strings, each with the silence behind its end that `transcribe` hears, and count. The compute of
    that silence, which gates save the most of, is left out.

    Args:
        model: in evaluation mode.
        strings: at least one.
        beam: width of prefix beam search; None: greedy.

    Raises:
        ValueError: there are no strings. RuntimeError: the model is in training mode. ImportError: jiwer is missing
            (extra `speech`).
    """
    check_evaluating("tercet.speech.evaluate", model)
    if not strings:
        raise ValueError("tercet.speech.evaluate: strings must be at least one, got none")
    rows = np.zeros((6, len(strings)), np.int64)
    by_length = sorted(range(len(strings)), key=lambda place: len(strings[place].samples))
    for first in range(0, len(strings), _BATCH):
        places = by_length[first : first + _BATCH]
        batch = collate([_to_its_end(strings[place]) for place in places])
        log_probs, _, total = model(model.features(batch.samples), batch.padding())
        frames = torch.tensor([len(strings[place].speech) for place in places])
        own, speech = torch.arange(batch.speech.shape[1]) < frames[:, None], batch.speech
        sums = [part * which for which in (own, speech) for part in (total.spent, total.dense)]
        rows[2:, places] = torch.stack([part.sum(1) for part in sums]).numpy()
        for row, place in enumerate(places):
            path = log_probs[row, : int(batch.frames[row])].numpy()
            heard = greedy(path, BLANK) if beam is None else beam_search(path, BLANK, beam)[0]
            said = strings[place].digits
            rows[:2, place] = word_errors(said, heard), len(said)
    return Evaluation(*rows)


def _to_its_end(string: DigitString) -> DigitString:
    """The string with `silence_behind` it."""
    samples = np.pad(string.samples, (0, silence_behind(len(string.samples))))
    speech = np.pad(string.speech, (0, len(samples) // FRAME - len(string.speech)))
    symbols = np.pad(string.symbols, (0, len(samples) // HOP - len(string.symbols)), constant_values=BLANK)
    return replace(string, samples=samples, speech=speech, symbols=symbols)


def measure_latency(model: DigitRecognizer, strings: Sequence[DigitString]) -> Latency:
    """Stream the strings frame by frame, each in a stream of its own, in one thread; the first goes before, unmeasured.

    Raises:
        ValueError: there are no strings. RuntimeError: the model is in training mode.
    """
    if not strings:
        raise ValueError("tercet.speech.measure_latency: strings must be at least one, got none")
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for number, string in enumerate([strings[0], *strings]):
            stream = Stream(model)
            for samples in torch.from_numpy(string.samples).split(FRAME):
                started = time.perf_counter()
                stream.hear(samples)
                if number:
                    seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    median, high = np.percentile(seconds, [50, 95]) * 1000
    return Latency(sum(seconds) * RATE / (FRAME * len(seconds)), float(median), float(high), len(seconds))
