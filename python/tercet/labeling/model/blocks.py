"""Transformer blocks over many sequences of different lengths, packed: rows of all of them one after the other.

Sequences go through together that are about as long, and frames that pad them are off: they are not computed when
nothing is learnt. What a sequence becomes does not depend on the others, bit for bit, as far as oneDNN multiplies a row
in the same way whatever stands beside it: it does for two rows or more, so a single row is doubled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer, ComputeCost
from tercet.nn.linear import linear

_FRAMES = 8192  # of a batch, padding included


class Linear(nn.Linear):
    """A linear map of rows [n, in] whose results do not depend on n."""

    def forward(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out]."""
        if len(rows) == 1:
            return linear(rows.expand(2, -1), self.weight, self.bias)[:1]
        return linear(rows, self.weight, self.bias)


class Convolution(nn.Module):
    """x_t + relu(W (x_{t - reach}, .., x_{t + reach})) in each sequence; beyond its ends are zeros.

    Attention has to learn from data what stands beside what; a few thousand sequences do not teach it that.
    """

    def __init__(self, dim: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.map = Linear((2 * reach + 1) * dim, dim)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Rows [sum of lengths, dim] -> the same shape."""
        shifts = torch.arange(-self.reach, self.reach + 1)
        place = places_of(lengths)[:, None] + shifts
        inside = (place >= 0) & (place < torch.repeat_interleave(lengths, lengths)[:, None])
        index = torch.where(inside, torch.arange(len(rows))[:, None] + shifts, len(rows))
        near = F.pad(rows, (0, 0, 0, 1)).index_select(0, index.flatten())
        out: Tensor = rows + F.relu(self.map(near.view(len(rows), self.map.in_features)))
        return out


class Blocks(nn.Module):
    """`num_layers` blocks and a norm; without layers the norm alone.

    Args:
        positions: how many places have a vector that is added to their rows; places beyond share the last. 0: none.
        reach: of a convolution before the blocks, to either side. 0: none.
    """

    def __init__(
        self, dim: int, num_heads: int, feed_forward_dim: int, num_layers: int, *, positions: int, dropout: float,
        reach: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.convolution = Convolution(dim, reach) if reach and num_layers else None
        self.dim, self.arbitrated = dim, False  # whether arbitrators decide; else all blocks run
        self.places = nn.Parameter(0.02 * torch.randn(positions, dim)) if positions else None
        self.norm = nn.LayerNorm(dim)
        self.encoder: ArbitratedEncoder | None = None
        if num_layers:
            layer = ArbitratedEncoderLayer(dim, num_heads, feed_forward_dim, dropout, "gelu")
            self.encoder = ArbitratedEncoder(layer, num_layers)
            for block in self.encoder.blocks:  # copies start alike
                block.self_attn._reset_parameters()
                block.self_attn.dropout = 0.0  # which would keep torch from its fast attention
                block.linear1.reset_parameters()
                block.linear2.reset_parameters()
        self.costs: list[ComputeCost] | None = None  # a list gets what is spent

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Rows [sum of lengths, dim] of sequences, lengths int64 [num_sequences] -> the same shape."""
        if self.encoder is None:
            out: Tensor = self.norm(rows if self.places is None else rows + self._placed(lengths))
            return out
        if self.places is not None:
            rows = rows + self._placed(lengths)
        if self.convolution is not None:
            rows = self.convolution(rows, lengths)
        starts = F.pad(lengths.cumsum(0), (1, 0))[:-1]
        parts, index = [], []
        for chosen in chunks(lengths, _FRAMES):
            own = lengths[chosen]
            frame = torch.arange(int(own.max()))
            valid = frame < own[:, None]
            place = (starts[chosen][:, None] + frame)[valid]
            parts.append(self._run(rows, place, valid))
            index.append(place)
        if not parts:
            return rows
        normed: Tensor = self.norm(in_order(parts, index))
        return normed

    def _run(self, rows: Tensor, place: Tensor, valid: Tensor) -> Tensor:
        assert self.encoder is not None
        single = len(place) == 1
        if single:
            place, valid = place.expand(2), valid.expand(2, -1)
        where = valid.flatten().nonzero().squeeze(1)
        frames = rows.new_zeros(valid.numel(), self.dim).index_copy(0, where, rows.index_select(0, place))
        x = frames.view(*valid.shape, self.dim)
        on = None if self.arbitrated else valid.expand(len(self.encoder.layers), 2, *valid.shape)
        x, cost = self.encoder(x, src_key_padding_mask=~valid, gates=on)
        if self.costs is not None:
            self.costs.append(cost)
        found: Tensor = x.flatten(0, 1).index_select(0, where)
        return found[:1] if single else found

    def _placed(self, lengths: Tensor) -> Tensor:
        assert self.places is not None
        return self.places[places_of(lengths).clamp(max=len(self.places) - 1)]


def places_of(lengths: Tensor) -> Tensor:
    """0, 1, ... of each sequence, one after the other: int64 [sum of lengths].

    Example:
        >>> places_of(torch.tensor([2, 0, 3]))
        tensor([0, 1, 0, 1, 2])
    """
    starts = F.pad(lengths.cumsum(0), (1, 0))[:-1]
    return torch.arange(int(lengths.sum())) - torch.repeat_interleave(starts, lengths)


def in_order(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """The rows of all `parts` in the order of their `places`, int64 [rows of the part] each: every place once."""
    place = torch.cat(list(places))
    order = torch.empty_like(place).index_copy_(0, place, torch.arange(len(place)))
    return torch.cat(list(parts)).index_select(0, order)


def chunks(lengths: Tensor, most: int) -> Iterator[Tensor]:
    """Numbers of sequences that go together, the shortest first: at most `most` frames with padding, or one sequence.
    Empty ones are left out."""
    order = lengths.argsort(stable=True)
    order = order[lengths[order] > 0]
    sizes = lengths[order].tolist()
    start = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end + 1 - start) * sizes[end] > most:
            yield order[start:end]
            start = end
