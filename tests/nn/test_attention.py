"""Packed attention by torch: padded to the longest sequence it gives what one sequence after the other gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, copied, draw_mask
from strategies import normal, seeds
from tercet.nn import block
from tercet.nn.attention import AttentionWindow, attend_by_sequence, attend_padded

sides = st.sampled_from([None, 0, 1, 3])
kinds = st.sampled_from(["none", "bool 2d", "float 2d", "bool 3d", "float 3d"])
rates = st.sampled_from([0.0, 0.3, 0.9, 1.0])


def masks_of(rng: np.random.Generator, kind: str, batch: int, num_frames: int, heads: int) -> Tensor | None:
    """As `AttentionWindow` holds them: bool is what is seen, three dimensions are [B, heads, T, T]."""
    mask = draw_mask(rng, kind, batch, num_frames, heads)
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (batch, heads))
    return mask if mask is None or mask.dtype != torch.bool else ~mask


@given(seeds, st.integers(1, 4), st.integers(1, 9), rates, rates, st.booleans(), sides, sides, kinds)
@settings(max_examples=120)
def test_padded_sequences_attend_as_one_after_the_other(
    seed: int, batch: int, num_frames: int, asks: float, offers: float, kept: bool, left: int | None,
    right: int | None, kind: str,
) -> None:  # fmt: skip
    """Gradients too, but those of queries whose every key is masked."""
    rng = np.random.default_rng(seed)
    query_mask, key_mask = (torch.from_numpy(rng.random((batch, num_frames)) < rate) for rate in (asks, offers))
    key_mask = query_mask if kept else key_mask | query_mask
    window = AttentionWindow(left, right, masks_of(rng, kind, batch, num_frames, 2))
    counts = int(query_mask.sum()), int(key_mask.sum()), int(key_mask.sum())
    parts = [normal(rng, count, 6, dtype=torch.float64).requires_grad_() for count in counts]
    want = attend_by_sequence(*parts, query_mask, key_mask, window, 2, 0.0)
    got = attend_padded(*parts, query_mask, key_mask, window, 2, 0.0)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12, equal_nan=True)
    if not counts[0]:
        return
    probe = normal(rng, *want.shape, dtype=torch.float64) * want.detach().isfinite()
    gradients = [torch.autograd.grad((out.nan_to_num() * probe).sum(), parts) for out in (got, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12, equal_nan=True)


@given(cases())
@settings(max_examples=40)
def test_layers_train_alike_with_padded_sequences(case: Case) -> None:
    """What devices other than the CPU run, on the CPU."""
    layer = copied(case, mode="compact").train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "attend_by_sequence", attend_padded)
        got = case.run(layer)
    torch.testing.assert_close(got, case.define(), rtol=0, atol=1e-11)
