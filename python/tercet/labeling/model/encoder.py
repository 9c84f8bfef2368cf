"""Texts -> vectors: the batch that both encoders take, and the small encoder, trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.model.blocks import Blocks, Linear
from tercet.labeling.model.text import Pieces, WordReader, windows
from tercet.labeling.settings import ModelSettings
from tercet.nn import ComputeCost

_HIDDEN = 0.05  # share of the words that training takes for unknown ones
_REACH = 2  # words to either side


class TextBatch(NamedTuple):
    """Different texts, in windows that an encoder reads.

    Attributes:
        ids: int64 [num_read, ids of a token], the tokens of all windows.
        lengths: int64 [num_windows], tokens of each. texts: int64 [num_windows], whose windows they are, ascending.
        kept: int64 [num_tokens], where among those that were read each token of the texts is.
        offsets: int64 [num_texts + 1], the tokens of each text.
    """

    ids: Tensor
    lengths: Tensor
    texts: Tensor
    kept: Tensor
    offsets: Tensor


class Encoded(NamedTuple):
    """What an encoder makes of a batch: `vectors` [num_texts, dim], `states` [num_tokens, dim]."""

    vectors: Tensor
    states: Tensor


def text_batch(pieces: Sequence[Pieces], most: int) -> TextBatch:
    """A batch of texts, each in windows of at most `most` tokens."""
    ids, lengths, texts, kept, read = [], [], [], [], 0
    for number, piece in enumerate(pieces):
        for start, end, first, last in windows(len(piece.ids), most):
            ids.append(piece.ids[start:end])
            lengths.append(end - start)
            texts.append(number)
            kept.append(np.arange(read + first - start, read + last - start))
            read += end - start
    sizes = np.cumsum([0, *(len(piece.ids) for piece in pieces)])
    return TextBatch(
        torch.from_numpy(np.concatenate(ids) if ids else np.zeros((0, 1), np.int64)),
        torch.tensor(lengths, dtype=torch.int64),
        torch.tensor(texts, dtype=torch.int64),
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *kept])),
        torch.from_numpy(sizes),
    )


class TextEncoder(nn.Module):
    """Base of encoders: they read windows, what a text is follows here.

    A text's vector is a linear map of the mean of its windows' own vectors beside the mean of its tokens' states.

    Attributes:
        learnt: whether arbitrators decide which tokens need which blocks; forced: all blocks run nevertheless.
        costs: None, or a list that gets what is spent.
    """

    def __init__(self, width: int, dim: int, gates: str) -> None:
        super().__init__()
        self.learnt, self.forced = gates == "learnt", False
        self.costs: list[ComputeCost] | None = None
        self.vector = Linear(2 * width, dim)

    def read(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """A vector of each window [num_windows, width], a state of each token [num_read, width]."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write what its weights do not say: nothing."""

    def forward(self, batch: TextBatch) -> Encoded:
        """See `Encoded`; states have the encoder's own width."""
        heads, states = self.read(batch)
        states = states.index_select(0, batch.kept)
        counts = batch.texts.bincount(minlength=len(batch.offsets) - 1)
        both = mean_rows(heads, F.pad(counts.cumsum(0), (1, 0))), mean_rows(states, batch.offsets)
        return Encoded(self.vector(torch.cat(both, 1)), states)


class SmallEncoder(TextEncoder):
    """Vectors of words, of their first and last letters and of their shape, then blocks."""

    def __init__(self, settings: ModelSettings, reader: WordReader) -> None:
        super().__init__(settings.dim, settings.dim, settings.gates)
        self.scale = math.sqrt(settings.dim)  # of vectors of words: most words are rare, so each step must count
        self.words = nn.Embedding(reader.num_ids, settings.dim)
        nn.init.normal_(self.words.weight, std=0.1 / self.scale)
        self.head = nn.Parameter(0.1 * torch.randn(settings.dim))
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = Blocks(
            settings.dim, settings.num_heads, settings.feed_forward_dim, settings.text_layers,
            positions=settings.max_tokens + 1, dropout=settings.dropout, reach=_REACH,
        )  # fmt: skip

    def read(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """A head of its own stands before each window."""
        ids = batch.ids
        if self.training:  # so that words are met that are not known
            hidden = torch.rand(len(ids)) < _HIDDEN
            ids = torch.cat([ids[:, :1].masked_fill(hidden[:, None], 0), ids[:, 1:]], 1)
        parts = self.scale * self.words(ids)
        rows = parts[:, 0]
        for number in range(1, parts.shape[1]):  # in one order, however many rows there are
            rows = rows + parts[:, number]
        starts = F.pad((batch.lengths + 1).cumsum(0), (1, 0))[:-1]
        places = torch.arange(len(rows)) + torch.repeat_interleave(torch.arange(len(starts)), batch.lengths) + 1
        whole = rows.new_zeros(len(rows) + len(starts), rows.shape[1])
        whole = whole.index_copy(0, places, self.dropout(rows))
        whole = whole.index_copy(0, starts, self.head.expand(len(starts), -1))
        self.blocks.arbitrated, self.blocks.costs = self.learnt and not self.forced, self.costs
        whole = self.blocks(whole, batch.lengths + 1)
        return whole.index_select(0, starts), whole.index_select(0, places)


def mean_rows(rows: Tensor, offsets: Tensor) -> Tensor:
    """The mean of rows offsets[i]..offsets[i + 1] - 1, each added in its order; 0 of none."""
    if not len(rows):
        return rows.new_zeros(len(offsets) - 1, rows.shape[1])
    index = torch.arange(len(rows))
    return F.embedding_bag(index, rows, offsets, mode="mean", include_last_offset=True)
