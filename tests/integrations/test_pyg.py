"""The PyG integration against PyG itself: scores, loss, loader, tests; filtered ranks against transe_rank's."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed (tercet[pyg])")

from torch_geometric.nn import kge

import tercet
from tercet.integrations.pyg import TransE

SIZES = {"num_nodes": 40, "num_relations": 5, "hidden_channels": 8}


def triplets(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    heads, tails = (torch.randint(0, SIZES["num_nodes"], (count,), generator=rng) for _ in range(2))
    return heads, torch.randint(0, SIZES["num_relations"], (count,), generator=rng), tails


def twins(**options: Any) -> tuple[kge.TransE, TransE]:
    """PyG's model and ours with the same weights."""
    models = []
    for cls in (kge.TransE, TransE):
        torch.manual_seed(3)
        models.append(cls(**SIZES, **options))
    theirs, ours = models
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    return theirs, ours


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("p_norm", [1.0, 2.0, 1])
def test_scores_loss_and_gradients_equal_pygs(p_norm: float, sparse: bool) -> None:
    batch, found = triplets(60), []
    for model in twins(p_norm=p_norm, margin=0.7, sparse=sparse):
        torch.manual_seed(1)  # of the negatives
        loss = model.loss(*batch)
        loss.backward()
        gradients = (part.weight.grad for part in (model.node_emb, model.rel_emb))
        found.append([model(*batch), loss, *(g.to_dense() if sparse else g for g in gradients)])
    for want, got in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_the_loader_is_pygs() -> None:
    _, ours = twins()
    batch = triplets(50)
    loaded = list(ours.loader(*batch, batch_size=20))
    assert [len(part[0]) for part in loaded] == [20, 20, 10]
    for column, want in enumerate(batch):
        assert torch.equal(torch.cat([part[column] for part in loaded]), want)


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("p_norm", [1.0, 2.0])
def test_unfiltered_figures_equal_pygs(p_norm: float, k: int) -> None:
    theirs, ours = twins(p_norm=p_norm)
    batch = triplets(60)
    want = theirs.test(*batch, batch_size=16, k=k, log=False)
    assert ours.test(*batch, batch_size=16, k=k, log=False) == pytest.approx(want, rel=1e-6)


def test_filtered_ranks_are_those_of_the_scores() -> None:
    """Against the scores of the model itself, one triplet at a time."""
    _, model = twins()
    batch, train = triplets(30), triplets(400, seed=1)
    every = torch.cat([torch.stack(split, dim=1) for split in (batch, train)])
    index = model.filter_index(batch, train)
    ranks = model.ranks(*batch, known=index)
    nodes = torch.arange(SIZES["num_nodes"])
    true = {tuple(triple) for triple in every.tolist()}
    for place, (head, relation, tail) in enumerate(zip(*(part.tolist() for part in batch), strict=True)):
        same = torch.full_like(nodes, relation)
        for column, target in enumerate((head, tail)):
            ends = [torch.full_like(nodes, head), torch.full_like(nodes, tail)]
            ends[column] = nodes
            scores = model(ends[0], same, ends[1]).detach()
            triples = torch.stack([ends[0], same, ends[1]], dim=1).tolist()
            rival = torch.tensor([tuple(triple) not in true for triple in triples])
            assert ranks.optimistic[place, column] == 1 + (scores[rival] > scores[target]).sum()
            assert ranks.num_candidates[place, column] == 1 + rival.sum()
    assert torch.equal(model.ranks(*batch, known=every).optimistic, ranks.optimistic)


def test_figures_of_both_sides() -> None:
    _, model = twins()
    batch = triplets(50)
    index = model.filter_index(batch, triplets(300, seed=1))
    ranks = model.ranks(*batch, known=index).realistic
    mean_rank, mrr, hits = model.test(*batch, known=index, k=3, sides=("head", "tail"))
    assert mean_rank == pytest.approx(float(ranks.mean()) - 1)
    assert mrr == pytest.approx(float((1 / ranks).mean()))
    assert hits == pytest.approx(float((ranks <= 3).double().mean()))
    assert model.test(*batch, known=index)[0] == pytest.approx(float(ranks[:, 1].mean()) - 1)
    assert model.test(*batch, known=index)[1] > model.test(*batch)[1]


def test_equal_scores_count_with_their_mean_rank() -> None:
    _, model = twins()
    with torch.no_grad():
        model.node_emb.weight.fill_(1.0)
    mean_rank, _, hits = model.test(*triplets(20), k=20)
    assert mean_rank == (SIZES["num_nodes"] - 1) / 2
    assert hits == 0.0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"tercet\.TransE: p_norm must be 1 or 2, got 3"):
        TransE(**SIZES, p_norm=3)
    _, model = twins()
    with pytest.raises(ValueError, match=r"sides must be of 'head' and 'tail', got \('relation',\)"):
        model.test(*triplets(3), sides=("relation",))
    with pytest.raises(ValueError, match=r"head_index must hold triplets, got none"):
        model.test(*triplets(0))
    with pytest.raises(ValueError, match=r"tercet\.transe_rank: known must be of 40 entities and 5 relations"):
        model.test(*triplets(3), known=tercet.FilterIndex(torch.tensor([[0, 0, 1]]), num_entities=2, num_relations=1))


def test_without_pyg_the_message_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    monkeypatch.delitem(sys.modules, "tercet.integrations.pyg")
    with pytest.raises(ImportError, match=r"needs PyG: pip install 'tercet\[pyg\]'"):
        importlib.import_module("tercet.integrations.pyg")
