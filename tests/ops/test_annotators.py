"""Dawid-Skene against the textbook's expectation-maximisation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tercet
from tercet.ops.reference import annotators as reference

Case = tuple[Tensor, Tensor, Tensor, int, int, int]


@st.composite
def labelled(draw: st.DrawFn) -> Case:
    """Labels of annotators who are right more often than not; items without labels, and annotators without, too."""
    num_items, num_annotators = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    num_classes, num_labels = draw(st.integers(1, 5)), draw(st.integers(0, 150))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    items = torch.randint(num_items, (num_labels,), generator=rng)
    annotators = torch.randint(num_annotators, (num_labels,), generator=rng)
    truth = torch.randint(num_classes, (num_items,), generator=rng)
    right = torch.rand(num_labels, generator=rng) < 0.7
    labels = torch.where(right, truth[items], torch.randint(num_classes, (num_labels,), generator=rng))
    return items, annotators, labels, num_items, num_annotators, num_classes


def sizes_of(case: Case) -> dict[str, int]:
    return dict(zip(("num_items", "num_annotators", "num_classes"), case[3:], strict=True))


@given(labelled(), st.integers(1, 12), st.sampled_from([0.0, 0.01, 1.0]))
def test_equals_the_textbook(case: Case, iterations: int, smoothing: float) -> None:
    got = tercet.dawid_skene(*case[:3], **sizes_of(case), iterations=iterations, smoothing=smoothing)
    posteriors, confusions, prior, likelihoods = reference.dawid_skene(*case, iterations, smoothing)
    for value, wanted in ((got.posteriors, posteriors), (got.confusions, confusions), (got.prior, prior)):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-9)
    assert got.log_likelihood == pytest.approx(likelihoods[-1], abs=1e-9 * max(1, len(case[0])))
    assert got.iterations == iterations


@given(labelled(), st.integers(0, 2**31))
def test_neither_threads_nor_the_order_of_labels_matter(case: Case, seed: int) -> None:
    once = tercet.dawid_skene(*case[:3], **sizes_of(case), iterations=5, num_threads=1)
    for threads in (2, 5):
        again = tercet.dawid_skene(*case[:3], **sizes_of(case), iterations=5, num_threads=threads)
        assert torch.equal(again.posteriors, once.posteriors)
        assert torch.equal(again.confusions, once.confusions)
    order = torch.randperm(len(case[0]), generator=torch.Generator().manual_seed(seed))
    shuffled = tercet.dawid_skene(*(value[order] for value in case[:3]), **sizes_of(case), iterations=5)
    torch.testing.assert_close(shuffled.posteriors, once.posteriors, rtol=0, atol=1e-9)


@given(labelled())
def test_the_likelihood_never_falls(case: Case) -> None:
    before = -torch.inf
    for iterations in range(1, 8):
        found = tercet.dawid_skene(*case[:3], **sizes_of(case), iterations=iterations).log_likelihood
        assert found >= before - 1e-9 * max(1.0, abs(found))
        before = found
