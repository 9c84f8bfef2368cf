"""From log-probabilities of connectionist temporal classification to digits.

A path names the blank or a digit at each frame; what it says is the path without repetitions and then without blanks.
Greedy decoding reads the likeliest path; prefix beam search (Graves & Jaitly, ICML 2014) adds up the paths that say the
same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LogProbs = np.ndarray[Any, Any]
Beams = dict[tuple[int, ...], tuple[float, float]]
_NEVER = -math.inf


def greedy(log_probs: LogProbs, blank: int) -> tuple[int, ...]:
    """What the likeliest path of `log_probs` [T, symbols] says.

    Example:
        >>> greedy(np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]), blank=1)
        (0, 0)
    """
    return collapse(np.asarray(log_probs).argmax(-1).tolist(), blank)


def collapse(path: Sequence[int], blank: int, before: int | None = None) -> tuple[int, ...]:
    """What a path says; `before` is the symbol of the frame before it, where it goes on from one."""
    said = []
    for symbol in path:
        if symbol not in (blank, before):
            said.append(symbol)
        before = symbol
    return tuple(said)


def beam_search(log_probs: LogProbs, blank: int, width: int = 8) -> tuple[tuple[int, ...], float]:
    """The likeliest of the `width` strings kept at each frame, and the logarithm of its probability.

    Costs O(T width symbols). With a width that keeps all strings the result is exact.

    Args:
        log_probs: [T, symbols], finite or -inf.
        blank: its symbol.
        width: how many strings to keep, at least 1.

    Raises:
        ValueError: log_probs has not two dimensions, or width is below 1.
    """
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"tercet.speech.beam_search: log_probs must be [T, symbols], got {list(log_probs.shape)}")
    if width < 1:
        raise ValueError(f"tercet.speech.beam_search: width must be at least 1, got {width}")
    beams: Beams = {(): (0.0, _NEVER)}  # said so far: paths that end in a blank, paths that end in its last digit
    for frame in log_probs.tolist():
        grown: Beams = {}
        for said, (in_blank, in_digit) in beams.items():
            whole = _add(in_blank, in_digit)
            _put(grown, said, whole + frame[blank], in_digit + frame[said[-1]] if said else _NEVER)
            for symbol, chance in enumerate(frame):
                if symbol != blank:  # a digit again needs a blank between
                    _put(grown, (*said, symbol), _NEVER, (in_blank if said[-1:] == (symbol,) else whole) + chance)
        best = sorted(grown.items(), key=lambda item: (-_add(*item[1]), item[0]))
        beams = dict(best[:width])
    said, parts = max(beams.items(), key=lambda item: _add(*item[1]))
    return said, _add(*parts)


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    low, high = min(a, b), max(a, b)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))


def _put(grown: Beams, said: tuple[int, ...], blank: float, digit: float) -> None:
    before = grown.get(said, (_NEVER, _NEVER))
    grown[said] = _add(before[0], blank), _add(before[1], digit)
