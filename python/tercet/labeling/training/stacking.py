"""Stacking: how much blocks and ridge regression count, measured on labels that the blocks have not learnt from.

Ridge is cross-fitted, so what it says of any dialogue of the training data is as good as of a new one. What the blocks
say of a dialogue that they have seen is far better than what they say of a new one, which can make ridge alone worse.
So of many dialogues a tenth hides from the blocks the labels that ridge learns too, and there the logit of each part
becomes

    factor_0 blocks + factor_1 ridge,     factors >= 0 with the smallest sum of losses + |factors - 1|^2 / 10

Wolpert: Stacked Generalization, 1992.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tercet.labeling.model.batches import Example
from tercet.labeling.model.heads import loss_of
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.training.preparing import run_of

_FEWEST = 4000  # dialogues: of fewer the blocks need all, and a tenth says little
# Every tenth run of neighbours, the fifth first: each lies within one run of the cross-fitting, and they meet all of
# its folds.
_RUNS, _EVERY, _FIRST = 50, 10, 4
_PULL = 0.1  # keeps factors finite where labels are few or of one class


def is_apart(place: int, num_dialogues: int) -> bool:
    """Whether the dialogue at this place hides labels from the blocks."""
    return num_dialogues >= _FEWEST and run_of(place, num_dialogues, _RUNS) % _EVERY == _FIRST


def hidden(example: Example, parts: Iterable[str]) -> Example:
    """The example without the targets of these parts."""
    targets = example.targets
    assert targets is not None
    for part in parts:
        if part == "whole_success":
            targets = replace(targets, whole_weight=0.0)
        else:
            targets = replace(targets, **{f"{part}_weight": np.zeros_like(getattr(targets, f"{part}_weight"))})
    return replace(example, targets=targets)


@torch.no_grad()
def stack(model: LabelModel, apart: Iterator[Example], batch_size: int) -> None:
    """Set the factors of a model in evaluation mode by dialogues that hid labels; of parts that have none, 1."""
    heads, found = model.heads, dict[str, list[tuple[Tensor, ...]]]()
    heads.factors.fill_(1.0)
    while some := list(islice(apart, batch_size)):
        batch = model.batch(some)
        turns = model(batch).turns
        together, alone = heads(turns), heads(replace(turns, wide_turns=None, wide_whole=None))
        for part in heads.scales:
            wanted, weights = batch.targets[part]
            rows = alone[part], together[part] - alone[part], wanted, weights
            found.setdefault(part, []).append(tuple(each[weights > 0] for each in rows))
    for place, part in enumerate(heads.scales):
        columns = [torch.cat(column).double() for column in zip(*found.get(part, ()), strict=True)]
        if columns and len(columns[0]):
            heads.factors[place] = best_factors(*columns).float()


def best_factors(blocks: Tensor, ridge: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """The factors of both, none below 0, with the smallest loss: float64 [2]."""

    def loss(factors: Tensor, logits: Sequence[Tensor]) -> Tensor:
        joint = torch.stack([factor * each for factor, each in zip(factors, logits, strict=True)]).sum(0)
        value = loss_of(joint, wanted, weights)
        assert value is not None
        return value + _PULL * (factors - 1).square().sum() / weights.sum()

    def descended(*logits: Tensor) -> Tensor:
        factors = torch.ones(len(logits), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([factors], max_iter=50, line_search_fn="strong_wolfe")

        def step() -> Tensor:
            optimizer.zero_grad()
            value = loss(factors, logits)
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(step)
        return factors.detach()

    both = descended(blocks, ridge)
    if bool((both >= 0).all()):
        return both
    alone = [descended(each).clamp(min=0) for each in (blocks, ridge)]  # the loss is convex: the best lies on an edge
    edges = [torch.cat([alone[0], torch.zeros_like(alone[0])]), torch.cat([torch.zeros_like(alone[1]), alone[1]])]
    return min(edges, key=lambda factors: float(loss(factors, (blocks, ridge))))
