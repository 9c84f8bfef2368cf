"""What bench_digits tells of counts: word errors, shares of compute, and intervals over resampled strings.

Counts are arrays [seeds, strings] by name, as of `tercet.speech.Evaluation`, with `snr`, `speaker` and `number`
[strings]: a speaker's strings of one number differ between signal-to-noise ratios in noise alone. Intervals are of
95 %, by a bootstrap that draws (speaker, number) within speakers, with all ratios, systems and seeds of it: seeds and
speakers are held fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
INTERVAL = "strings; seeds and speakers held fixed"
Counts = dict[str, Any]


def string_numbers(snrs: Sequence[float]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of each of a speaker's strings within its ratio, int64 [strings], of their ratios."""
    of_string, numbers = np.asarray(snrs), np.zeros(len(snrs), np.int64)
    for snr in np.unique(of_string):
        own = np.flatnonzero(of_string == snr)
        numbers[own] = np.arange(len(own))
    return numbers


def figures(found: Counts, dense: Counts, chosen: Any = slice(None)) -> dict[str, float]:
    """Word error rate and shares of compute, of all_on's multiply-adds; `chosen` strings."""

    def total(counts: Counts, name: str) -> float:
        return float(counts[name][:, chosen].sum())

    return {
        "word_error_rate": total(found, "errors") / total(found, "words"),
        "compute_share": total(found, "spent") / total(dense, "dense"),
        "compute_share_speech": total(found, "spent_speech") / total(dense, "dense_speech"),
    }


def ratio_interval(found: Counts, other: Counts, name: str = "word_error_ratio") -> dict[str, Any]:
    """Ratio of word errors to those of another system on the same strings and seeds, and its interval."""
    ours, theirs = found["errors"].sum(0), other["errors"].sum(0)
    drawn = resampled(other, ours, theirs)
    return {name: float(ours.sum() / theirs.sum()), f"{name}_95": _bounds(drawn[0] / drawn[1])}


def compute_rise(found: Counts, dense: Counts) -> dict[str, Any]:
    """Share of compute at the lowest ratio less that at the highest, its interval, and whether that is above 0."""
    ends = [found["snr"] == end for end in (found["snr"].min(), found["snr"].max())]
    counts = [sums * end for end in ends for sums in (found["spent"].sum(0), dense["dense"].sum(0))]
    low, low_dense, high, high_dense = (float(count.sum()) for count in counts)
    drawn = resampled(found, *counts)
    bounds = _bounds(drawn[0] / drawn[1] - drawn[2] / drawn[3])
    rise = low / low_dense - high / high_dense
    return {"compute_rise": rise, "compute_rise_95": bounds, "compute_rises_with_noise": bounds[0] > 0}


def resampled(found: Counts, *counts: Any) -> list[Any]:
    """Sums of each of `counts`, [strings], in RESAMPLES resamples, the same ones for all: float64 [RESAMPLES] each."""
    rng, sums = np.random.default_rng(0), np.zeros((len(counts), RESAMPLES))
    for speaker in dict.fromkeys(found["speaker"].tolist()):
        own = found["speaker"] == speaker
        numbers = found["number"][own]
        clusters = [np.bincount(numbers, count[own]) for count in counts]
        size = len(clusters[0])
        drawn = rng.multinomial(size, np.full(size, 1 / size), RESAMPLES)
        sums += np.stack([drawn @ cluster for cluster in clusters])
    return list(sums)


def _bounds(drawn: Any) -> list[float]:
    return [float(bound) for bound in np.quantile(drawn, [0.025, 0.975])]
