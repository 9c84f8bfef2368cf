"""How much the blocks are believed beside ridge regression: measured on dialogues that they have not learnt from.

Ridge is cross-fitted, so what it says of any dialogue of the training data is as good as of a new one. What the blocks
say of a dialogue that they have seen is far better than what they say of a new one, which can make ridge alone worse.
So of many dialogues a tenth teaches ridge alone, and on these the logit of each part becomes

    trust_0 blocks + trust_1 ridge,     the loss of the part the smallest, both at least 0

Wolpert: Stacked Generalization, 1992.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from tercet.labeling.model.batches import Example
from tercet.labeling.model.heads import loss_of
from tercet.labeling.model.label_model import LabelModel

_FEWEST = 4000  # dialogues: of fewer the blocks need all, and a tenth says little
_RUNS, _SHARE = 40, 10  # of which every tenth is kept apart: neighbours are alike
_TOGETHER = 256


def keeps_apart(place: int, num_dialogues: int) -> bool:
    """Whether the blocks do not learn from the dialogue at this place."""
    return num_dialogues >= _FEWEST and place // (num_dialogues // _RUNS) % _SHARE == _SHARE - 1


@torch.no_grad()
def weigh(model: LabelModel, apart: Iterator[Example]) -> None:
    """Set how much each part's blocks and ridge count, by dialogues that the blocks did not learn from; alike if there
    are none."""
    heads, found = model.heads, dict[str, list[tuple[Tensor, ...]]]()
    while some := list(islice(apart, _TOGETHER)):
        batch = model.batch(some)
        logits = []
        for only in (0, 1):
            heads.trust.zero_()[:, only] = 1.0
            logits.append(model(batch).logits)
        for part in heads.scales:
            found.setdefault(part, []).append((logits[0][part], logits[1][part], *batch.targets[part]))
    heads.trust.fill_(1.0)
    for place, part in enumerate(heads.scales if found else ()):
        blocks, ridge, wanted, weights = (torch.cat(column).double() for column in zip(*found[part], strict=True))
        if bool(weights.sum() > 0):
            heads.trust[place] = stacked(blocks, ridge, wanted, weights).float()


def stacked(blocks: Tensor, ridge: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """The factors of both, none below 0, with the smallest loss: float64 [2]."""
    both = _descended((blocks, ridge), wanted, weights)
    for place, other in ((0, ridge), (1, blocks)):
        if both[place] < 0:
            both[place], both[1 - place] = 0.0, _descended((other,), wanted, weights).clamp(min=0)[0]
    return both


def _descended(logits: Sequence[Tensor], wanted: Tensor, weights: Tensor) -> Tensor:
    factors = torch.ones(len(logits), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([factors], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = loss_of(torch.stack([f * x for f, x in zip(factors, logits, strict=True)]).sum(0), wanted, weights)
        assert value is not None
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return factors.detach()
