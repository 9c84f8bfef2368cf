"""Slots as tags of tokens, and spans from tags.

A token is outside of all slots, the first of one, or a further one, given which of these the token before it is; what
a slot is called is a question of its own, so that all names together teach where slots are. Both are
softmax(W relu(A state + B turn)), of the token's state in the text encoder and its turn after the dialogue's blocks. A
span is a first token and the further ones that follow it; its name is the likeliest by the geometric mean of what its
tokens say. Its probability is the product of its tokens' kinds, of the next one not going on with it, and of its name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.data.dialogues import Slot
from tercet.labeling.model.blocks import Linear

OUTSIDE, FIRST, FURTHER = range(3)
GIVEN = 9  # logits of a token's kind: three for each kind of the token before


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
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The kind of each token [num_tokens] of a turn, and the number of its slot's name, -1 outside.

    Tokens belong to a slot that they overlap; slots whose name is not known are left out.
    """
    kinds, named = np.full(len(spans), OUTSIDE), np.full(len(spans), -1)
    for slot in slots:
        if slot.turn != turn or slot.name not in names:
            continue
        inside = np.flatnonzero((spans[:, 0] < slot.end) & (spans[:, 1] > slot.start))
        kinds[inside], named[inside] = FURTHER, names.index(slot.name)
        kinds[inside[:1]] = FIRST
    return kinds, named


def given_before(logits: Tensor, kinds: Tensor, turn: Tensor) -> Tensor:
    """Of logits [K, 9] those [K, 3] that hold where tokens' own kinds are `kinds` int64 [K], in turns `turn`."""
    before = F.pad(kinds, (1, 0), value=OUTSIDE)[:-1]
    before = torch.where(F.pad(turn, (1, 0), value=-1)[:-1] == turn, before, OUTSIDE)
    given: Tensor = logits.unflatten(1, (3, 3))[torch.arange(len(turn)), before]
    return given


def spans_of(
    kinds: Tensor, names: Tensor, turn: Tensor
) -> tuple[list[tuple[int, int, int, float]], npt.NDArray[np.float64]]:
    """The slots of tokens, the likeliest kind of each given the one before: (first token, end, number of the name,
    probability); and how likely each token is outside where that is likeliest, else 1.

    Args:
        kinds, names: logits [K, 9], of kinds given the kind before, and [K, num_names]. turn: int64 [K], ascending.
    """
    shares = kinds.unflatten(1, (3, 3)).softmax(2).double().numpy()
    begins = np.diff(turn.numpy(), prepend=-1) != 0
    chosen, before = _likeliest_kinds(shares.argmax(2), begins)
    sure = shares[np.arange(len(chosen)), before, chosen]
    outside = np.where(chosen == OUTSIDE, sure, 1.0)
    first = np.flatnonzero(chosen == FIRST)
    if not len(first):
        return [], outside
    no_further = np.append(np.flatnonzero(chosen != FURTHER), len(chosen))
    end = no_further[np.searchsorted(no_further, first, "right")]
    together = np.multiply.reduceat(np.append(sure, 1.0), np.stack([first, end], 1).ravel())[::2]
    goes_on = np.append(np.where(begins, 0.0, shares[np.arange(len(chosen)), before, FURTHER]), 0.0)[end]
    offsets = torch.from_numpy(np.cumsum([0, *(end - first)]))
    tokens = torch.from_numpy(np.flatnonzero(chosen != OUTSIDE))
    logs = F.embedding_bag(tokens, names.log_softmax(1), offsets, mode="mean", include_last_offset=True)
    named, number = logs.softmax(1).max(1)
    likely = np.minimum(1.0, together * (1 - goes_on) * named.double().numpy())
    return list(zip(first.tolist(), end.tolist(), number.tolist(), likely.tolist(), strict=True)), outside


def _likeliest_kinds(
    likely: npt.NDArray[np.int64], begins: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The kind of each token and of the one before it, [K] each; a further token after none is the first of a slot.

    Args:
        likely: [K, 3], the kind of each token given the one before. begins: [K], whether a turn begins at the token.
    """
    likely = likely.copy()
    likely[likely[:, OUTSIDE] == FURTHER, OUTSIDE] = FIRST
    chosen, before = np.full((2, len(likely)), OUTSIDE)
    reached = 0
    # After a token outside, those that are likeliest outside stay so: they are passed over.
    for place in np.flatnonzero(likely[:, OUTSIDE] != OUTSIDE).tolist():
        if place < reached:
            continue
        kind, reached = OUTSIDE, place
        while reached < len(likely):
            before[reached] = OUTSIDE if begins[reached] else kind
            kind = chosen[reached] = likely[reached, before[reached]]
            reached += 1
            if kind == OUTSIDE:
                break
    return chosen, before
