"""The answer model: batches, intersection, exclusion, loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from films import Films
from tercet import EntitySets
from tercet.answering import AnswerModel, Question
from tercet.answering.data import Grounder
from tercet.answering.encoder import make_encoder
from tercet.answering.evaluating import evaluate_model
from tercet.answering.model import Plan, answer_loss, intersect_mentions, make_batch

weights = st.sampled_from([0.0, 0.125, 0.5, 1.0])
CPU = torch.device("cpu")


def model_for(questions: list[Question], hops: int, num_relations: int) -> AnswerModel:
    rows = [(question.text, mention) for question in questions for mention in range(len(question.mentions))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AnswerModel(make_encoder("gru", rows, 16), num_relations, hops, dim=16).eval()


@given(st.lists(st.lists(st.dictionaries(st.integers(0, 9), weights), min_size=1, max_size=3), min_size=1, max_size=6))
def test_mentions_are_intersected_by_the_minimum(questions: list[list[dict[int, float]]]) -> None:
    questions.sort(key=lambda rows: -len(rows))
    most = len(questions[0])
    counts = [sum(len(rows) > mention for rows in questions) for mention in range(most)]
    rows = [questions[index][mention] for mention in range(most) for index in range(counts[mention])]
    wanted = [
        {entity: min(row[entity] for row in asked) for entity in set.intersection(*(set(row) for row in asked))}
        for asked in questions
    ]
    assert intersect_mentions(EntitySets.from_lists(rows), counts).to_lists() == wanted


def test_a_batch_answers_as_its_questions_do_alone() -> None:
    world = Films()
    questions = [*world.one_hop()[:5], *world.pairs()[:5], *world.one_hop()[-3:]]
    graph = world.graph.with_inverses()
    grounder = Grounder(graph)
    grounded = [grounder.ground(question) for question in questions]
    model = model_for(questions, 2, graph.num_relations)
    batch = make_batch(model.encoder, grounded, graph.num_entities, CPU)
    assert [len(grounded[index].seeds) for index in batch.order] == [2] * 5 + [1] * 8
    together = model(graph, batch).to_lists()
    for place, index in enumerate(batch.order):
        alone = make_batch(model.encoder, [grounded[index]], graph.num_entities, CPU)
        (found,) = model(graph, alone).to_lists()
        assert found == pytest.approx(together[place], rel=1e-5)
        assert set(batch.answers.to_lists()[place]) == set(grounded[index].answers)


def test_figures_do_not_depend_on_the_order_of_ids() -> None:
    world, renamed = Films(), Films(order=7)
    assert world.graph.find_entity("Film 3") != renamed.graph.find_entity("Film 3")
    figures = []
    for films in (world, renamed):
        graph = films.graph.with_inverses()
        questions = [*films.one_hop(), *films.castmates(), *films.pairs()]
        model = model_for(questions, 2, graph.num_relations)
        grounder = Grounder(graph)
        figures.append(evaluate_model(model, graph, [grounder.ground(question) for question in questions]))
    assert figures[0].hits_at_1 == pytest.approx(figures[1].hits_at_1, abs=1e-12)
    assert 0 < figures[0].hits_at_1 < 1
    assert figures[0].f1 == pytest.approx(figures[1].f1, abs=1e-12)


def test_an_excluded_seed_is_in_no_frontier_after_the_first() -> None:
    world = Films()
    graph = world.graph.with_inverses()
    model = model_for(world.colleagues(), 2, graph.num_relations)
    plan = Plan([torch.ones(1, graph.num_relations)] * 2, torch.tensor([[0.5, 0.5]]))
    seeds = EntitySets.one_hot([0])
    assert 0 in model.frontiers(graph, seeds, plan)[1].to_lists()[0]
    model.exclude_seed = True
    assert 0 not in model.frontiers(graph, seeds, plan)[1].to_lists()[0]


@given(
    st.lists(st.tuples(st.dictionaries(st.integers(0, 5), weights), st.sets(st.integers(0, 5))), min_size=1, max_size=5)
)
def test_loss_matches_its_formula(questions: list[tuple[dict[int, float], set[int]]]) -> None:
    wanted = 0.0
    for scores, right in questions:
        reached = [scores[entity] for entity in right if entity in scores]
        for weight in reached:
            share = math.log(sum(scores.values()) + 1e-20) - 1.25 * math.log(weight + 1e-20)
            wanted += share / len(reached) / len(questions)
    y = EntitySets.from_lists([scores for scores, _ in questions], dtype=torch.float64)
    right = EntitySets.from_lists([right for _, right in questions])
    assert float(answer_loss(y, right, membership=0.25)) == pytest.approx(wanted, abs=1e-9)


def test_loss_ranks_by_shape_not_by_scale() -> None:
    y, right = EntitySets.from_lists([{1: 0.5, 2: 0.25}]), EntitySets.from_lists([{1}])
    assert float(answer_loss(y.scale(0.01), right, membership=0.0)) == pytest.approx(
        float(answer_loss(y, right, membership=0.0))
    )


def test_gradients_reach_encoder_and_decoder_through_both_mentions() -> None:
    world = Films()
    graph = world.graph.with_inverses()
    grounded = [Grounder(graph).ground(question) for question in world.pairs()[:4]]
    model = model_for(world.pairs(), 2, graph.num_relations)
    batch = make_batch(model.encoder, grounded, graph.num_entities, CPU)
    answer_loss(model(graph, batch), batch.answers).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []
