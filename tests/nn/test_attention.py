"""Attention of gated frames by torch: padded or one sequence after the other, and what keys do for other frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gated import Case, cases, copied, draw_mask
from strategies import normal, seeds
from tercet.nn import attention, block
from tercet.nn.attention import AttentionWindow, attend_by_sequence, attend_padded, with_key_effects, with_mask

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


class Attended(NamedTuple):
    """Attention of B sequences in which some keys are on; all as `with_key_effects` takes it."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    allowed: Tensor
    on: Tensor

    def seen(self, on: Tensor) -> Tensor:
        """The mask of attention where these keys are on; a frame sees itself."""
        visible = on[:, None, None, :] | torch.eye(on.shape[1], dtype=torch.bool)
        if self.allowed.dtype == torch.bool:
            return self.allowed & visible
        return self.allowed.masked_fill(~visible, -torch.inf)

    def gradient(self, probe: Tensor) -> Tensor:
        """That of the keys' gates, for the loss <probe, attention>."""
        scale = torch.ones(self.on.shape, requires_grad=True)
        mixed = F.scaled_dot_product_attention(*self[:3], self.seen(self.on))
        (found,) = torch.autograd.grad((with_key_effects(mixed, scale, *self) * probe).sum(), scale)
        return found

    def left_out(self, probe: Tensor) -> Tensor:
        """The same by turning one key after the other, in float64; a query is not asked about its own key."""
        queries, keys, values = (part.double() for part in self[:3])
        scores = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5

        def losses(on: Tensor) -> Tensor:
            visible = with_mask(torch.ones_like(scores, dtype=torch.bool), self.seen(on), torch.float64)
            own = scores.masked_fill(~visible, -torch.inf) if visible.dtype == torch.bool else scores + visible
            weights = own.masked_fill((own == -torch.inf).all(-1, keepdim=True), 0).softmax(-1)
            mixed = weights.masked_fill(own == -torch.inf, 0) @ values
            return (mixed * probe.double()).sum((1, 3))  # of each query

        found = []
        for key in range(scores.shape[-1]):
            this = torch.arange(scores.shape[-1]) == key
            found.append((losses(self.on | this) - losses(self.on & ~this))[:, ~this].sum(1))
        return torch.stack(found, 1)


def draw_attended(rng: np.random.Generator, kind: str, sharp: float, rate: float, dtype: torch.dtype) -> Attended:
    batch, heads, num_frames = 3, 2, 9
    queries, keys, values = (normal(rng, batch, heads, num_frames, 4, dtype=dtype) for _ in range(3))
    mask = masks_of(rng, kind, batch, num_frames, heads)
    inside = torch.ones(batch, 1, num_frames, num_frames, dtype=torch.bool).tril(2)
    inside = inside & torch.from_numpy(rng.random((batch, 1, 1, num_frames)) < 0.9)
    on = torch.from_numpy(rng.random((batch, num_frames)) < rate)
    return Attended(sharp * queries, keys, values, with_mask(inside, mask, dtype), on)


@given(
    seeds, kinds, st.sampled_from([0.5, 5.0, 100.0]), rates, st.sampled_from([1, 200, 1 << 20]),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)  # fmt: skip
@settings(max_examples=150)
def test_gates_learn_what_a_key_changes(
    seed: int, kind: str, sharp: float, rate: float, at_once: int, dtype: torch.dtype
) -> None:
    """Also where one key has nearly all weight, where a query sees nothing else, and in halves, in several pieces."""
    rng = np.random.default_rng(seed)
    attended = draw_attended(rng, kind, sharp, rate, dtype)
    probe = normal(rng, *attended.values.shape, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_SCORES_AT_ONCE", at_once)
        got = attended.gradient(probe)
    # float32 scores of some hundreds are rounded by some 1e-5, and their exponentials by that share
    tolerance = 1e-5 if dtype == torch.float64 or sharp < 100 else 2e-3
    torch.testing.assert_close(got.double(), attended.left_out(probe), rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("hidden", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_keys_hidden_by_a_number_are_counted_as_attention_counts_them(hidden: float) -> None:
    rng = np.random.default_rng(11)
    attended = draw_attended(rng, "none", 1.0, 0.5, torch.float32)
    added = torch.zeros(3, 1, 9, 9).masked_fill(~attended.allowed, -torch.inf)
    added[:, :, 4] += hidden  # all that this query sees
    added[:, :, 6, :5] += hidden
    attended = attended._replace(allowed=added.clamp(min=torch.finfo(torch.float32).min))
    probe = normal(rng, *attended.values.shape, dtype=torch.float32)
    want = attended._replace(queries=attended.queries.masked_fill(torch.arange(9)[:, None] == 4, 0)).left_out(probe)
    if hidden == -1e4:  # scores count beside it
        want = attended.left_out(probe)
    torch.testing.assert_close(attended.gradient(probe).double(), want, rtol=2e-3, atol=4e-3)


def test_what_keys_change_under_autocast_and_by_functional_gradients() -> None:
    rng = np.random.default_rng(12)
    attended = draw_attended(rng, "none", 1.0, 0.5, torch.float32)
    probe = normal(rng, *attended.values.shape, dtype=torch.float32)
    want = attended.left_out(probe).float()
    with torch.autocast("cpu", torch.bfloat16):  # attention is of halves then, and so is its gradient
        torch.testing.assert_close(attended.gradient(probe), want, rtol=2e-2, atol=2e-2)
    mixed = F.scaled_dot_product_attention(*attended[:3], attended.seen(attended.on))
    found = torch.func.grad(lambda scale: (with_key_effects(mixed, scale, *attended) * probe).sum())(torch.ones(3, 9))
    torch.testing.assert_close(found, want, rtol=1e-5, atol=2e-5)
