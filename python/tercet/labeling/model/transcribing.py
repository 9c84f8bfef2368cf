"""What was really said: the hypothesis of recognition that is nearest to it, with words replaced.

Each word of a hypothesis is kept, or replaced with an edit: other words, or none; what is missing between words belongs
to the word before it, what is missing at the beginning to a place before the first. Edits are those that training data
need twice or more; "other" stands for the rest and changes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tercet.labeling.data.dialogues import Dialogue, Turn

KEEP, OTHER = 0, 1  # tags; further ones are edits
_WORD = re.compile(r"\S+")
_MOST = 2000  # edits


def hypotheses(turn: Turn) -> tuple[str, ...]:
    """The turn's text, and the other hypotheses of the component that recognised it."""
    heard = turn.traces.get("recognition")
    return tuple(dict.fromkeys([turn.text, *(heard.n_best if heard else ())]))


def edits_between(text: str, said: str) -> list[str | None]:
    """What to replace each word of `text` with to get `said`, a place before the first word too; None: nothing.

    Words are kept as often as possible among the fewest changes.

    Example:
        >>> edits_between("tie food plays", "some thai food please")
        ['some', 'thai', None, 'please']
    """
    words, wanted = text.split(), said.split()
    cost = np.zeros((len(words) + 1, len(wanted) + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(len(words) + 1), np.arange(len(wanted) + 1)
    for i, word in enumerate(words, 1):
        for j, other in enumerate(wanted, 1):
            cost[i, j] = min(cost[i - 1, j - 1] + (word != other), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    made: list[list[str]] = [[] for _ in range(len(words) + 1)]
    i, j = len(words), len(wanted)
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (words[i - 1] != wanted[j - 1]):
            i, j = i - 1, j - 1
            made[i + 1].insert(0, wanted[j])
        elif j and cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
            made[i].insert(0, wanted[j])
        else:
            i -= 1
    own = ["", *words]
    joined = [" ".join(each) for each in made]
    return [None if new == old else new for new, old in zip(joined, own, strict=True)]


def edited(text: str, edits: Sequence[str | None]) -> str:
    """The text after its edits, of which the first is of the place before it; unchanged where there are none.

    Example:
        >>> edited("tie food plays", ["some", "thai", None, ""])
        'some thai food'
    """
    if all(edit is None for edit in edits):
        return text
    own = ["", *text.split()]
    parts = (old if edit is None else edit for old, edit in zip(own, edits, strict=True))
    return " ".join(part for part in parts if part)


def errors(text: str, said: str) -> int:
    """Words to replace, leave out or put in.

    Example:
        >>> errors("tie food", "some thai food")
        2
    """
    return sum(max(1, len((edit or "").split())) for edit in edits_between(text, said) if edit is not None)


class EditCounter:
    """Counts the edits that dialogues need."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, dialogue: Dialogue, said: Iterable[tuple[int, str]]) -> None:
        """Count those of a dialogue, whose turns are really as `said` says."""
        for turn, text in said:
            for hypothesis in hypotheses(dialogue.turns[turn]):
                self.counts.update(edit for edit in edits_between(hypothesis, text) if edit is not None)

    def made(self) -> tuple[str, ...]:
        """Those met twice or more, the most frequent first."""
        order = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple(edit for edit, count in order[:_MOST] if count > 1)


def word_tokens(text: str, spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The token that stands for each word of a text: its first. A word that no token lies in has the next or last.

    Args:
        spans: int64 [num_tokens, 2], the characters of each token; there is one.
    """
    starts = np.array([found.start() for found in _WORD.finditer(text)], np.int64)
    return np.searchsorted(spans[:, 1], starts, side="right").clip(max=len(spans) - 1).astype(np.int64)
