"""Slots as tags of tokens, and spans from tags.

A token's tags have the probabilities softmax(W relu(A state + B turn)), of its state in the text encoder and its turn
after the dialogue's blocks: none, the first token of a slot, or a further one. A span's probability is the product of
its tokens' and of the next one not going on with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.data.dialogues import Slot
from tercet.labeling.model.blocks import Linear


class Tagger(nn.Module):
    """Tags of tokens in the light of their turns."""

    def __init__(self, width: int, dim: int, num_tags: int, dropout: float) -> None:
        super().__init__()
        self.token, self.turn = Linear(width, dim), Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.tags = Linear(dim, num_tags)

    def forward(self, states: Tensor, turns: Tensor, token: Tensor, turn: Tensor) -> Tensor:
        """Logits [K, num_tags] of the tokens `token` int64 [K] of `states`, in turns `turn` int64 [K] of `turns`."""
        both = self.token(states).index_select(0, token) + self.turn(turns).index_select(0, turn)
        logits: Tensor = self.tags(self.dropout(F.relu(both)))
        return logits


def tags_of(
    slots: Sequence[Slot], names: Sequence[str], turn: int, spans: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The tag of each token [num_tokens] of a turn: 0, or 1 + 2 n at the first token of slot name n, 2 + 2 n after.

    Tokens belong to a slot that they overlap; slots whose name is not known are left out.
    """
    tags = np.zeros(len(spans), np.int64)
    for slot in slots:
        if slot.turn != turn or slot.name not in names:
            continue
        inside = np.flatnonzero((spans[:, 0] < slot.end) & (spans[:, 1] > slot.start))
        tags[inside] = 2 + 2 * names.index(slot.name)
        tags[inside[:1]] -= 1
    return tags


def spans_of(shares: Tensor, names: Sequence[str], turn: int, spans: npt.NDArray[np.int64]) -> list[tuple[Slot, float]]:
    """The slots that the likeliest tags of a turn's tokens make, with their probabilities.

    A further token that follows no token of its slot counts as a first one.
    """
    sure, tags = (each.tolist() for each in shares.max(1))
    found, place = [], 0
    while place < len(tags):
        if not tags[place]:
            place += 1
            continue
        name, share, end = (tags[place] - 1) // 2, sure[place], place + 1
        while end < len(tags) and tags[end] == 2 + 2 * name:
            share *= sure[end]
            end += 1
        if end < len(tags):
            share *= 1 - float(shares[end, 2 + 2 * name])
        slot = Slot(turn, int(spans[place, 0]), int(spans[end - 1, 1]), names[name])
        found.append((slot, min(1.0, share)))
        place = end
    return found
