"""The PyKEEN integration against PyKEEN itself: ranks, metrics, training, tables, what it leaves to PyKEEN."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("pykeen", reason="pykeen is not installed (tercet[pykeen])")

from pykeen.datasets import UMLS, Nations
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import DistMult, ERModel, TransE
from pykeen.nn.modules import TransEInteraction
from pykeen.pipeline import pipeline
from pykeen.triples import CoreTriplesFactory

import tercet
from tercet.integrations.pykeen import (
    TercetRankBasedEvaluator,
    TercetTransE,
    from_pykeen,
    to_pykeen,
)

# What PyKEEN's loops say on machines without an accelerator, and of lists of entities.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
    pytest.mark.filterwarnings("ignore:Encountered type:UserWarning"),
]
DATASETS = {"Nations": Nations, "UMLS": UMLS}
SILENT = {"use_tqdm": False}


def by_both(model: Any, triples: Tensor, **options: Any) -> tuple[RankBasedEvaluator, RankBasedEvaluator]:
    """Evaluators of PyKEEN and ours that keep the ranks, and whose results are in `results`."""
    init = {name: options.pop(name) for name in ("metrics", "metrics_kwargs", "add_defaults") if name in options}
    both = (
        RankBasedEvaluator(clear_on_finalize=False, **init),
        TercetRankBasedEvaluator(clear_on_finalize=False, **init),
    )
    for evaluator in both:
        evaluator.results = evaluator.evaluate(model, triples, **{"batch_size": 64} | SILENT | options)
    return both


def ranks_of(evaluator: RankBasedEvaluator) -> dict[Any, np.ndarray]:
    """Ranks by side and type, numbers of candidates by side."""
    return {key: np.concatenate(parts) for key, parts in [*evaluator.ranks.items(), *evaluator.num_candidates.items()]}


def assert_equal(theirs: RankBasedEvaluator, ours: RankBasedEvaluator) -> None:
    """Ranks, numbers of candidates, and every metric (NaN where theirs is)."""
    want, got = ranks_of(theirs), ranks_of(ours)
    assert got.keys() == want.keys()
    for key in want:
        assert got[key].dtype == want[key].dtype
        assert np.array_equal(got[key], want[key]), key
    want, got = theirs.results.to_flat_dict(), ours.results.to_flat_dict()
    assert got.keys() == want.keys()
    assert [key for key in want if not np.array_equal(got[key], want[key], equal_nan=True)] == []
    assert ours.num_entities == theirs.num_entities


def filters(dataset: Any) -> dict[str, Any]:
    return {"additional_filter_triples": [dataset.training.mapped_triples, dataset.validation.mapped_triples]}


class TestEvaluator:
    @pytest.mark.parametrize("model_class", [TransE, TercetTransE])
    @pytest.mark.parametrize(("norm", "power_norm"), [(1, False), (2, False), (2, True)])
    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    @pytest.mark.parametrize("name", sorted(DATASETS))
    def test_ranks_and_metrics_equal_pykeen(self, name, inverse, norm, power_norm, model_class) -> None:
        dataset = DATASETS[name](create_inverse_triples=inverse)
        model = model_class(triples_factory=dataset.training, embedding_dim=16, scoring_fct_norm=norm,
                            power_norm=power_norm, random_seed=1)  # fmt: skip
        assert_equal(*by_both(model, dataset.testing.mapped_triples, **filters(dataset)))

    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    def test_whole_numbers_tie_as_in_pykeen(self, inverse) -> None:
        dataset = Nations(create_inverse_triples=inverse)
        rng = torch.Generator().manual_seed(0)
        sizes = dataset.num_entities, dataset.training.num_relations
        entities, relations = (torch.randint(-2, 3, (size, 3), generator=rng).float() for size in sizes)
        model = to_pykeen(entities, relations, norm="l1", inverse_triples=inverse)
        theirs, ours = by_both(model, dataset.testing.mapped_triples, **filters(dataset))
        assert_equal(theirs, ours)
        ranks = ranks_of(ours)
        assert (ranks["tail", "optimistic"] < ranks["tail", "pessimistic"]).any()

    @pytest.mark.parametrize("targets", [("head",), ("tail",), ("tail", "head")])
    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    def test_targets(self, inverse, targets) -> None:
        dataset = Nations(create_inverse_triples=inverse)
        model = TransE(triples_factory=dataset.training, random_seed=0)
        assert_equal(*by_both(model, dataset.testing.mapped_triples, targets=targets, **filters(dataset)))

    @pytest.mark.parametrize("additional", ["none", "a tensor", "a list", "an empty list"])
    def test_filter_triples(self, additional, caplog) -> None:
        dataset = Nations()
        train = dataset.training.mapped_triples
        given = {"none": None, "a tensor": train, "a list": [train], "an empty list": []}[additional]
        model = TransE(triples_factory=dataset.training, random_seed=0)
        assert_equal(*by_both(model, dataset.testing.mapped_triples, additional_filter_triples=given))
        assert caplog.text.count("no `additional_filter_triples`") == (2 if given is None else 0)

    @pytest.mark.parametrize("inverse", [False, True], ids=["", "inverse triples"])
    @pytest.mark.parametrize("pre_filtered", [False, True])
    def test_restrictions(self, pre_filtered, inverse) -> None:
        dataset = UMLS(create_inverse_triples=inverse)
        entities, relations = list(range(5, 90)), [*range(20), 30]
        triples = dataset.testing.mapped_triples
        if pre_filtered:
            inside = torch.isin(triples[:, ::2], torch.tensor(entities)).all(1)
            triples = triples[inside & torch.isin(triples[:, 1], torch.tensor(relations))]
        model = TransE(triples_factory=dataset.training, random_seed=0)
        theirs, ours = by_both(model, triples, restrict_entities_to=entities, restrict_relations_to=relations,
                               pre_filtered_triples=pre_filtered, **filters(dataset))  # fmt: skip
        assert_equal(theirs, ours)
        assert 0 < len(ranks_of(ours)["head"]) < len(dataset.testing.mapped_triples)

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")  # targets outside get the rank 0 from PyKEEN
    def test_unfit_restrictions_raise_what_pykeen_raises(self) -> None:
        dataset = Nations()
        model = TransE(triples_factory=dataset.training, random_seed=0)
        evaluator = TercetRankBasedEvaluator()
        with pytest.raises(ValueError, match="not contained in restrict_entities_to"):
            evaluator.evaluate(model, dataset.testing.mapped_triples, restrict_entities_to=[0, 1])
        with pytest.raises(ValueError, match="not contained in restrict_relations_to"):
            evaluator.evaluate(model, dataset.testing.mapped_triples, restrict_relations_to=[0])
        with pytest.raises(NotImplementedError):
            evaluator.evaluate(model, dataset.testing.mapped_triples, targets=("relation",))
        options = {"restrict_entities_to": [0, 1, 2], "do_time_consuming_checks": False} | filters(dataset)
        assert_equal(*by_both(model, dataset.testing.mapped_triples, **options))

    def test_metrics_are_pykeens(self) -> None:
        dataset = Nations()
        model = TransE(triples_factory=dataset.training, random_seed=0)
        options = {"metrics": ["hits_at_k", "mrr"], "metrics_kwargs": [{"k": 7}, None], "add_defaults": False}
        theirs, ours = by_both(model, dataset.testing.mapped_triples, **options, **filters(dataset))
        assert_equal(theirs, ours)
        assert {key.metric for key in ours.results.data} == {"hits_at_7", "inverse_harmonic_mean_rank"}

    def test_raw_ranks(self) -> None:
        """PyKEEN's own evaluator raises here."""
        dataset = Nations()
        model = TransE(triples_factory=dataset.training, random_seed=0)
        evaluator = TercetRankBasedEvaluator(filtered=False, clear_on_finalize=False)
        evaluator.evaluate(model, dataset.testing.mapped_triples)
        want = tercet.transe_rank(*from_pykeen(model)[:2], dataset.testing.mapped_triples, known=None)
        ranks = ranks_of(evaluator)
        for column, side in enumerate(("head", "tail")):
            assert ranks[side, "optimistic"].tolist() == want.optimistic[:, column].tolist()
            assert ranks[side].tolist() == [dataset.num_entities] * len(want.optimistic)

    def test_normalized_and_regularized_representations(self) -> None:
        """Scores come from what the representations give, not from their weights; dropout is off."""
        dataset = Nations()
        representation = {"shape": 12, "normalizer": "normalize", "normalizer_kwargs": {"dim": -1}, "dropout": 0.5,
                          "regularizer": "lp"}  # fmt: skip
        model = ERModel(triples_factory=dataset.training, interaction=TransEInteraction, interaction_kwargs={"p": 2},
                        entity_representations_kwargs=representation, relation_representations_kwargs={"shape": 12},
                        random_seed=0).train()  # fmt: skip
        assert_equal(*by_both(model, dataset.testing.mapped_triples, **filters(dataset)))
        assert torch.allclose(from_pykeen(model).entities.norm(dim=1), torch.ones(dataset.num_entities))

    def test_double(self) -> None:
        dataset = Nations()
        model = TransE(triples_factory=dataset.training, random_seed=0).double()
        assert_equal(*by_both(model, dataset.testing.mapped_triples, **filters(dataset)))

    def test_the_index_is_kept_while_the_filter_triples_stay(self, monkeypatch) -> None:
        dataset, made = Nations(), []
        monkeypatch.setattr("tercet.integrations.pykeen.FilterIndex",
                            lambda *args, **options: made.append(1) or tercet.FilterIndex(*args, **options))  # fmt: skip
        model = TransE(triples_factory=dataset.training, random_seed=0)
        evaluator = TercetRankBasedEvaluator()
        train = dataset.training.mapped_triples.clone()

        def evaluate() -> float:
            results = evaluator.evaluate(model, dataset.testing.mapped_triples, additional_filter_triples=train)
            fresh = TercetRankBasedEvaluator().evaluate(
                model, dataset.testing.mapped_triples, additional_filter_triples=train
            )
            assert results.to_flat_dict() == pytest.approx(fresh.to_flat_dict(), nan_ok=True)
            made.pop()  # of the fresh one
            return results.get_metric("mean_rank")

        first = evaluate()
        assert evaluate() == first
        assert len(made) == 1
        train[:1500] = train[0]  # in place: the same tensor, other contents
        assert evaluate() > first
        assert len(made) == 2

    @pytest.mark.parametrize("make", [
        lambda factory: DistMult(triples_factory=factory, random_seed=0),
        lambda factory: TransE(triples_factory=factory, scoring_fct_norm=3, random_seed=0),
        lambda factory: ERModel(triples_factory=factory, interaction="transe", interaction_kwargs={"p": 1}, random_seed=0,
                                entity_representations_kwargs={"shape": 8, "normalizer": "normalize"},
                                relation_representations_kwargs={"shape": 8}),
        lambda factory: TransE(triples_factory=factory, predict_with_sigmoid=True, random_seed=0),
        lambda factory: type("Own", (TransE,), {"score_t": lambda self, *a, **k: 2 * TransE.score_t(self, *a, **k),
                                                "__doc__": TransE.__doc__})(triples_factory=factory, random_seed=0),
    ], ids=["DistMult", "norm 3", "normalized along dimension 1", "sigmoid", "its own score_t"])  # fmt: skip
    def test_other_models_are_evaluated_by_pykeen_which_is_said_once(self, make, caplog) -> None:
        dataset = Nations()
        theirs, ours = by_both(make(dataset.training), dataset.testing.mapped_triples, **filters(dataset))
        assert_equal(theirs, ours)
        ours.evaluate(make(dataset.training), dataset.testing.mapped_triples, **SILENT, **filters(dataset))
        assert caplog.text.count("PyKEEN evaluates") == 1

    def test_an_inductive_mode_is_pykeens(self) -> None:
        dataset = Nations()
        model = TransE(triples_factory=dataset.training, random_seed=0)
        with pytest.raises(ValueError, match="does not support inductive mode"):
            TercetRankBasedEvaluator(mode="testing").evaluate(model, dataset.testing.mapped_triples, batch_size=4)

    def test_tables_that_diverged_raise(self) -> None:
        dataset = Nations()
        tables = from_pykeen(TransE(triples_factory=dataset.training, random_seed=0))
        tables.entities[3, 1] = torch.nan
        with pytest.raises(ValueError, match=r"entities must be finite, got nan in row 3"):
            TercetRankBasedEvaluator().evaluate(to_pykeen(*tables[:2], norm="l1"), dataset.testing.mapped_triples)


class TestPipeline:
    @pytest.mark.parametrize("evaluator", [TercetRankBasedEvaluator, "tercetrankbased", "TercetRankBasedEvaluator"])
    def test_early_stopping_and_results_equal_pykeens(self, evaluator, tmp_path: Path) -> None:
        results = [
            pipeline(
                dataset=Nations(),
                model="transe",
                model_kwargs={"embedding_dim": 12},
                evaluator=chosen,
                evaluation_kwargs=SILENT,
                training_kwargs={"num_epochs": 8, "batch_size": 512} | SILENT,
                stopper="early",
                stopper_kwargs={"frequency": 2, "patience": 2, "best_model_path": tmp_path / f"{place}.pt"} | SILENT,
                random_seed=3,
            )
            for place, chosen in enumerate(("rankbased", evaluator))
        ]
        assert results[1].stopper.results == pytest.approx(results[0].stopper.results, rel=1e-12)
        assert len(results[1].stopper.results) > 1
        theirs, ours = (result.metric_results.to_flat_dict() for result in results)
        assert ours == pytest.approx(theirs, rel=1e-12, nan_ok=True)

    @pytest.mark.parametrize("model", [TercetTransE, "tercettranse"])
    def test_a_model_of_ours_learns_what_pykeens_does(self, model) -> None:
        results = [
            pipeline(dataset=Nations(), model=chosen, evaluator=TercetRankBasedEvaluator, random_seed=0,
                     training_kwargs={"num_epochs": 3, "batch_size": 512} | SILENT, evaluation_kwargs=SILENT)
            for chosen in ("transe", model)
        ]  # fmt: skip
        assert isinstance(results[1].model, TercetTransE)
        assert results[1].losses == pytest.approx(results[0].losses, rel=1e-4)
        theirs, ours = (result.metric_results.get_metric("mrr") for result in results)
        assert ours == pytest.approx(theirs, abs=0.01)


def read(folder: Path) -> tuple[dict[str, Tensor], int, int]:
    """Triples of each split, numbers of entities and relations."""
    ids: tuple[dict[str, int], dict[str, int]] = ({}, {})
    splits = {}
    for split in ("train", "valid", "test"):
        rows = [line.split("\t") for line in (folder / f"{split}.txt").read_text(encoding="utf-8").splitlines()]
        splits[split] = torch.tensor([[ids[place % 2].setdefault(name, len(ids[place % 2]))
                                       for place, name in enumerate(row)] for row in rows])  # fmt: skip
    return splits, len(ids[0]), len(ids[1])


@pytest.mark.slow
@pytest.mark.parametrize("norm", [1, 2])
def test_fb15k_237(data: Path, norm: int) -> None:
    """300 test triples: where ranks differ, the rivals between them score within 1e-4 of the target; metrics to 1e-4."""
    splits, num_entities, num_relations = read(data / "kge" / "FB15k-237")
    factory = CoreTriplesFactory.create(splits["train"], num_entities=num_entities, num_relations=num_relations)
    model = TransE(triples_factory=factory, embedding_dim=100, scoring_fct_norm=norm, random_seed=0)
    chosen = splits["test"][torch.randperm(len(splits["test"]), generator=torch.Generator().manual_seed(0))[:300]]
    theirs, ours = by_both(model, chosen, batch_size=32, additional_filter_triples=[splits["train"], splits["valid"]])
    want, got = ranks_of(theirs), ranks_of(ours)
    entities, relations = (table.double() for table in from_pykeen(model)[:2])
    for side, kind in itertools.product(("head", "tail"), ("optimistic", "pessimistic")):
        assert np.array_equal(got[side], want[side])
        differing = np.flatnonzero(got[side, kind] != want[side, kind])
        for place in differing:
            head, relation, tail = chosen[place].tolist()
            target = head if side == "head" else tail
            query = entities[tail] - relations[relation] if side == "head" else entities[head] + relations[relation]
            scores = -(query - entities).norm(p=norm, dim=1)
            near = int(((scores - scores[target]).abs() < 1e-4).sum()) - 1
            assert abs(got[side, kind][place] - want[side, kind][place]) <= near
    theirs_flat, ours_flat = theirs.results.to_flat_dict(), ours.results.to_flat_dict()
    assert ours_flat == pytest.approx(theirs_flat, rel=1e-4, abs=1e-4, nan_ok=True)


def test_without_pykeen_the_message_says_what_to_install(monkeypatch) -> None:
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "pykeen.evaluation", None)
    monkeypatch.delitem(sys.modules, "tercet.integrations.pykeen")
    with pytest.raises(ImportError, match=r"needs PyKEEN: pip install 'tercet\[pykeen\]'"):
        importlib.import_module("tercet.integrations.pykeen")
