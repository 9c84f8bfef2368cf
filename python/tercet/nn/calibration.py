"""Thresholds that let arbitrators keep a wanted share of frames."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tercet.nn.block import ArbitratedBlock


def calibrate_block(
    name: str,
    block: ArbitratedBlock,
    x: Tensor,
    valid: Tensor,
    keep: tuple[float, float],
    acoustic: Tensor | None,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Set a block's thresholds as its `calibrate_` says; returns its output on x."""
    pair = isinstance(keep, (tuple, list)) and len(keep) == 2
    if not pair or not all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in keep):
        raise ValueError(f"{name}: keep must be two shares in 0..1 (attention, feed-forward), got {keep}")
    if not bool(valid.any()):
        raise ValueError(f"{name}: x must hold at least one frame that is not padding, got {list(x.shape)}")
    training = {module: module.training for module in block.modules()}
    block.eval()
    try:
        block.attention_threshold.copy_(_threshold(block.logits(x, "attention", acoustic)[valid], keep[0]))
        nothing = torch.zeros_like(valid)
        run = partial(block.run, x, valid, mask=mask, is_causal=is_causal, acoustic=acoustic)
        on = run()[1].on
        attended = run(gates=(on, nothing))[0]
        block.feed_forward_threshold.copy_(_threshold(block.logits(attended, "feed_forward", acoustic)[valid], keep[1]))
        return run()[0]
    finally:
        for module, was_training in training.items():
            module.training = was_training


def _threshold(logits: Tensor, share: float) -> Tensor:
    """Such that round(share n) of the logits lie above it, ties apart; half way between two of them, so that another
    order of summing decides alike. Frames that are not finite are never on, and not counted."""
    logits = logits[logits.isfinite()]
    count = round(share * len(logits))
    if count in (0, len(logits)):
        return logits.new_tensor(torch.inf if share == 0 or count < len(logits) else -torch.inf)
    kept, left_out = logits.sort(descending=True).values[count - 1 : count + 1]
    middle = (kept + left_out) / 2
    return torch.where(middle < kept, middle, left_out)
