"""Saved models: loading, asking, explaining, and refusing what does not belong."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from films import RELATIONS, Films
from tercet import KnowledgeGraph
from tercet.answering import Answerer, evaluate, train
from tercet.answering.explain import best_paths


@pytest.fixture(scope="module")
def world() -> Films:
    return Films()


@pytest.fixture(scope="module")
def trained(world: Films, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answerer")
    world.graph.save(folder / "kb")
    train(
        world.graph, [*world.one_hop(), *world.colleagues()], hops=2, out=folder / "model", graph_path=folder / "kb",
        dim=32, batch_size=16, learning_rate=1e-2, epochs=8,
    )  # fmt: skip
    return folder


def test_a_loaded_model_answers_as_the_one_in_memory(world: Films, trained: Path) -> None:
    by_hint, given_graph = Answerer.load(trained / "model"), Answerer.load(trained / "model", world.graph)
    with_inverses = Answerer.load(str(trained / "model"), world.graph.with_inverses())
    question = f"who directed [{world.films[4]}]"
    assert by_hint.ask(question) == given_graph.ask(question) == with_inverses.ask(question)
    result = evaluate(trained / "model", world.one_hop(), graph=trained / "kb")
    assert result.hits_at_1 == evaluate(given_graph, world.one_hop(), batch_size=7).hits_at_1 > 0.95
    assert result.threshold == by_hint.threshold


def test_answers_come_with_probabilities_and_paths(world: Films, trained: Path) -> None:
    film = world.films[4]
    reply = Answerer.load(trained / "model").ask(f"who directed [{film}]", k=2)
    best = reply.answers[0]
    assert best.name == world.director[film]
    assert best.accepted
    assert 0.5 < best.probability <= 1
    assert str(best.paths[0]) == f"{film} —directed_by→ {world.director[film]}"
    (step,) = best.paths[0].steps
    assert (step.subject, step.relation, step.object, step.inverse) == (film, "directed_by", best.name, False)
    assert len(reply.answers) == 2
    assert reply.answers[1].probability < best.probability


def test_inverse_steps_read_against_the_arrow(world: Films, trained: Path) -> None:
    question = next(q for q in world.colleagues())
    film = question.mentions[0]
    reply = Answerer.load(trained / "model").ask(question.text, k=1)
    answer = reply.answers[0]
    assert answer.name in question.answers
    assert str(answer.paths[0]) == f"{film} —directed_by→ {world.director[film]} ←directed_by— {answer.name}"


@given(st.integers(0, 2**31), st.booleans(), st.integers(1, 3))
def test_best_paths_are_the_best_of_all_paths(seed: int, exclude: bool, hops: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    triples = torch.stack([torch.randint(high, (14,), generator=draw) for high in (6, 2, 6)])
    graph = KnowledgeGraph.from_triples(*triples, num_entities=6, num_relations=2).with_inverses()
    weights = [torch.rand(4, generator=draw, dtype=torch.float64) for _ in range(hops)]
    hop_weights = torch.rand(hops, generator=draw, dtype=torch.float64)
    seeds = [0, 3]
    found = best_paths(graph, seeds, weights, hop_weights, range(6), exclude_seed=exclude)
    ends = graph.row_offsets.tolist()
    edges = {
        s: [(int(graph.relations[e]), int(graph.objects[e])) for e in range(ends[s], ends[s + 1])] for s in range(6)
    }
    best = dict.fromkeys(range(6), 0.0)
    paths = [(seed, 1.0) for seed in seeds]
    for hop in range(hops):
        paths = [
            (target, weight * float(weights[hop][relation]))
            for entity, weight in paths
            for relation, target in edges[entity]
            if not (exclude and hop > 0 and target in seeds)
        ]
        for target, weight in paths:
            best[target] = max(best[target], weight * float(hop_weights[hop]))
    for target, path in enumerate(found):
        assert (path.weight if path else 0.0) == pytest.approx(best[target])
        if path is None:
            continue
        product = float(hop_weights[len(path.steps) - 1])
        for step in path.steps:
            product *= step.weight
        assert product == pytest.approx(path.weight)
        assert path.steps[-1].object == str(target)
        for before, after in itertools.pairwise(path.steps):
            assert before.object == after.subject
        for step in path.steps:
            subject, target_ = (step.object, step.subject) if step.inverse else (step.subject, step.object)
            assert (int(step.relation), int(target_)) in edges[int(subject)]


def test_another_graph_is_refused(trained: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model: the model was trained on another graph: its fingerprint is \w+, got a"
    ):
        Answerer.load(trained / "model", Films(seed=2).graph)


def test_a_question_without_a_known_entity_is_refused(trained: Path) -> None:
    answerer = Answerer.load(trained / "model")
    with pytest.raises(ValueError, match=r"question: .*'Film 999'.*near names.*Film 9"):
        answerer.ask("who directed [Film 999]")
    with pytest.raises(ValueError, match=r"a question must name an entity in brackets"):
        answerer.ask("who directed Film 9")
    with pytest.raises(ValueError, match=r"tercet.answering.ask: k must be a positive integer, got 0"):
        answerer.ask("who directed [Film 9]", k=0)
    with pytest.raises(ValueError, match=r"tercet.answering.evaluate: questions must not be empty"):
        answerer.evaluate([])


def test_a_model_without_its_graph_says_so(world: Films, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    for path, error, message in (
        (None, ValueError, r"m: the model was trained on a graph in memory; name its file"),
        (str(tmp_path / "gone"), FileNotFoundError, r"gone: the model's graph is not there; name its file"),
    ):
        config["graph"]["path"] = path
        (tmp_path / "m" / "config.json").write_text(json.dumps(config))
        with pytest.raises(error, match=message):
            Answerer.load(tmp_path / "m")
    assert Answerer.load(tmp_path / "m", world.graph)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda m: (m / "config.json").write_text("{"), ValueError, r"config.json: expected JSON"),
        (lambda m: (m / "config.json").write_text("[]"), ValueError, r"config.json: expected a JSON object, got list"),
        (
            lambda m: (m / "config.json").write_text("{}"),
            ValueError,
            r"expected a tercet.answering model, got format None",
        ),
        (lambda m: (m / "config.json").unlink(), FileNotFoundError, r"no model here"),
        (lambda m: _truncate(m / "model.safetensors"), ValueError, r"model.safetensors: expected a safetensors file"),
        (lambda m: (m / "model.safetensors").unlink(), ValueError, r"model.safetensors: expected a safetensors file"),
        (lambda m: (m / "vocabulary.json").write_text('["<pad>"]'), ValueError, r"do not belong together"),
    ],
)
def test_broken_models_are_refused(world: Films, trained: Path, tmp_path: Path, spoil, error, message: str) -> None:
    shutil.copytree(trained / "model", tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(error, match=message):
        Answerer.load(tmp_path / "m", world.graph)


def test_a_newer_version_is_refused(world: Films, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "version": 99}))
    with pytest.raises(ValueError, match=r"config.json: expected version 1, got 99; update tercet"):
        Answerer.load(tmp_path / "m", world.graph)


def test_relations_keep_their_names() -> None:
    assert Films().graph.with_inverses().relation_name(1) == RELATIONS[1]
