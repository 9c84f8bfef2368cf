"""TransE: scores, ranks and predictions against the definition; tables and files in and out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tercet.embedding import TransE, evaluate
from tercet.evaluation import link_prediction_metrics
from tercet.graph.vocabulary import Vocabulary
from tercet.ops.filter_index import FilterIndex

NAMES = Vocabulary.from_strings([f"e{i}" for i in range(12)], ["p", "q", "r"])


def made(norm: str, *, inverses: bool = False, vocabulary: Vocabulary | None = None) -> TransE:
    return TransE(12, 3, 5, norm=norm, inverses=inverses, dtype=torch.float64, seed=1, vocabulary=vocabulary)


def score(model: TransE, head: Tensor, step: Tensor, tail: Tensor) -> Tensor:
    if model.norm == "dot":
        return ((head + step) * tail).sum()
    return -torch.linalg.vector_norm(head + step - tail, ord=1 if model.norm == "l1" else 2)


def head_scores(model: TransE, relation: int, tail: int) -> Tensor:
    """Of every head, one at a time."""
    entities, relations = model.entities.detach(), model.relations.detach()
    if model.inverses:
        return torch.stack([score(model, entities[tail], relations[relation + 3], head) for head in entities])
    return torch.stack([score(model, head, relations[relation], entities[tail]) for head in entities])


def tail_scores(model: TransE, head: int, relation: int) -> Tensor:
    entities = model.entities.detach()
    return torch.stack([score(model, entities[head], model.relations.detach()[relation], tail) for tail in entities])


def some_triples(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in (12, 3, 12)], dim=1)


@pytest.mark.parametrize("inverses", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2", "dot"])
def test_scores_are_those_of_the_definition(norm: str, inverses: bool) -> None:
    model, triples = made(norm, inverses=inverses), some_triples(7, 0)
    heads, relations, tails = triples.unbind(1)
    wanted = [tail_scores(model, h, r)[t] for h, r, t in triples.tolist()]
    torch.testing.assert_close(model.score_triples(triples).detach(), torch.stack(wanted))
    torch.testing.assert_close(model(triples).detach(), torch.stack(wanted))
    for got, rows in (
        (model.score_tails(heads, relations), [tail_scores(model, h, r) for h, r, _ in triples.tolist()]),
        (model.score_heads(relations, tails), [head_scores(model, r, t) for _, r, t in triples.tolist()]),
    ):
        torch.testing.assert_close(got.detach(), torch.stack(rows))


@given(st.sampled_from(["l1", "l2", "dot"]), st.booleans(), st.integers(1, 9), st.integers(0, 2**32))
def test_ranks_are_those_of_the_scores(norm: str, inverses: bool, count: int, seed: int) -> None:
    model, triples = made(norm, inverses=inverses), some_triples(count, seed)
    known = torch.cat([triples, some_triples(20, seed + 1)])
    listed = set(map(tuple, known.tolist()))
    ranks = model.rank(triples, known=known)
    for row, (h, r, t) in enumerate(triples.tolist()):
        sides = (
            (head_scores(model, r, t), h, [(e, r, t) in listed for e in range(12)]),
            (tail_scores(model, h, r), t, [(h, r, e) in listed for e in range(12)]),
        )
        for side, (scores, true, hidden) in enumerate(sides):
            rivals = [e for e in range(12) if e != true and not hidden[e]]
            better = sum(bool(scores[e] > scores[true] + 1e-9) for e in rivals)
            equal = sum(bool((scores[e] - scores[true]).abs() <= 1e-9) for e in rivals)
            assert int(ranks.optimistic[row, side]) == 1 + better
            assert int(ranks.pessimistic[row, side]) == 1 + better + equal
            assert int(ranks.num_candidates[row, side]) == 1 + len(rivals)


def test_gradients_reach_both_tables() -> None:
    model = made("l1")
    (
        model.score_triples(some_triples(4, 0)).sum() + model.score_heads(*some_triples(4, 1).unbind(1)[1:]).sum()
    ).backward()
    assert model.entities.grad is not None
    assert bool(model.entities.grad.abs().sum() > 0)
    assert bool(model.relations.grad.abs().sum() > 0)


def test_first_values_are_uniform_and_drawn_by_the_seed() -> None:
    before = torch.get_rng_state()
    model = TransE(400, 5, 36, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    values = model.entities.detach()
    assert float(values.abs().max()) <= 1
    assert float(values.std()) == pytest.approx(1 / 3**0.5, rel=0.02)
    assert torch.equal(TransE(400, 5, 36, seed=3).entities, model.entities)
    assert not torch.equal(TransE(400, 5, 36, seed=4).entities, model.entities)


@pytest.mark.parametrize("inverses", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2", "dot"])
def test_predictions_are_the_best_unknown_entities(norm: str, inverses: bool) -> None:
    model = made(norm, inverses=inverses, vocabulary=NAMES)
    known = model.filter_index(torch.tensor([[2, 1, 4], [2, 1, 7], [5, 1, 2], [8, 0, 2]]))
    for asked, scores, hidden in (
        ({"head": 2}, tail_scores(model, 2, 1), {4, 7}),
        ({"tail": 2}, head_scores(model, 1, 2), {5}),
    ):
        order = scores.argsort(descending=True).tolist()
        new = model.predict(relation=1, k=4, known=known, **asked)
        assert [p.entity for p in new] == [e for e in order if e not in hidden][:4]
        assert [p.score for p in new] == pytest.approx([float(scores[p.entity]) for p in new])
        assert {p.known for p in new} == {False}
        assert [p.name for p in new] == [f"e{p.entity}" for p in new]
        every = model.predict(relation=1, k=99, known=known, include_known=True, **asked)
        assert [p.entity for p in every] == order
        assert {p.entity for p in every if p.known} == hidden
        assert len(model.predict(relation=1, k=12, known=known, **asked)) == 12 - len(hidden)
        by_name = {side: f"e{value}" for side, value in asked.items()}
        unaware = model.predict(relation="q", k=12, **by_name)
        assert [p.entity for p in unaware] == order
        assert {p.known for p in unaware} == {None}


def test_tables_go_in_and_out_as_numpy_and_torch() -> None:
    entities, relations = np.arange(8.0).reshape(4, 2), np.ones((2, 2))
    model = TransE.from_tables(entities, relations, norm="l2")
    out = model.to_numpy()
    assert np.array_equal(out[0], entities)
    assert np.array_equal(out[1], relations)
    entities[0] = 9
    out[0][1] = 9
    assert model.entities[:2].tolist() == [[0, 1], [2, 3]]
    assert (model.num_entities, model.num_relations, model.dim, model.entities.dtype) == (4, 2, 2, torch.float64)
    twice = TransE.from_tables(torch.zeros(4, 2), torch.zeros(6, 2), norm="dot", inverses=True)
    assert twice.num_relations == 3
    assert TransE.from_tables(twice.entities, twice.relations, norm="dot").num_relations == 6


@pytest.mark.parametrize("vocabulary", [None, NAMES])
@pytest.mark.parametrize("inverses", [False, True])
def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path, inverses: bool, vocabulary: Vocabulary | None) -> None:
    model = made("l2", inverses=inverses, vocabulary=vocabulary)
    model.save(tmp_path / "m")
    loaded = TransE.load(tmp_path / "m")
    assert torch.equal(loaded.entities, model.entities)
    assert torch.equal(loaded.relations, model.relations)
    assert (loaded.norm, loaded.inverses) == ("l2", inverses)
    names = None if loaded.vocabulary is None else list(loaded.vocabulary.entities)
    assert names == (None if vocabulary is None else [f"e{i}" for i in range(12)])


def broken(folder: Path, change: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    if change == "version":
        config["version"] = 2
    elif change == "format":
        config["format"] = "tercet.answering"
    elif change == "size":
        weights["entities"] = weights["entities"][1:].clone()
    elif change == "dim":
        weights["relations"] = weights["relations"][:, 1:].clone()
    elif change == "missing":
        del weights["relations"]
    elif change == "norm":
        del config["norm"]
    elif change == "names":
        TransE(12, 3, 5, vocabulary=Vocabulary.from_strings("abcdefghijkl", "pqr")).save(folder.parent / "other")
        (folder.parent / "other" / "vocabulary.safetensors").replace(folder / "vocabulary.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    if change == "cut":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif change == "config":
        (folder / "config.json").write_text("{")
    elif change == "vocabulary":
        (folder / "vocabulary.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("version", r"config\.json: expected version 1, got 2; update tercet"),
        ("format", r"config\.json: expected a tercet\.embedding\.TransE model, got format 'tercet\.answering'"),
        ("size", r"files do not belong together: tables must be \(\[12, 5\], \[3, 5\]\), got \[11, 5\] and \[3, 5\]"),
        ("dim", r"files do not belong together: tables must be \(\[12, 5\], \[3, 5\]\), got \[12, 5\] and \[3, 4\]"),
        ("missing", "files do not belong together: 'relations'"),
        ("norm", "files do not belong together: 'norm and inverses'"),
        ("names", r"the names of vocabulary\.safetensors are of another model"),
        ("cut", r"model\.safetensors: expected a safetensors file"),
        ("config", r"config\.json: expected JSON"),
        ("vocabulary", r"vocabulary\.safetensors: expected a safetensors file"),
    ],
)
def test_a_broken_directory_is_refused(tmp_path: Path, change: str, message: str) -> None:
    made("l1", vocabulary=NAMES).save(tmp_path / "m")
    broken(tmp_path / "m", change)
    with pytest.raises(ValueError, match=message):
        TransE.load(tmp_path / "m")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"m: no model here \(there is no config\.json\)"):
        TransE.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransE(0, 1, 2), "must be positive, got 0, 1 and 2"),
        (lambda: TransE(2, 1, 2, norm="l3"), "norm must be one of l1, l2, dot, got 'l3'"),
        (lambda: TransE(12, 4, 2, vocabulary=NAMES), "vocabulary must name 12 entities and 4 relations, got 12 and 3"),
        (lambda: TransE.from_tables(np.zeros((3, 2)), np.zeros((2, 4)), norm="l1"), "must have one dim, got 2 and 4"),
        (lambda: TransE.from_tables(np.zeros(3), np.zeros((2, 4)), norm="l1"), r"entities must be \[num_entities, dim\], got \[3\]"),
        (lambda: TransE.from_tables(np.zeros((3, 2)), np.zeros((3, 2)), norm="l1", inverses=True), "must be even in number with inverses, got 3"),
        (lambda: made("l1").predict(relation=0), "exactly one must be given"),
        (lambda: made("l1").predict(relation=0, head=1, tail=2), "exactly one must be given"),
        (lambda: made("l1").predict(relation=3, head=1), r"relation must be in 0\.\.2, got 3"),
        (lambda: made("l1").predict(relation=0, tail=12), r"entity must be in 0\.\.11, got 12"),
        (lambda: made("l1").predict(relation=0, tail="e1"), "entity must be an id, since the model has no names, got 'e1'"),
        (lambda: made("l1", vocabulary=NAMES).predict(relation=0, head="x1"), "no entity is named 'x1'"),
        (lambda: made("l1").predict(relation=0, head=1, k=0), "k must be a positive integer, got 0"),
        (lambda: made("l1", inverses=True).rank(torch.tensor([[0, 3, 1]]), known=None), r"triples\[:, 1\] must be in 0\.\.2, got 3"),
        (lambda: made("l1").rank(torch.tensor([[0, 1]]), known=None), r"triples must be \[num_triples, 3\], got \[1, 2\]"),
        (lambda: evaluate(made("l1"), torch.zeros(0, 3, dtype=torch.int64), known=None), "at least one triple, got none"),
    ],
)  # fmt: skip
def test_faulty_arguments_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="must have one dtype"):
        TransE.from_tables(torch.zeros(3, 2), torch.zeros(2, 2, dtype=torch.float64), norm="l1")
    with pytest.raises(TypeError, match="entities must be float32 or float64"):
        TransE.from_tables(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 2), norm="l1")


@pytest.mark.parametrize("inverses", [False, True])
def test_evaluation_does_not_depend_on_threads_or_on_what_is_evaluated_with(inverses: bool) -> None:
    model, triples = made("l2", inverses=inverses), some_triples(50, 0)
    known = model.filter_index(triples)
    assert isinstance(known, FilterIndex)
    whole = evaluate(model, triples, known=triples, num_threads=1)
    assert whole == evaluate(model, triples, known=known, num_threads=3)
    assert list(whole.by_relation) == sorted(set(triples[:, 1].tolist()))
    parts = [model.rank(part, known=known) for part in triples.split(7)]
    joined = [
        torch.cat([getattr(part, name) for part in parts]) for name in ("optimistic", "pessimistic", "num_candidates")
    ]
    assert link_prediction_metrics(type(parts[0])(*joined)) == whole.metrics
    for relation, metrics in whole.by_relation.items():
        alone = evaluate(model, triples[triples[:, 1] == relation], known=known)
        assert alone.metrics == metrics
        assert list(alone.by_relation) == [relation]


def test_a_relation_without_triples_is_ranked_like_any_other() -> None:
    model = TransE(12, 4, 5, dtype=torch.float64)
    triples = torch.tensor([[0, 3, 1]])
    result = evaluate(model, triples, known=some_triples(30, 0))
    assert list(result.by_relation) == [3]
    assert 1 <= result.metrics.both.mean_rank <= 12


def test_embeddings_that_are_not_finite_are_refused() -> None:
    model = made("l1")
    with torch.no_grad():
        model.entities[7, 2] = float("nan")
    with pytest.raises(ValueError, match="entities must be finite, got nan in row 7"):
        evaluate(model, some_triples(3, 0), known=None)
