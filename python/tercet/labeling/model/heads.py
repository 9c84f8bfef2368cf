"""What a model says of turns and dialogues, and the loss of each part of it.

    begins, defects, swapped     sigmoid(<w, x_t>)                       x_t: the turn after the dialogue's blocks
    intents, failure_point       softmax(W x_t)
    membership[s, t]             sigmoid(<Q x_s, K x_t> / sqrt(dim) + d[t - s])
    success of the goal at s     sigmoid(<w, (x_s, mean of x_t by membership[s, t])>)
    whole_success                sigmoid(<w, (mean of x_t, largest of x_t)>)
To the logits of begins, defects, intents, failure_point and whole_success the figures of `Wide` are added, each task's
times a factor of its own; how much both count is measured after training (`tercet.labeling.training.stacking`). Losses
are cross-entropies with shares, weighted by learnt uncertainty,

    sum over parts k of exp(-u_k) loss_k + u_k / 2

Kendall, Gal, Cipolla: Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.model.blocks import Linear
from tercet.labeling.model.encoder import mean_rows
from tercet.labeling.model.predictions import Classes

# What a model may be asked to learn; "swapped" is of pre-training.
PARTS = ("begins", "membership", "success", "whole_success", "defects", "intents", "failure_point", "slots",
         "transcription", "swapped")  # fmt: skip
WIDE_PARTS = ("begins", "defects", "intents", "failure_point")  # of turns
_PAIRS = 1 << 17  # that are scored together
_DISTANCES = 24  # of turns, from which on all are alike


@dataclass(frozen=True)
class Tasks:
    """What a model was made for.

    Attributes:
        parts: of PARTS, in their order.
        classes: the names of classes.
        edits: what words are replaced with where transcriptions are corrected.
        speakers: of defects, intents and failure_point: whose turns training labels; of others nothing is said.
    """

    parts: tuple[str, ...]
    classes: Classes = field(default_factory=Classes)
    edits: tuple[str, ...] = ()
    speakers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def wide_columns(self) -> dict[str, slice]:
        """The columns of each part among the figures of turns."""
        sizes = {"intents": len(self.classes.intents), "failure_point": len(self.classes.failure_point)}
        columns, start = {}, 0
        for part in WIDE_PARTS:
            if part in self.parts:
                columns[part] = slice(start, start := start + sizes.get(part, 1))
        return columns


@dataclass(frozen=True, eq=False)
class Turns:
    """Turns of all dialogues of a batch, one after the other, and what belongs to them.

    Attributes:
        rows: float [N, dim].
        offsets: int64 [num_dialogues + 1].
        first, second: int64 [num_pairs]: pairs s <= t of turns of a dialogue, by s. pair_offsets: int64 [N + 1].
        wide_turns: [N, columns] or None. wide_whole: [num_dialogues, 1] or None.
    """

    rows: Tensor
    offsets: Tensor
    first: Tensor
    second: Tensor
    pair_offsets: Tensor
    wide_turns: Tensor | None
    wide_whole: Tensor | None


class Heads(nn.Module):
    """Logits by part; slots and transcription are heads of their own.

    Attributes:
        factors: float32 [parts with ridge, 2], how much what blocks and what ridge say counts; 1 in training.
    """

    factors: Tensor

    def __init__(self, dim: int, tasks: Tasks, dropout: float, *, wide: bool) -> None:
        super().__init__()
        self.tasks, self.dim = tasks, dim
        self.dropout = nn.Dropout(dropout)
        sizes = {
            "begins": (dim, 1), "success": (2 * dim, 1), "whole_success": (2 * dim, 1), "defects": (dim, 1),
            "intents": (dim, len(tasks.classes.intents)), "failure_point": (dim, len(tasks.classes.failure_point)),
            "swapped": (dim, 1),
        }  # fmt: skip
        maps = {part: Linear(*sizes[part]) for part in tasks.parts if part in sizes}
        for each in maps.values():
            nn.init.zeros_(each.weight)
        self.maps = nn.ModuleDict(maps)
        if "membership" in tasks.parts:
            self.query, self.key = Linear(dim, dim), Linear(dim, dim)
            self.distance = nn.Parameter(torch.zeros(_DISTANCES))
        self.columns = tasks.wide_columns() if wide else {}
        scaled = [*self.columns, *({"whole_success"} & set(tasks.parts) if wide else ())]
        self.scales = nn.ParameterDict({part: nn.Parameter(torch.tensor([4.0, 0.5])) for part in scaled})
        self.register_buffer("factors", torch.ones(len(scaled), 2))
        self.uncertainty = nn.Parameter(torch.zeros(len(tasks.parts)))

    def forward(self, turns: Turns, membership: Tensor | None = None) -> dict[str, Tensor]:
        """Logits: [N] or [N, classes] of turns, [num_pairs] of membership, [num_dialogues] of whole_success.

        Args:
            turns: of a batch.
            membership: float [num_pairs], shares to pool turns of goals by; None: the model's own.
        """
        rows, found = self.dropout(turns.rows), {}
        for part in ("begins", "defects", "intents", "failure_point", "swapped"):
            if part in self.maps:
                logits = self.maps[part](rows)
                if part in self.columns and turns.wide_turns is not None:
                    logits = self._joint(part, logits, turns.wide_turns[:, self.columns[part]])
                found[part] = logits.squeeze(1) if part not in ("intents", "failure_point") else logits
        if "membership" in self.tasks.parts:
            query, key = self.query(rows), self.key(rows)
            scores = [
                (query.index_select(0, first) * key.index_select(0, second)).sum(1)
                for first, second in zip(turns.first.split(_PAIRS), turns.second.split(_PAIRS), strict=True)
            ]
            apart = (turns.second - turns.first).clamp(max=_DISTANCES - 1)
            found["membership"] = torch.cat(scores) / math.sqrt(self.dim) + self.distance[apart]
        if "success" in self.maps:
            if membership is None:
                membership = shares_of(found["membership"].detach()) if "membership" in found else None
            shares = torch.ones(len(turns.first)) if membership is None else membership
            shares = torch.where(turns.first == turns.second, torch.ones_like(shares), shares)
            found["success"] = self.maps["success"](torch.cat([rows, _pooled(rows, turns, shares)], 1)).squeeze(1)
        if "whole_success" in self.maps:
            both = mean_rows(rows, turns.offsets), _largest(rows, turns.offsets)
            logits = self.maps["whole_success"](torch.cat(both, 1))
            if "whole_success" in self.scales and turns.wide_whole is not None:
                logits = self._joint("whole_success", logits, turns.wide_whole)
            found["whole_success"] = logits.squeeze(1)
        return found

    def _joint(self, part: str, logits: Tensor, figures: Tensor) -> Tensor:
        """What blocks and ridge say together."""
        factor, middle = self.scales[part]
        blocks, ridge = self.factors[[*self.scales].index(part)]
        joint: Tensor = blocks * logits + ridge * (factor * (figures - middle))
        return joint

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses of a batch, by part, as one."""
        places = {part: place for place, part in enumerate(self.tasks.parts)}
        terms = [
            (-self.uncertainty[places[part]]).exp() * loss + self.uncertainty[places[part]] / 2
            for part, loss in losses.items()
        ]
        return torch.stack(terms).sum()


def shares_of(logits: Tensor) -> Tensor:
    """The sigmoid of logits [n], by a softmax of each: torch's sigmoid has other last bits where a vector of the CPU is
    not full, so what one item gets would depend on how many there are."""
    return torch.stack([torch.zeros_like(logits), logits], 1).softmax(1)[:, 1]


def loss_of(logits: Tensor, wanted: Tensor, weights: Tensor) -> Tensor | None:
    """The weighted mean of the cross-entropy with shares: [n] of two classes, [n, classes] of more; None: no weight."""
    whole = weights.sum()
    if not bool(whole > 0):
        return None
    if logits.ndim == 1:
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    else:
        each = -(wanted * logits.log_softmax(1)).sum(1)
    return (each * weights).sum() / whole


def _pooled(rows: Tensor, turns: Turns, shares: Tensor) -> Tensor:
    """[N, dim]: the mean of turns t by shares of the pairs (s, t), for each s."""

    def weighted(values: Tensor) -> Tensor:
        return F.embedding_bag(
            turns.second, values, turns.pair_offsets, mode="sum", per_sample_weights=shares, include_last_offset=True
        )

    return weighted(rows) / weighted(torch.ones(len(rows), 1))


def _largest(rows: Tensor, offsets: Tensor) -> Tensor:
    """The largest of each figure among a dialogue's rows."""
    dialogues = torch.repeat_interleave(offsets.diff())[:, None].expand_as(rows)
    low = rows.new_full((len(offsets) - 1, rows.shape[1]), -torch.inf)
    return low.scatter_reduce(0, dialogues, rows, "amax", include_self=True)
