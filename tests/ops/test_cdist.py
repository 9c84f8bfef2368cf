"""cdist against torch.cdist: values, gradients, shapes, what goes to torch, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tercet
from strategies import dtypes, seeds
from tercet.ops import cdist as module

# What torch and the kernels may differ by, relative to the largest value: sums of up to 40 terms in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
# Leading dimensions of both sides, of every kind that the function tells apart.
LEADING = [((), ()), ((1,), ()), ((), (1, 1)), ((3,), ()), ((), (3,)), ((2, 1), (1,)), ((1, 1), (2,)), ((2,), (2,)),
           ((2, 1), (3,)), ((2, 3), (2, 3)), ((0,), ()), ((0,), (1,)), ((2, 0), (2, 1))]  # fmt: skip


def exact(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    """torch.cdist of differences: without the product that cancels where rows are close."""
    return torch.cdist(x1, x2, p, "donot_use_mm_for_euclid_dist")


def close(got: Tensor, want: Tensor) -> bool:
    scale = max(float(want.abs().max()) if want.numel() else 0.0, 1.0)
    return got.shape == want.shape and torch.allclose(got, want, rtol=0, atol=TOLERANCE[want.dtype] * scale)


@st.composite
def arguments(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows of every layout; some rows are zero, some stand on both sides."""
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    leading, dim = draw(st.sampled_from(LEADING)), draw(st.integers(0, 40))
    sizes = draw(st.integers(0, 20)), draw(st.integers(0, 40))
    tables = []
    for before, rows in zip(leading, sizes, strict=True):
        values = torch.from_numpy(rng.standard_normal((*before, dim, rows))).to(dtype)
        values[..., ::3] = 0
        tables.append(values.mT if draw(st.booleans()) else values.mT.contiguous())
    x1, x2 = tables
    if draw(st.booleans()) and x1.shape[-2] and x2.shape[-2] and not (leading[0] or leading[1]):
        x2 = torch.cat([x1[-1:], x2[1:]])
    return x1, x2


@pytest.fixture(params=[0, 1 << 17], ids=["kernels for every batch", "as released"])
def smallest(request, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SMALLEST_OF_BATCH", request.param)


@pytest.mark.usefixtures("smallest")
class TestAgainstTorch:
    @given(arguments(), st.sampled_from([1, 1.0, 2.0]))
    def test_values(self, tables: tuple[Tensor, Tensor], p: float) -> None:
        got = tercet.cdist(*tables, p)
        assert got.dtype == tables[0].dtype
        assert close(got, exact(*tables, p))

    @given(arguments(), st.sampled_from([1.0, 2.0]))
    def test_gradients(self, tables: tuple[Tensor, Tensor], p: float) -> None:
        gradients = []
        for function in (tercet.cdist, exact):
            leaves = [table.detach().clone().requires_grad_() for table in tables]
            out = function(*leaves, p)
            probe = torch.rand(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)) - 0.5
            gradients.append(torch.autograd.grad((out * probe).sum(), leaves))
        for got, want in zip(*gradients, strict=True):
            assert close(got, want)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_zero_distances_have_zero_gradients(p: float) -> None:
    x1 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    x2 = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    distances = tercet.cdist(x1, x2, p)
    assert torch.equal(distances, torch.zeros(2, 4, dtype=torch.float64))
    assert not distances.signbit().any()
    for gradient in torch.autograd.grad(distances.sum(), [x1, x2]):
        assert not gradient.any()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_one_side_alone_may_want_a_gradient(p: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x1, x2 = (torch.randn(rows, 5, dtype=torch.float64, generator=rng) for rows in (4, 6))
    for leaf in (x1, x2):
        leaf.requires_grad_()
        got, want = (torch.autograd.grad(f(x1, x2, p).sum(), leaf)[0] for f in (tercet.cdist, exact))
        leaf.requires_grad_(False)
        assert close(got, want)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_gradcheck(p: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x1 = torch.randn(3, 4, dtype=torch.float64, generator=rng).requires_grad_()
    x2 = torch.randn(2, 5, 4, dtype=torch.float64, generator=rng).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: tercet.cdist(a, b, p), (x1, x2))


@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist",
                                  "donot_use_mm_for_euclid_dist"])  # fmt: skip
def test_every_mode_is_computed_from_differences(mode: str) -> None:
    x1 = torch.full((30, 4), 1000.0)
    x2 = x1 + 0.25
    assert torch.equal(tercet.cdist(x1, x2, 2.0, mode), torch.full((30, 30), 0.5))
    assert torch.equal(tercet.cdist(x1, x2, compute_mode=mode), torch.full((30, 30), 0.5))


@pytest.mark.parametrize("p", [0.0, 0.5, 3.0, float("inf")])
def test_other_norms_are_torch(p: float) -> None:
    x1, x2 = torch.rand(4, 3), torch.rand(5, 3)
    assert torch.equal(tercet.cdist(x1, x2, p), torch.cdist(x1, x2, p))


def test_nan_and_infinity_stay_in_their_rows() -> None:
    x1, x2 = torch.zeros(3, 4), torch.ones(2, 4)
    x1[0, 1], x1[1, 2] = torch.nan, torch.inf
    for p in (1.0, 2.0):
        torch.testing.assert_close(tercet.cdist(x1, x2, p), exact(x1, x2, p), equal_nan=True)


WRONG = {
    "one dimension": (torch.ones(3), torch.ones(2, 3), {}),
    "dimensions that differ": (torch.ones(2, 3), torch.ones(2, 4), {}),
    "dtypes that differ": (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64), {}),
    "integers": (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64), {}),
    "leading dimensions that do not broadcast": (torch.ones(2, 2, 3), torch.ones(3, 2, 3), {}),
    "a negative p": (torch.ones(2, 3), torch.ones(2, 3), {"p": -1.0}),
    "an unknown mode": (torch.ones(2, 3), torch.ones(2, 3), {"compute_mode": "fast"}),
    "no tensor": ([1.0], torch.ones(2, 3), {}),
    "no number as p": (torch.ones(2, 3), torch.ones(2, 3), {"p": "1"}),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_arguments_raise_what_torch_raises(case: str) -> None:
    x1, x2, options = WRONG[case]

    def outcome(function) -> object:
        try:
            return function(x1, x2, **options).tolist()
        except Exception as error:
            return type(error), str(error)

    assert outcome(tercet.cdist) == outcome(torch.cdist)
