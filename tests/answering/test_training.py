"""Training learns, is reproducible, resumes bit for bit, and says what is wrong."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from films import Films
from tercet.answering import Answerer, Epoch, Question, Reporter, TrainingResult, train
from tercet.answering.run import TrainingSettings

FAST = {"dim": 32, "batch_size": 16, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def world() -> Films:
    return Films()


pytestmark = pytest.mark.usefixtures("one_thread")


def halves(questions: list[Question]) -> tuple[list[Question], list[Question]]:
    order = random.Random(0).sample(questions, len(questions))
    return order[len(order) // 4 :], order[: len(order) // 4]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "checkpoint.json"}


class Killed(Exception):
    """Stands for a kill."""


class KillAfter(Reporter):
    def __init__(self, step: int) -> None:
        self.left = step

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float, exclude_seed: bool) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def test_it_learns_one_hop_and_shuffled_answers_fall_to_chance(tmp_path: Path) -> None:
    # Large enough that a shuffled answer is reached by chance alike under every wording.
    world = Films(240)
    learnt, tested = halves(world.one_hop())
    result = train(world.graph, learnt, hops=1, out=tmp_path / "right", epochs=4, **FAST)
    right = Answerer.load(tmp_path / "right", world.graph).evaluate(tested)
    assert right.hits_at_1 > 0.95
    assert right.f1 > 0.9
    assert result.hits_at_1 > 0.95
    answers = random.Random(1).sample([q.answers for q in learnt], len(learnt))
    mixed = [replace(question, answers=other) for question, other in zip(learnt, answers, strict=True)]
    train(world.graph, mixed, hops=1, out=tmp_path / "mixed", epochs=4, **FAST)
    chance = Answerer.load(tmp_path / "mixed", world.graph).evaluate(tested)
    answerer = Answerer.load(tmp_path / "right", world.graph)
    with torch.no_grad():
        for parameter in (answerer.model.relation_logits.weight, answerer.model.relation_logits.bias):
            parameter.zero_()
    uniform = answerer.evaluate(tested)
    assert uniform.hits_at_1 < 0.5
    assert chance.hits_at_1 < uniform.hits_at_1 + 0.1


def test_exclusion_is_chosen_where_the_seed_is_never_an_answer(world: Films, tmp_path: Path) -> None:
    learnt, tested = halves(world.colleagues())
    result = train(world.graph, learnt, tested, hops=2, out=tmp_path / "m", epochs=25, **FAST)
    assert result.exclude_seed
    assert result.hits_at_1 > 0.9
    assert json.loads((tmp_path / "m" / "config.json").read_text())["exclude_seed"] is True
    assert Answerer.load(tmp_path / "m", world.graph).model.exclude_seed


def test_exclusion_is_left_where_the_seed_is_an_answer(world: Films, tmp_path: Path) -> None:
    learnt, tested = halves(world.castmates())
    result = train(world.graph, learnt, tested, hops=2, out=tmp_path / "m", epochs=40, patience=40, **FAST)
    assert not result.exclude_seed
    assert result.f1 > 0.9


def test_two_mentions_are_learnt(world: Films, tmp_path: Path) -> None:
    learnt, tested = halves(world.pairs())
    train(world.graph, learnt, tested, hops=1, out=tmp_path / "m", epochs=15, **FAST)
    answerer = Answerer.load(tmp_path / "m", world.graph)
    assert answerer.evaluate(tested).hits_at_1 > 0.95
    film = world.films[0]
    first, second = world.cast[film]
    reply = answerer.ask(f"which films star both [{first}] and [{second}]")
    assert film in [answer.name for answer in reply.answers if answer.accepted]
    assert [str(path) for path in next(a for a in reply.answers if a.name == film).paths] == [
        f"{person} ←starred— {film}" for person in (first, second)
    ]


def run(world: Films, out: Path, **options: object) -> TrainingResult:
    settings = {"hops": 2, "epochs": 5, "patience": 9, "seed": 3, **FAST, **options}
    return train(world.graph, world.colleagues(), out=out, **settings)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_model_and_global_random_state_is_left_alone(world: Films, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(world, tmp_path / "a", epochs=1)
    Answerer.load(tmp_path / "a", world.graph)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    run(world, tmp_path / "b", epochs=1)
    run(world, tmp_path / "c", epochs=1, seed=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["model.safetensors"] != contents(tmp_path / "c")["model.safetensors"]


@pytest.mark.parametrize("epochs_before", [0.5, 3.5, 4.5, 6.5])
def test_a_broken_run_resumes_bit_for_bit(
    world: Films, tmp_path: Path, epochs_before: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tercet.answering.run._TRIAL_STEPS", 14)  # two epochs of each choice, then three
    unbroken = run(world, tmp_path / "unbroken")
    steps = -(-unbroken.questions // FAST["batch_size"])
    assert steps == 7
    with pytest.raises(Killed):
        run(world, tmp_path / "broken", reporter=KillAfter(int(epochs_before * steps)))
    resumed = run(world, tmp_path / "broken", resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")
    timeless = [[replace(epoch, seconds=0.0) for epoch in result.epochs] for result in (resumed, unbroken)]
    assert timeless[0] == timeless[1]
    again = run(world, tmp_path / "broken", resume=True)
    assert again == resumed


def test_resume_refuses_another_run(world: Films, tmp_path: Path) -> None:
    run(world, tmp_path / "m", epochs=1)
    with pytest.raises(ValueError, match=r"m: its run has learning_rate = 0.01, so --resume cannot use 0.02"):
        run(world, tmp_path / "m", epochs=1, learning_rate=0.02, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has questions = "):
        train(world.graph, world.castmates(), hops=2, out=tmp_path / "m", epochs=1, seed=3, patience=9, resume=True,
              **FAST)  # fmt: skip
    with pytest.raises(ValueError, match=r"m: the model directory must be empty; to go on with its run, resume"):
        run(world, tmp_path / "m", epochs=1)


def test_resume_refuses_a_folder_that_is_no_run(world: Films, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be empty; it holds no checkpoint to resume"):
        run(world, tmp_path, epochs=1, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_early_stopping_counts_epochs_without_better_hits(world: Films, tmp_path: Path) -> None:
    result = train(world.graph, world.one_hop(), hops=1, out=tmp_path / "m", epochs=40, patience=2, **FAST)
    hits = [epoch.hits_at_1 for epoch in result.epochs]
    assert len(hits) < 40
    assert max(hits[-2:]) <= max(hits[:-2])
    assert result.epochs[result.best_epoch - 1].hits_at_1 == max(hits) == result.hits_at_1


def test_a_reporter_hears_every_step_and_epoch(world: Films, tmp_path: Path) -> None:
    heard: list[object] = []

    class Ears(Reporter):
        def on_start(self, questions: int, valid_questions: int) -> None:
            heard.append((questions, valid_questions))

        def on_step(self, epoch: int, step: int, num_steps: int, loss: float, exclude_seed: bool) -> None:
            heard.append((epoch, step, num_steps))

        def on_epoch(self, epoch: Epoch) -> None:
            heard.append(epoch.epoch)

    questions = world.one_hop()[:40]
    train(world.graph, questions, hops=1, out=tmp_path / "m", epochs=2, **FAST, reporter=Ears())
    assert heard == [(36, 4), (1, 1, 3), (1, 2, 3), (1, 3, 3), 1, (2, 1, 3), (2, 2, 3), (2, 3, 3), 2]


def test_absent_answers_are_counted_and_missed(world: Films, tmp_path: Path) -> None:
    questions = world.one_hop()
    lacking = [
        *questions,
        replace(questions[0], answers=("Nobody",)),
        replace(questions[1], answers=("No one", "Person 1")),
    ]
    result = train(world.graph, lacking, questions[:30], hops=1, out=tmp_path / "m", epochs=8, **FAST)
    assert (result.absent_answers, result.unanswerable) == (2, 1)
    answerer = Answerer.load(tmp_path / "m", world.graph)
    missed = answerer.evaluate([questions[0], replace(questions[0], answers=("Nobody",))])
    assert (missed.absent_answers, missed.unanswerable, missed.questions) == (1, 1, 2)
    assert missed.hits_at_1 == pytest.approx(0.5)
    assert missed.f1 == pytest.approx(0.5 * answerer.evaluate([questions[0]]).f1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hops": 0}, "hops must be a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs must be a positive integer, got 1.5"),
        ({"dim": 7}, "dim must be even, got 7"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"tercet.answering.train: {message}"):
        TrainingSettings(**{"hops": 1, **change})


def test_questions_that_cannot_be_learnt_from_are_refused(world: Films, tmp_path: Path) -> None:
    question = world.one_hop()[0]
    with pytest.raises(ValueError, match="questions must be at least 2 to hold out validation, got 1"):
        train(world.graph, [question], hops=1, out=tmp_path / "m")
    with pytest.raises(ValueError, match="questions and valid must not be empty"):
        train(world.graph, [question], [], hops=1, out=tmp_path / "m")
    with pytest.raises(ValueError, match="questions must have answers in the graph, got none"):
        train(world.graph, [replace(question, answers=("Nobody",))], [question], hops=1, out=tmp_path / "m")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file: the model directory must be a directory"):
        train(world.graph, [question, question], hops=1, out=tmp_path / "file")
    assert not (tmp_path / "m").exists()
