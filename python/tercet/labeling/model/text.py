"""Texts as models read them: words with their places, the small encoder's ids of them, windows of long texts."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# A run of letters and digits, one sign of a script without spaces, or any other sign that is no space.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")
AFFIXES, SHAPES = 2048, 64  # buckets
_IDS = 4  # of a word: itself, its first and its last three letters, its shape


class Pieces(NamedTuple):
    """A text as an encoder takes it.

    Attributes:
        ids: int64 [num_tokens, ids of a token].
        spans: int64 [num_tokens, 2], the characters of each.
    """

    ids: Ints
    spans: Ints


class TextReader(Protocol):
    """Texts -> pieces; `first` are the tokens that an encoder sets before them."""

    def read(self, text: str) -> Pieces:
        """The tokens of a text, without any that the encoder adds."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case.

    Example:
        >>> words_of("Don't play it!")
        ['don', "'", 't', 'play', 'it', '!']
    """
    return _WORD.findall(text.lower())


class WordReader:
    """Words by themselves, and by what can be seen of those that were never met: first letters, last letters, shape.

    Args:
        words: in lower case, those that have a vector of their own.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._known = {word: place for place, word in enumerate(self.words, 1)}
        self._rows: dict[str, tuple[int, ...]] = {}

    @property
    def num_ids(self) -> int:
        """Rows of a table with a vector for every id."""
        return 1 + len(self.words) + 2 * AFFIXES + SHAPES

    def read(self, text: str) -> Pieces:
        rows, spans = [], []
        for found in _WORD.finditer(text):
            rows.append(self._row(found.group()))
            spans.append(found.span())
        return Pieces(np.array(rows, np.int64).reshape(-1, _IDS), np.array(spans, np.int64).reshape(-1, 2))

    def _row(self, word: str) -> tuple[int, ...]:
        row = self._rows.get(word)
        if row is None:
            lower, base = word.lower(), 1 + len(self.words)
            start, end = (_bucket(part, AFFIXES) for part in ("^" + lower[:3], lower[-3:] + "$"))
            shape = _bucket(_shape(word), SHAPES)
            row = self._known.get(lower, 0), base + start, base + AFFIXES + end, base + 2 * AFFIXES + shape
            if len(self._rows) < 1 << 20:
                self._rows[word] = row
        return row


def frequent_words(counts: Counter[str], most: int) -> tuple[str, ...]:
    """Words that were met twice or more, `most` at most, the most frequent first; equally frequent ones by name."""
    known = sorted((word for word, count in counts.items() if count > 1), key=lambda word: (-counts[word], word))
    return tuple(known[:most])


def windows(count: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """How `count` tokens are read, `size` at a time at most: (start, end, first, last) of each window, whose tokens
    first..last-1 speak for themselves; the rest is context, at least an eighth of `size` on each side.

    Example:
        >>> list(windows(20, 16))
        [(0, 16, 0, 14), (12, 20, 14, 20)]
        >>> list(windows(3, 16)), list(windows(0, 16))
        ([(0, 3, 0, 3)], [(0, 0, 0, 0)])
    """
    if count <= size:
        yield 0, count, 0, count
        return
    margin = size // 8
    start = first = 0
    while True:
        end = min(start + size, count)
        last = count if end == count else end - margin
        yield start, end, first, last
        if end == count:
            return
        start, first = last - margin, last


def _bucket(text: str, buckets: int) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % buckets


def _shape(word: str) -> str:
    """Kinds of its letters, repeated ones once: Xx, d, x, ..."""
    kinds = ("d" if c.isdigit() else "X" if c.isupper() else "x" if c.isalpha() else c for c in word[:12])
    return "".join(dict.fromkeys(kinds))
