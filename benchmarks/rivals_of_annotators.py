"""dawid_skene and the ways in which others run the same iterations, behind one signature; and its peak memory."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import tercet
from tercet.ops.reference import annotators as reference

ITERATIONS = 50


class Size(NamedTuple):
    """Of generated labels."""

    num_labels: int
    num_items: int
    num_annotators: int
    num_classes: int


def draw(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Items, annotators and labels, int64, of annotators who are right in 40 to 95 of 100 cases and else guess."""
    rng = torch.Generator().manual_seed(0)
    items = torch.randint(size.num_items, (size.num_labels,), generator=rng)
    annotators = torch.randint(size.num_annotators, (size.num_labels,), generator=rng)
    truth = torch.randint(size.num_classes, (size.num_items,), generator=rng)
    skill = 0.4 + 0.55 * torch.rand(size.num_annotators, generator=rng)
    labels = torch.randint(size.num_classes, (size.num_labels,), generator=rng)
    right = torch.rand(size.num_labels, generator=rng) < skill[annotators]
    return items, annotators, torch.where(right, truth[items], labels)


def with_tercet(items: Tensor, annotators: Tensor, labels: Tensor, size: Size) -> Tensor:
    """Posteriors [num_items, num_classes]."""
    sizes = {"num_items": size.num_items, "num_annotators": size.num_annotators, "num_classes": size.num_classes}
    model = tercet.dawid_skene(items, annotators, labels, **sizes, iterations=ITERATIONS)
    assert model.iterations == ITERATIONS
    return model.posteriors


def with_torch(items: Tensor, annotators: Tensor, labels: Tensor, size: Size) -> Tensor:
    """The reference: gathered rows, index_add."""
    return reference.dawid_skene(items, annotators, labels, *size[1:], ITERATIONS)[0]


def with_crowd_kit(items: Tensor, annotators: Tensor, labels: Tensor, size: Size) -> Tensor:
    """crowd-kit's DawidSkene, which clips probabilities at 1e-10; items without labels get 0."""
    pandas = pytest.importorskip("pandas", reason="crowd-kit is not installed")
    aggregation = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
    columns = {"task": items.numpy(), "worker": annotators.numpy(), "label": labels.numpy()}
    model = aggregation.DawidSkene(n_iter=ITERATIONS, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls pandas in ways that pandas 3 deprecates
        probabilities = model.fit_predict_proba(pandas.DataFrame(columns))
    every = probabilities.reindex(index=range(size.num_items), columns=range(size.num_classes), fill_value=0.0)
    return torch.from_numpy(every.to_numpy().copy())


ENGINES: dict[str, Callable[[Tensor, Tensor, Tensor, Size], Tensor]] = {
    "tercet": with_tercet,
    "plain torch": with_torch,
    "crowd-kit": with_crowd_kit,
}


def _peak_gb(size: Size) -> float:
    with_tercet(*draw(size), size)
    # Not getrusage: its peak is that of the parent where the parent's was larger.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def peak_gb(size: Size) -> float:
    """The largest resident memory of a fresh process that draws the labels and fits them."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_gb, (size,))
