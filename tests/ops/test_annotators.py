"""Dawid-Skene against the textbook's expectation-maximisation, and its extension by more labels."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import instruction_set, seeds
from tercet import DawidSkene
from tercet.ops import _native
from tercet.ops.reference import annotators as reference

RESULTS = ("posteriors", "prior", "confusions", "counts")


class Case(NamedTuple):
    """Labels and their sizes."""

    items: Tensor
    annotators: Tensor
    labels: Tensor
    num_items: int
    num_annotators: int
    num_classes: int

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.items, self.annotators, self.labels

    @property
    def sizes(self) -> dict[str, int]:
        return {"num_items": self.num_items, "num_annotators": self.num_annotators, "num_classes": self.num_classes}

    def part(self, chosen: Tensor) -> Case:
        """Some of the labels."""
        return Case(*(column[chosen] for column in self.columns), *self[3:])

    def fit(self, **options: Any) -> DawidSkene:
        return tercet.dawid_skene(*self.columns, **self.sizes, **options)


def generated(
    seed: int, num_items: int, num_annotators: int, num_classes: int, num_labels: int
) -> tuple[Case, Tensor, Tensor]:
    """Labels at random, of annotators who are right in half the cases or more; the truth, and how often each is right."""
    rng = torch.Generator().manual_seed(seed)
    items = torch.randint(num_items, (num_labels,), generator=rng)
    annotators = torch.randint(num_annotators, (num_labels,), generator=rng)
    truth = torch.randint(num_classes, (num_items,), generator=rng)
    skill = 0.5 + torch.rand(num_annotators, generator=rng) / 2
    right = torch.rand(num_labels, generator=rng) < skill[annotators]
    labels = torch.where(right, truth[items], torch.randint(num_classes, (num_labels,), generator=rng))
    return Case(items, annotators, labels, num_items, num_annotators, num_classes), truth, skill


@st.composite
def labelled(draw: st.DrawFn) -> Case:
    """Small cases: items, annotators and classes without labels among them, and annotators who label an item again."""
    sizes = draw(st.integers(1, 40)), draw(st.integers(1, 8)), draw(st.integers(1, 5))
    case, _, _ = generated(draw(seeds), *sizes, draw(st.integers(0, 150)))
    unused = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 1))
    return Case(*case.columns, *(size + more for size, more in zip(sizes, unused, strict=True)))


def assert_equal(got: DawidSkene, want: tuple[Tensor, ...], tolerance: float = 1e-9) -> None:
    for name, value in zip(RESULTS, want, strict=True):
        torch.testing.assert_close(
            getattr(got, name), value, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def assert_same_bits(got: DawidSkene, want: DawidSkene) -> None:
    for name in (*RESULTS, "num_labels"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    assert got.iterations == want.iterations


def log_likelihood(model: DawidSkene, case: Case) -> float:
    """Of the labels, of which the items are independent."""
    logits = model.prior.log().repeat(case.num_items, 1)
    logits.index_add_(0, case.items, model.confusions.log()[case.annotators, :, case.labels])
    return float(logits.logsumexp(1).sum())


@given(labelled(), st.integers(1, 12), st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([1, 2, 7]))
def test_equals_the_textbook(case: Case, iterations: int, smoothing: float, threads: int) -> None:
    got = case.fit(iterations=iterations, smoothing=smoothing, num_threads=threads)
    assert_equal(got, reference.dawid_skene(*case, iterations, smoothing))
    assert got.num_labels.tolist() == case.items.bincount(minlength=case.num_items).tolist()
    assert got.smoothing == smoothing


@pytest.mark.parametrize("isa", _native.available_isas())
def test_equals_the_textbook_after_fifty_iterations(isa: str) -> None:
    case, _, _ = generated(3, 3000, 60, 5, 15_000)
    with instruction_set(isa):
        got = case.fit()
    assert got.iterations == 50
    assert_equal(got, reference.dawid_skene(*case, 50))


@given(
    labelled(), st.sampled_from([0.0, 0.5]), st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32]), seeds
)
def test_neither_threads_nor_types_nor_the_order_of_items_matter(
    case: Case, smoothing: float, dtype: torch.dtype, seed: int
) -> None:
    once = case.fit(iterations=6, smoothing=smoothing, num_threads=1)
    for threads in (2, 5):
        assert_same_bits(case.fit(iterations=6, smoothing=smoothing, num_threads=threads), once)
    order = torch.randperm(len(case.items), generator=torch.Generator().manual_seed(seed))
    by_item = order[case.items[order].argsort(stable=True)]
    strided = torch.stack(case.part(by_item).columns, 1).to(dtype).unbind(1)
    shuffled = torch.stack(case.part(order).columns).to(dtype).unbind(0)
    options: dict[str, Any] = {**case.sizes, "iterations": 6, "smoothing": smoothing}
    copies = [column.clone() for column in shuffled]
    assert_same_bits(tercet.dawid_skene(*strided, **options), tercet.dawid_skene(*shuffled, **options))
    assert all(torch.equal(column, copy) for column, copy in zip(shuffled, copies, strict=True))


def test_threads_share_large_cases() -> None:
    case, _, _ = generated(5, 20_000, 300, 3, 100_000)  # sixteen shares
    once = case.fit(iterations=5, num_threads=1)
    for threads in (2, 3, 16):
        assert_same_bits(case.fit(iterations=5, num_threads=threads), once)
    assert_equal(once, reference.dawid_skene(*case, 5))


@given(labelled())
def test_the_likelihood_never_falls(case: Case) -> None:
    found = [log_likelihood(case.fit(iterations=iterations), case) for iterations in range(1, 8)]
    for before, after in pairwise(found):
        assert after >= before - 1e-9 * max(1.0, abs(before))


@given(labelled(), st.sampled_from([1e-12, 1e-3, 0.1]))
def test_stops_when_no_posterior_changes_by_more(case: Case, tolerance: float) -> None:
    model = case.fit(iterations=30, smoothing=0.1, tolerance=tolerance)
    steps = [case.fit(iterations=n, smoothing=0.1).posteriors for n in range(1, model.iterations + 1)]
    labelled_items = model.num_labels > 0
    changes = [float((b - a)[labelled_items].abs().amax()) if labelled_items.any() else 0.0
               for a, b in pairwise(steps)]  # fmt: skip
    assert torch.equal(model.posteriors, steps[-1])
    assert all(change > tolerance for change in changes[:-1])
    if 1 < model.iterations < 30:
        assert changes[-1] <= tolerance


def test_finds_the_truth_and_the_annotators() -> None:
    case, truth, skill = generated(1, 5000, 50, 4, 25_000)
    model = case.fit(smoothing=0.1)
    votes = reference._votes(case.items, case.labels, 5000, 4)
    seen = votes.sum(1) > 0
    accuracy, of_votes = (
        float((found.argmax(1) == truth)[seen].double().mean()) for found in (model.posteriors, votes)
    )
    assert accuracy > of_votes + 0.01
    expected = skill + (1 - skill) / 4  # a guess may be right
    assert (model.confusions.diagonal(dim1=1, dim2=2).mean(1) - expected).abs().max() < 0.08
    assert model.confidence[seen].mean() == pytest.approx(accuracy, abs=0.03)


def test_an_item_with_thousands_of_labels_does_not_underflow() -> None:
    few, _, _ = generated(2, 30, 6, 3, 300)
    many, _, _ = generated(4, 3, 6, 3, 12_000)
    joined = Case(*map(torch.cat, zip(few.columns, many.columns, strict=True)), 30, 6, 3)  # type: ignore[arg-type]
    model = joined.fit(iterations=20)
    want = reference.dawid_skene(*joined, 20)
    assert_equal(model, want)
    assert (model.posteriors[:3].amax(1) == 1).all()
    assert model.posteriors.isfinite().all()


def test_labels_that_an_annotator_never_uses_exclude_nothing_they_should_not() -> None:
    # Annotator 0 says 0 of all, annotators 1 and 2 agree with each other: log 0 and 0 log 0 on every path.
    items = torch.arange(4).repeat(3)
    annotators = torch.arange(3).repeat_interleave(4)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1])
    model = tercet.dawid_skene(items, annotators, labels, num_classes=3)
    assert torch.equal(model.posteriors, torch.eye(3, dtype=torch.float64)[[0, 1, 0, 1]])
    assert model.prior.tolist() == [0.5, 0.5, 0]
    third = [1 / 3] * 3
    assert model.confusions.tolist() == [[[1, 0, 0], [1, 0, 0], third], *[[[1, 0, 0], [0, 1, 0], third]] * 2]


def test_without_labels_all_is_uniform() -> None:
    none = torch.empty(0, dtype=torch.int64)
    model = tercet.dawid_skene(none, none, none, num_items=2, num_annotators=1, num_classes=4)
    assert model.posteriors.tolist() == [[0.25] * 4] * 2
    assert model.confusions.tolist() == [[[0.25] * 4] * 4]
    assert model.confidence.tolist() == [0.25, 0.25]
    assert tercet.dawid_skene(none, none, none).posteriors.shape == (0, 1)


def test_items_without_labels_have_the_prior_and_no_part_in_it() -> None:
    case, _, _ = generated(6, 200, 5, 3, 1000)
    alone, among = case.fit(), Case(*case.columns, 2000, 5, 3).fit()
    assert torch.equal(among.prior, alone.prior)
    assert torch.equal(among.posteriors[:200], alone.posteriors)
    assert torch.equal(among.posteriors[200:], alone.prior.expand(1800, 3))


# The extension


def halves(case: Case, share: float) -> tuple[Case, Case]:
    """Earlier labels, with no more items and annotators than they name, and later ones."""
    cut = int(share * len(case.items))
    index = torch.arange(len(case.items))
    first, second = case.part(index < cut), case.part(index >= cut)
    sizes = (int(ids.max()) + 1 if len(ids) else 0 for ids in first.columns[:2])
    return Case(*first.columns, *sizes, case.num_classes), second


def extended(model: DawidSkene, more: Case, **options: Any) -> DawidSkene:
    return model.extend(*more.columns, num_items=more.num_items, num_annotators=more.num_annotators, **options)


@given(labelled(), st.floats(0, 1), st.integers(1, 10), st.sampled_from([0.0, 0.3]), st.sampled_from([1, 3]))
def test_extension_equals_its_formula(
    case: Case, share: float, iterations: int, smoothing: float, threads: int
) -> None:
    first, second = halves(case, share)
    model = first.fit(iterations=3, smoothing=smoothing)
    before = [getattr(model, name).clone() for name in RESULTS]
    got = extended(model, second, iterations=iterations, num_threads=threads)
    want = reference.extend(tuple(before), model.num_labels, *second.columns, case.num_items, case.num_annotators,
                            iterations, smoothing)  # fmt: skip
    assert_equal(got, want)
    assert got.num_labels.tolist() == case.items.bincount(minlength=case.num_items).tolist()
    assert_same_bits(got, extended(model, second, iterations=iterations, num_threads=5))
    assert all(torch.equal(getattr(model, name), value) for name, value in zip(RESULTS, before, strict=True))


@given(labelled(), st.integers(1, 8), st.sampled_from([0.0, 0.3]))
def test_a_model_without_labels_extended_is_dawid_skene(case: Case, iterations: int, smoothing: float) -> None:
    none = case.part(torch.zeros(0, dtype=torch.int64))
    for start in (none, Case(*none.columns, 0, 0, case.num_classes)):
        got = extended(start.fit(smoothing=smoothing), case, iterations=iterations)
        assert_same_bits(got, case.fit(iterations=iterations, smoothing=smoothing))


@given(labelled())
def test_no_more_labels_change_nothing(case: Case) -> None:
    model, none = case.fit(iterations=4), case.part(torch.zeros(0, dtype=torch.int64))
    same = extended(model, none)
    assert_equal(same, tuple(getattr(model, name) for name in RESULTS), 1e-15)


def test_extension_is_close_to_fitting_all_labels() -> None:
    case, truth, _ = generated(7, 4000, 40, 4, 24_000)
    case = case.part((case.items * 40 + case.annotators).argsort())  # later labels: later items
    late = (case.annotators >= 35) | (torch.arange(24_000) % 10 == 0)  # and the last annotators, and some of all
    first, second = case.part(~late), case.part(late)
    first = Case(*first.columns, 4000, 35, 4)
    full, got = case.fit(smoothing=0.1), extended(first.fit(smoothing=0.1), second)
    seen = full.num_labels > 0
    accuracies = [float((m.posteriors.argmax(1) == truth)[seen].double().mean()) for m in (full, got)]
    assert accuracies[1] > accuracies[0] - 0.005
    assert (full.posteriors - got.posteriors).abs().sum(1).mean() / 2 < 0.02  # total variation
    assert (full.confusions - got.confusions).abs().max() < 0.05
    assert (full.prior - got.prior).abs().max() < 0.01


def test_labels_bought_where_confidence_is_low_pay_more() -> None:
    case, truth, skill = generated(8, 3000, 30, 4, 12_000)
    model = case.fit(smoothing=0.1)
    rng = torch.Generator().manual_seed(0)
    gains = []
    for chosen in (model.confidence.argsort()[:600], torch.randperm(3000, generator=rng)[:600]):
        items, annotators = chosen.repeat(2), torch.randint(30, (1200,), generator=rng)
        right = torch.rand(1200, generator=rng) < skill[annotators]
        labels = torch.where(right, truth[items], torch.randint(4, (1200,), generator=rng))
        after = model.extend(items, annotators, labels)
        gains.append(
            float(
                ((after.posteriors.argmax(1) == truth).double() - (model.posteriors.argmax(1) == truth).double()).mean()
            )
        )
    assert gains[0] > 2 * gains[1] > 0


# The checks

IDS = torch.tensor([0, 1])
ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"items": [0, 1]}, TypeError, "items must be a torch.Tensor, got list"),
    ({"labels": torch.tensor([0.0, 1.0])}, TypeError, "labels must hold integers, got torch.float32"),
    ({"annotators": torch.tensor([0])}, ValueError, "annotators must be [num_labels] = [2], got [1]"),
    ({"items": torch.tensor([[0, 1]])}, ValueError, "items must be [num_labels] = [2], got [1, 2]"),
    ({"items": torch.tensor([-1, 1])}, ValueError, "items must be in 0..1, got -1"),
    ({"annotators": torch.tensor([0, 7]), "num_annotators": 3}, ValueError, "annotators must be in 0..2, got 7"),
    ({"num_items": 1}, ValueError, "items must be in 0..0, got 1"),
    ({"num_items": -1}, ValueError, "num_items must be an integer in 0..2147483647, got -1"),
    ({"num_annotators": 2**31}, ValueError, "num_annotators must be an integer in 0..2147483647, got 2147483648"),
    (
        {"num_annotators": 2**30},
        ValueError,
        "num_annotators x num_classes must be at most 2147483647, got 1073741824 x 2",
    ),
    ({"iterations": 0}, ValueError, "iterations must be an integer in 1..2147483647, got 0"),
    ({"iterations": 2.0}, ValueError, "iterations must be an integer in 1..2147483647, got 2.0"),
    ({"tolerance": -0.1}, ValueError, "tolerance must be a number in 0..1e+100, got -0.1"),
    ({"tolerance": float("nan")}, ValueError, "tolerance must be a number in 0..1e+100, got nan"),
    ({"num_threads": 0}, ValueError, "num_threads must be a positive integer, got 0"),
]
OWN_ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"labels": torch.tensor([0, 300]), "num_classes": 300}, ValueError, "labels must be in 0..299, got 300"),
    ({"num_classes": 0}, ValueError, "num_classes must be an integer in 1..2147483647, got 0"),
    ({"smoothing": float("inf")}, ValueError, "smoothing must be a number in 0..1e+100, got inf"),
    ({"smoothing": True}, ValueError, "smoothing must be a number in 0..1e+100, got True"),
]
EXTENSION_ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"labels": torch.tensor([0, 2])}, ValueError, "labels must be in 0..1, got 2"),
    ({"num_items": 1}, ValueError, "num_items must be an integer in 2..2147483647, got 1"),
    ({"num_annotators": 1}, ValueError, "num_annotators must be an integer in 2..2147483647, got 1"),
]


@pytest.mark.parametrize(("change", "kind", "message"), ERRORS + OWN_ERRORS)
def test_bad_input_is_named(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(f"tercet.dawid_skene: {message}") + "$"):
        tercet.dawid_skene(**{"items": IDS, "annotators": IDS, "labels": IDS, **change})


SHARED = [error for error in ERRORS if "num_items" not in error[0] and "num_annotators" not in error[0]]


@pytest.mark.parametrize(("change", "kind", "message"), SHARED + EXTENSION_ERRORS)
def test_bad_input_of_an_extension_is_named(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    model = tercet.dawid_skene(IDS, IDS, IDS)
    with pytest.raises(kind, match=re.escape(f"tercet.DawidSkene.extend: {message}") + "$"):
        model.extend(**{"items": IDS, "annotators": IDS, "labels": IDS, **change})
