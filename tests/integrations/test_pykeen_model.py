"""PyKEEN's TransE on our kernels and tables in and out of PyKEEN's models, against PyKEEN itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("pykeen", reason="pykeen is not installed (tercet[pykeen])")

from pykeen.datasets import Nations
from pykeen.evaluation.evaluator import Evaluator
from pykeen.models import DistMult, TransE, model_resolver
from pykeen.nn.modules import TransEInteraction
from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop

from tercet.integrations.pykeen import (
    TercetRankBasedEvaluator,
    TercetTransE,
    TercetTransEInteraction,
    from_pykeen,
    to_pykeen,
)

# PyKEEN's loops ask for pinned memory, which machines without an accelerator do not have.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
SILENT = {"use_tqdm": False}


def twins(factory: Any, **options: Any) -> tuple[TransE, TercetTransE]:
    """PyKEEN's TransE and ours with the same weights."""
    options = {"embedding_dim": 8, "random_seed": 5} | options
    theirs, ours = TransE(triples_factory=factory, **options), TercetTransE(triples_factory=factory, **options)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name])
    return theirs, ours


KINDS = [(1, False), (1, True), (2, False), (2, True), (3, False)]


class TestModel:
    @pytest.mark.parametrize("method", ["score_hrt", "score_t", "score_h", "score_r", "score_t some", "score_h of each",
                                        "score_t sliced"])  # fmt: skip
    @pytest.mark.parametrize(("norm", "power_norm"), KINDS)
    def test_scores_and_gradients_equal_pykeens(self, norm, power_norm, method) -> None:
        factory = Nations().training
        name, _, how = method.partition(" ")
        columns = {"score_hrt": [0, 1, 2], "score_t": [0, 1], "score_h": [1, 2], "score_r": [0, 2]}[name]
        batch = factory.mapped_triples[:: factory.num_triples // 17][:, columns]
        options: dict[str, Any] = {
            "": {},
            "some": {"tails": torch.tensor([3, 1, 7])},
            "of each": {"heads": torch.arange(2 * len(batch)).reshape(len(batch), 2) % factory.num_entities},
            "sliced": {"slice_size": 4},
        }[how]
        found = []
        for model in twins(factory, scoring_fct_norm=norm, power_norm=power_norm):
            model = model.double()
            scores = getattr(model, name)(batch, **options)
            probe = torch.rand(scores.shape, dtype=scores.dtype, generator=torch.Generator().manual_seed(0))
            found.append([scores, *torch.autograd.grad((scores * probe).sum(), list(model.parameters()))])
        for want, got in zip(*found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("loop", [SLCWATrainingLoop, LCWATrainingLoop])
    @pytest.mark.parametrize("norm", [1, 2])
    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    def test_training_gives_the_same_weights(self, inverse, norm, loop) -> None:
        factory, weights = Nations(create_inverse_triples=inverse).training, []
        losses = []
        for model in twins(factory, scoring_fct_norm=norm):
            model = model.double()
            torch.manual_seed(0)  # both loops draw the same batches and negatives
            training = loop(model=model, triples_factory=factory, optimizer=torch.optim.SGD(model.parameters(), 0.5))
            losses.append(training.train(factory, num_epochs=2, batch_size=512, **SILENT))
            weights.append(model.state_dict())
        assert losses[1] == pytest.approx(losses[0], rel=1e-9)
        for name, want in weights[0].items():
            torch.testing.assert_close(weights[1][name], want, rtol=1e-7, atol=1e-7)

    def test_float16_is_pykeens(self) -> None:
        interactions = TransEInteraction(p=1), TercetTransEInteraction(p=1)
        h, r, t = (torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)).half() for seed in range(3))
        theirs, ours = (interaction(h, r, t) for interaction in interactions)
        assert torch.equal(theirs, ours)

    def test_it_is_a_pykeen_model_by_name(self) -> None:
        assert model_resolver.lookup("tercettranse") is TercetTransE
        assert issubclass(TercetTransE, TransE)
        assert issubclass(TercetRankBasedEvaluator, Evaluator)


class TestTables:
    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    @pytest.mark.parametrize("norm", [1, 2])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_out_and_in(self, dtype, norm, inverse) -> None:
        factory = Nations(create_inverse_triples=inverse).training
        model = TransE(triples_factory=factory, scoring_fct_norm=norm, random_seed=0).to(dtype)
        entities, relations, name = from_pykeen(model)
        for make in (lambda table: table, lambda table: table.numpy()):
            again = to_pykeen(make(entities), make(relations), norm=name, inverse_triples=inverse)
            triples = Nations().testing.mapped_triples
            for method in ("predict_hrt", "predict_t", "predict_h"):
                batch = {"predict_hrt": triples, "predict_t": triples[:, :2], "predict_h": triples[:, 1:]}[method]
                want, got = getattr(model, method)(batch), getattr(again, method)(batch)
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
            assert all(parameter.requires_grad and parameter.dtype == dtype for parameter in again.parameters())

    def test_they_are_copies(self) -> None:
        model = TransE(triples_factory=Nations().training, random_seed=0)
        before = from_pykeen(model)
        tables = from_pykeen(model)
        again = to_pykeen(*tables[:2], norm="l1")
        tables.entities.zero_()
        assert torch.equal(from_pykeen(model).entities, before.entities)
        assert torch.equal(from_pykeen(again).entities, before.entities)

    def test_what_is_no_transe_is_refused(self) -> None:
        factory = Nations().training
        for model, said in (
            (DistMult(triples_factory=factory, random_seed=0), "got DistMult"),
            (TransE(triples_factory=factory, scoring_fct_norm=3, random_seed=0), "got norm 3"),
            (TransE(triples_factory=factory, random_seed=0).half(), "got torch.float16"),
            (torch.nn.Linear(2, 2), "got Linear"),
        ):
            with pytest.raises(TypeError, match=rf"tercet\.from_pykeen: model must be a TransE .*{said}"):
                from_pykeen(model)

    def test_wrong_tables_are_refused(self) -> None:
        table = torch.zeros(4, 3)
        for arguments, options, error, said in (
            ((table, table), {"norm": "dot"}, ValueError, "norm must be one of l1, l2, got 'dot'"),
            (
                (table, table[:, :2]),
                {"norm": "l1"},
                ValueError,
                r"entities and relations must be .* got \[4, 3\] and \[4, 2\]",
            ),
            ((table, table[0]), {"norm": "l1"}, ValueError, r"entities and relations must be"),
            ((table.int(), table), {"norm": "l1"}, TypeError, "entities must be float32 or float64"),
            ((table, table.double()), {"norm": "l1"}, TypeError, "must have one dtype"),
            ((table, table[:3]), {"norm": "l1", "inverse_triples": True}, ValueError, "even number of rows, got 3"),
        ):
            with pytest.raises(error, match=rf"tercet\.to_pykeen: .*{said}|tercet\.to_pykeen: {said}"):
                to_pykeen(*arguments, **options)
