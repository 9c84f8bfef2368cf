"""Ridge regression on the words around an item: what a linear model finds stands beside what the blocks find.

An item is a dialogue or a turn; its features are words and pairs of words, each by whose they are and where they stand,
and of a turn what is known of it, also crossed with its words. They are weighted (1 + log count) log((1 + items) / (1 +
items with it)), each group scaled to length 1. Weights minimise

    sum over items of w_i |x_i beta - y_i|^2 + penalty |beta|^2

by conjugate gradients. What training sees of an item comes from weights that were fitted without it (cross-fitting).
A dialogue has further features: the cross-fitted figures of its turns, summarised (`summaries`), each with mean 0 and
deviation _SHARE: what its turns look like says more of its outcome than words alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.data.dialogues import SPEAKERS, Dialogue, Turn
from tercet.labeling.model.text import words_of

Hashes = npt.NDArray[np.uint64]
MOST = 1 << 17  # features
FOLDS = 5
_STEPS, _TOLERANCE = 60, 1e-4
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd: two words, in order
_SHARE = 0.2
_CROSSED_WORDS, _CROSSED_NAMES = 32, 8  # of a turn, that are crossed: no feature for each two of a long text
_CONSTANT = 3.0  # the value of the feature that all items have: its weight is hardly held back


class Rows(NamedTuple):
    """Sparse rows: row i has the features columns[offsets[i]:offsets[i + 1]] with these values.

    Attributes:
        columns, offsets: int64 [count], [num_rows + 1].
        values: float32 [count].
    """

    columns: Tensor
    values: Tensor
    offsets: Tensor

    def times(self, matrix: Tensor) -> Tensor:
        """[num_features, k] -> [num_rows, k]; each row by itself, in its order."""
        if not len(self.columns):
            return matrix.new_zeros(len(self.offsets) - 1, matrix.shape[1])
        values = self.values.to(matrix.dtype)
        return F.embedding_bag(
            self.columns, matrix, self.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
        )

    def transposed(self, num_features: int) -> Rows:
        """Rows by feature."""
        order = self.columns.argsort(stable=True)
        items = torch.repeat_interleave(self.offsets.diff())
        counts = self.columns.bincount(minlength=num_features)
        return Rows(items[order], self.values[order], F.pad(counts.cumsum(0), (1, 0)))


def dialogue_groups(dialogue: Dialogue) -> list[Hashes]:
    """The features of a dialogue: all that each side says, and its last turn; a user's only turn is no last one."""
    turns, none = dialogue.turns, np.zeros(0, np.uint64)
    own = {speaker: [turn for turn in turns if turn.speaker == speaker] for speaker in SPEAKERS}
    groups = []
    for speaker, said in own.items():
        groups.append(np.concatenate([none, *(_grams(turn.text, speaker) for turn in said)]))
        if len(said) > (speaker == "user"):
            groups.append(_grams(said[-1].text, f"last of {speaker}"))
    shape = [f"turns {min(len(turns), 12)}", f"ends {turns[-1].speaker}"]
    return [*groups, _hashes(shape)]


def summaries(figures: Tensor, by_user: Tensor, sizes: Tensor) -> Tensor:
    """Of the figures of turns [num_turns, columns], by dialogue: [num_dialogues, 8 columns]. They are those of the last
    turn, of each side's last, of the first, the highest of each side, their mean and sum; 0 of a side that is silent.

    Args:
        figures: of the turns of all dialogues, one after the other.
        by_user: bool [num_turns]. sizes: int64 [num_dialogues].
    """
    starts = sizes.cumsum(0) - sizes
    dialogue = torch.repeat_interleave(sizes)
    place = torch.arange(len(figures))
    parts = [figures[starts + sizes - 1], figures[starts]]
    for side in (by_user, ~by_user):
        low = figures.new_full((len(sizes), figures.shape[1]), -torch.inf)
        index = dialogue[side, None].expand(-1, figures.shape[1])
        highest = low.scatter_reduce(0, index, figures[side], "amax")
        last = torch.full_like(sizes, -1).scatter_reduce(0, dialogue[side], place[side], "amax")
        parts += [highest.masked_fill(last[:, None] < 0, 0), figures[last].masked_fill(last[:, None] < 0, 0)]
    total = torch.zeros(len(sizes), figures.shape[1]).index_add_(0, dialogue, figures)
    return torch.cat([*parts, total, total / sizes[:, None]], 1)


def turn_groups(dialogue: Dialogue) -> list[list[Hashes]]:
    """The features of each turn: its own, its neighbours', what is known of it."""
    turns = dialogue.turns
    found = []
    for place, turn in enumerate(turns):
        around = [_hashes([f"place {min(place, 8)} {turn.speaker}", "last" if place == len(turns) - 1 else "inside"])]
        for name, other in (("before", place - 1), ("after", place + 1)):
            if 0 <= other < len(turns):
                around.append(_grams(turns[other].text, f"{name} {turns[other].speaker}"))
        known = [f"{name}={value}" for name, value in turn.categorical.items()]
        traces = [_grams(trace.decision or "", f"trace {name}") for name, trace in turn.traces.items()]
        found.append([_grams(turn.text, turn.speaker), *around, _hashes(known), *traces, *_crossed(turn, known)])
    return found


def _crossed(turn: Turn, known: Sequence[str]) -> list[Hashes]:
    """Each word with each thing known of the turn, and with each word that components add to it, such as an intent or
    the type of an entity: whether words and what was made of them go together is in no word alone."""
    words = words_of(turn.text)
    heard = set(words)
    added = dict.fromkeys(
        f"trace {name} {word}"
        for name, trace in turn.traces.items()
        for word in words_of(trace.decision or "")
        if word not in heard and word[0].isalnum()
    )
    spoken = _hashes(f"{turn.speaker} {word}" for word in words[:_CROSSED_WORDS]) * _SECOND
    both = known[:_CROSSED_NAMES], list(added)[:_CROSSED_NAMES]
    return [(_hashes(names)[:, None] * _FIRST + spoken).ravel() for names in both]


class Wide(nn.Module):
    """Features and weights for `num_outputs` figures of an item.

    Attributes:
        hashes: int64 [num_features], ascending; idf: float32 [num_features]; weight: float32 [num_features + 1 +
            num_extra, num_outputs], after the features' rows that of the constant one, then those of extra figures.
        middle, scale: float32 [num_extra]: extra figures are taken as (figure - middle) * scale.
    """

    hashes: Tensor
    idf: Tensor
    weight: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, num_features: int, num_outputs: int, num_extra: int = 0) -> None:
        super().__init__()
        self.register_buffer("hashes", torch.zeros(num_features, dtype=torch.int64))
        self.register_buffer("idf", torch.zeros(num_features))
        self.register_buffer("weight", torch.zeros(num_features + 1 + num_extra, num_outputs))
        self.register_buffer("middle", torch.zeros(num_extra))
        self.register_buffer("scale", torch.zeros(num_extra))

    @classmethod
    def counted(cls, items: Iterable[list[Hashes]], num_outputs: int, num_extra: int = 0) -> Wide:
        """With the features that two items or more have, `MOST` at most, and no weights yet."""
        met: list[Hashes] = [np.unique(np.concatenate(groups)) for groups in items if groups]
        features, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *met]), return_counts=True)
        common = counts > 1
        features, counts = features[common], counts[common]
        if len(features) > MOST:
            kept = np.sort(np.argsort(-counts, kind="stable")[:MOST])
            features, counts = features[kept], counts[kept]
        order = np.argsort(features.view(np.int64))
        made = cls(len(features), num_outputs, num_extra)
        made.hashes.copy_(torch.from_numpy(features.view(np.int64)[order]))
        made.idf.copy_(torch.from_numpy(np.log((1 + len(met)) / (1 + counts[order])).astype(np.float32)))
        return made

    def rows(self, items: Sequence[list[Hashes]]) -> Rows:
        """The rows of items, each by itself: the constant feature, then those of its groups."""
        hashes, idf = self.hashes.numpy(), self.idf.numpy()
        groups = [group for item in items for group in item]
        owner = np.repeat(np.arange(len(items)), [len(item) for item in items])
        met = np.concatenate([np.zeros(0, np.uint64), *groups]).view(np.int64)
        group = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
        place = np.searchsorted(hashes, met)
        known = place < len(hashes)
        known[known] = hashes[place[known]] == met[known]
        width = len(hashes) + 1
        keys, counts = np.unique(group[known] * width + place[known], return_counts=True)
        group, place = keys // width, keys % width
        weights = (1 + np.log(counts)) * idf[place]
        length = np.sqrt(np.bincount(group, np.square(weights), len(groups)))
        values = np.concatenate([np.full(len(items), _CONSTANT), weights / np.maximum(length, 1e-9)[group]])
        row = np.concatenate([np.arange(len(items)), owner[group]])
        order = np.argsort(row, kind="stable")
        columns = np.concatenate([np.full(len(items), len(hashes)), place])[order]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(items)))])
        return Rows(
            torch.from_numpy(columns), torch.from_numpy(values[order].astype(np.float32)), torch.from_numpy(offsets)
        )

    def fit(
        self,
        rows: Rows,
        wanted: Tensor,
        weights: Tensor,
        folds: Tensor,
        penalties: Sequence[float],
        extra: Tensor | None = None,
    ) -> Tensor:
        """Set the weights; the figures [num_rows, num_outputs] of each row by weights of the other folds.

        Args:
            rows: of `rows`.
            wanted, weights: float32 [num_rows, num_outputs]; weight 0: nothing is known.
            folds: int64 [num_rows], in 0..FOLDS - 1: rows of a dialogue belong together.
            penalties: the one whose cross-fitted figures are nearest is taken.
            extra: float32 [num_rows, num_extra], cross-fitted too.
        """
        if extra is not None:
            self.middle.copy_(extra.mean(0))
            self.scale.copy_(_SHARE / extra.std(0, correction=0).clamp(min=1e-3))
            rows = self._beside(rows, extra)
        size = self.weight.shape[0]
        best, error = penalties[0], float("inf")
        figures = torch.zeros_like(wanted)
        for penalty in penalties:
            tried = torch.zeros_like(wanted)
            for fold in range(FOLDS):
                inside = (folds == fold)[:, None]
                beta = _ridge(rows, size, wanted, weights.masked_fill(inside, 0), penalty)
                tried = torch.where(inside, rows.times(beta), tried)
            off = float((weights * (tried - wanted).square()).sum())
            if off < error:
                best, error, figures = penalty, off, tried
        self.weight.copy_(_ridge(rows, size, wanted, weights, best))
        return figures

    def forward(self, rows: Rows, extra: Tensor | None = None) -> Tensor:
        """[num_rows, num_outputs]."""
        return (rows if extra is None else self._beside(rows, extra)).times(self.weight)

    def _beside(self, rows: Rows, extra: Tensor) -> Rows:
        """Rows with extra figures at their ends."""
        first, count = len(self.hashes) + 1, extra.shape[1]
        values = (extra - self.middle) * self.scale
        ends = rows.offsets[1:].repeat_interleave(count)
        place = torch.arange(len(ends)) + ends
        total = len(rows.columns) + len(ends)
        old = torch.ones(total, dtype=torch.bool)
        old[place] = False
        columns, joint = torch.empty(total, dtype=torch.int64), torch.empty(total)
        columns[old], joint[old] = rows.columns, rows.values
        columns[place], joint[place] = torch.arange(first, first + count).repeat(len(extra)), values.flatten()
        return Rows(columns, joint, rows.offsets + torch.arange(len(rows.offsets)) * count)


def _ridge(rows: Rows, num_features: int, wanted: Tensor, weights: Tensor, penalty: float) -> Tensor:
    across = rows.transposed(num_features)
    residual = across.times(weights * wanted)
    beta, direction = torch.zeros_like(residual), residual
    size = residual.square().sum(0)
    enough = _TOLERANCE**2 * size
    for _ in range(_STEPS):
        if bool((size <= enough).all()):
            break
        image = across.times(weights * rows.times(direction)) + penalty * direction
        step = size / (direction * image).sum(0).clamp(min=1e-30)
        beta = beta + step * direction
        residual = residual - step * image
        before, size = size, residual.square().sum(0)
        direction = residual + size / before.clamp(min=1e-30) * direction
    return beta


def _grams(text: str, name: str) -> Hashes:
    hashes: Hashes = (_words_and_pairs(text) ^ np.uint64(_hash(name))) * _FIRST
    return hashes


@lru_cache(1 << 14)
def _words_and_pairs(text: str) -> Hashes:
    words = np.array([_hash(word) for word in words_of(text)], np.uint64)
    return np.concatenate([words, words[:-1] * _FIRST + words[1:] * _SECOND])


def _hashes(names: Iterable[str]) -> Hashes:
    return np.array([_hash(name) for name in names], np.uint64)


@lru_cache(1 << 18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
