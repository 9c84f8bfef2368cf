"""Training learns, follows the gradients of its loss, is reproducible, and resumes bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from grids import grid
from tercet.embedding import Epoch, Reporter, TrainingResult, TrainingSettings, TransE, evaluate, preset, train
from tercet.graph.splits import Splits, read_splits
from tercet.graph.vocabulary import Vocabulary
from tercet.ops.translation_training import epoch_key, sample_batches

SMALL = TrainingSettings(
    norm="l2",
    dim=16,
    epochs=200,
    batch_size=32,
    num_negatives=16,
    optimizer="adam",
    learning_rate=0.03,
    valid_every=50,
    sampling="uniform",
    filter_negatives=False,
    loss="softmax",
    schedule="constant",
)
TINY = replace(
    SMALL, dim=8, epochs=6, batch_size=50, num_negatives=4, valid_every=2, optimizer="adagrad", learning_rate=0.3
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> Splits:
    return grid()


def mrr(model: TransE, splits: Splits) -> float:
    return evaluate(model, splits.test, known=splits.known).metrics.both.mrr


def untrained(splits: Splits) -> float:
    return mrr(TransE(splits.num_entities, splits.num_relations, 16, norm="l2"), splits)


def tails_shuffled(splits: Splits) -> Splits:
    """As many triples of every entity and relation, which no longer say what belongs together."""
    mixed = splits.train.clone()
    mixed[:, 2] = mixed[torch.randperm(len(mixed), generator=torch.Generator().manual_seed(5)), 2]
    return replace(splits, train=mixed)


def test_it_learns_a_translation_and_shuffled_tails_teach_nothing(world: Splits) -> None:
    right = mrr(train(world, SMALL).model, world)
    wrong = mrr(train(tails_shuffled(world), SMALL).model, world)
    assert untrained(world) < 0.15
    assert wrong < 0.15
    assert right > 0.7


def test_it_learns_umls(data: Path) -> None:
    splits = read_splits(data / "kge" / "UMLS")
    settings = replace(SMALL, dim=32, epochs=10, batch_size=256, num_negatives=32, valid_every=10)
    assert untrained(splits) < 0.1
    assert mrr(train(splits, settings).model, splits) > 0.6
    # How often each entity occurs, and beside which relation, is still told.
    assert mrr(train(tails_shuffled(splits), settings).model, splits) < 0.4


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "l1", "loss": "margin", "sampling": "bernoulli", "margin": 5.0},
        {"norm": "l1", "loss": "self_adversarial", "optimizer": "adam", "learning_rate": 0.05, "margin": 4.0},
        {"sampling": "shared", "chunk_size": 8, "filter_negatives": True},
        {"optimizer": "sgd", "learning_rate": 3.0, "schedule": "linear"},
        {"inverses": True},
        {"inverses": True, "sampling": "shared", "filter_negatives": True, "optimizer": "adam", "learning_rate": 0.05},
        {"dtype": "float64", "filter_negatives": True},
        {"norm": "dot", "dim": 32, "num_negatives": 64},
    ],
    ids=lambda change: " ".join(map(str, change.values())),
)
def test_every_way_to_train_learns(world: Splits, change: dict[str, object]) -> None:
    settings = replace(SMALL, **change)
    result = train(world, settings)
    assert result.epochs[-1].loss < 0.5 * result.epochs[0].loss
    assert mrr(result.model, world) > 4 * untrained(world)
    assert result.model.entities.dtype == getattr(torch, settings.dtype)


def margin_loss(model: TransE, batches: object, margin: float) -> Tensor:
    """The mean over positives and their negatives, in plain torch."""
    positives, negatives, num_tails = (batch[0].long() for batch in batches[:3])
    h, r, t = (part[:, None].expand_as(negatives) for part in positives.unbind(1))
    replaces_tail = torch.arange(negatives.shape[1]) < num_tails[:, None]
    corrupted = torch.stack([torch.where(replaces_tail, h, negatives), r, torch.where(replaces_tail, negatives, t)])
    scores = model.score_triples(corrupted.reshape(3, -1).T).view_as(negatives)
    return (margin - model.score_triples(positives)[:, None] + scores).clamp(min=0).mean(1)


@pytest.mark.parametrize("inverses", [False, True])
def test_steps_are_those_of_gradient_descent(world: Splits, inverses: bool) -> None:
    settings = replace(
        TINY, loss="margin", optimizer="sgd", schedule="linear", dtype="float64", epochs=2, inverses=inverses
    )
    result = train(world, settings)
    model = TransE(
        world.num_entities, world.num_relations, settings.dim, norm="l2", inverses=inverses, dtype=torch.float64
    )
    triples = model.with_inverses(world.train) if inverses else world.train
    num_steps = -(-len(triples) // settings.batch_size)
    assert len(triples) % settings.batch_size, "the last batch must be a smaller one"
    for epoch in (1, 2):
        order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(epoch_key(0, epoch)))
        losses = []
        for step, rows in enumerate(order.split(settings.batch_size)):
            batches = sample_batches(
                triples[rows].int()[None], num_entities=world.num_entities, num_negatives=settings.num_negatives,
                epoch=epoch, first=step * settings.batch_size,
            )  # fmt: skip
            loss = margin_loss(model, batches, settings.margin)
            rate = settings.learning_rate * (1 - ((epoch - 1) * num_steps + step) / (2 * num_steps))
            for table, gradient in zip(
                (model.entities, model.relations),
                torch.autograd.grad(loss.mean(), [model.entities, model.relations]),
                strict=True,
            ):
                table.data -= rate * gradient
            losses.append(loss.detach())
        assert result.epochs[epoch - 1].loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-9)
    assert result.best_epoch == 2
    torch.testing.assert_close(result.model.entities, model.entities, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.model.relations, model.relations, rtol=1e-9, atol=1e-12)


def test_training_starts_within_the_initial_bound(world: Splits) -> None:
    # Steps this small leave the first values where they were.
    settings = replace(TINY, optimizer="sgd", learning_rate=1e-12, epochs=1)
    for bound, wanted in ((0.01, 0.01), (None, 6 / settings.dim**0.5)):
        model = train(world, replace(settings, initial_bound=bound)).model
        largest = max(float(table.detach().abs().max()) for table in (model.entities, model.relations))
        assert 0.9 * wanted < largest <= wanted


def test_training_starts_from_a_given_model(world: Splits) -> None:
    still = replace(TINY, optimizer="sgd", learning_rate=1e-30, epochs=1)
    start = train(world, replace(TINY, seed=7)).model
    tables = start.entities.detach().clone(), start.relations.detach().clone()
    again = train(world, still, start=start).model
    assert torch.equal(again.entities, tables[0])
    assert torch.equal(again.relations, tables[1])
    assert not torch.equal(train(world, TINY, start=start).model.entities, tables[0])
    assert torch.equal(start.entities, tables[0])
    with pytest.raises(ValueError, match=r"start must have \d+ entities, \d+ relations and dimension 3, got"):
        train(world, replace(TINY, dim=3), start=start)


def test_a_seed_gives_the_same_model_at_any_number_of_threads(world: Splits) -> None:
    before = torch.get_rng_state()
    for change in ({}, {"sampling": "shared", "optimizer": "adam"}, {"norm": "l1", "sampling": "bernoulli"}):
        settings = replace(TINY, epochs=2, **change)
        models = [train(world, settings, num_threads=threads).model for threads in (1, 2, 5)]
        for other in models[1:]:
            assert torch.equal(other.entities, models[0].entities)
            assert torch.equal(other.relations, models[0].relations)
        assert not torch.equal(train(world, replace(settings, seed=1)).model.entities, models[0].entities)
    assert torch.equal(torch.get_rng_state(), before)


def test_filtered_negatives_are_never_known(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    triples = torch.stack([torch.randint(size, (60,), generator=generator) for size in (8, 2, 8)], dim=1)
    dense = Splits(triples, triples[:5], triples[:5], Vocabulary.from_strings("abcdefgh", "pq"))
    known = set(map(tuple, triples.tolist()))
    drawn = []

    def spy(*args: object, **options: object) -> object:
        batches = sample_batches(*args, **options)
        drawn.append(batches)
        return batches

    monkeypatch.setattr("tercet.embedding.run.sample_batches", spy)
    for filtered in (False, True):
        drawn.clear()
        train(dense, replace(TINY, epochs=1, filter_negatives=filtered))
        hits = 0
        for batches in drawn:
            for triples, negatives, tails in zip(*(part.tolist() for part in batches[:3]), strict=True):
                for (h, r, t), row, num_tails in zip(triples, negatives, tails, strict=True):
                    made = [(h, r, e) if k < num_tails else (e, r, t) for k, e in enumerate(row)]
                    hits += sum(triple in known for triple in made)
        assert (hits > 0) is not filtered


@pytest.mark.parametrize(("sampling", "chunk_size"), [("uniform", 50), ("shared", 4), ("shared", 100)])
def test_no_place_of_an_epoch_is_drawn_twice(
    world: Splits, sampling: str, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[tuple[int, int]] = []

    def spy(*args: object, **options: object) -> object:
        batches = sample_batches(*args, **options)
        places.append((options["first"], batches.num_tails.numel()))
        return batches

    monkeypatch.setattr("tercet.embedding.run.sample_batches", spy)
    train(world, replace(TINY, epochs=1, batch_size=5, sampling=sampling, chunk_size=chunk_size))
    assert len(places) > 3
    assert [first for first, _ in places] == [sum(count for _, count in places[:k]) for k in range(len(places))]


def test_the_unit_ball_holds_all_entities(world: Splits) -> None:
    settings = replace(TINY, epochs=2, learning_rate=1.0)
    lengths = train(world, replace(settings, unit_ball=True)).model.entities.detach().norm(dim=1)
    assert float(lengths.max()) <= 1 + 1e-6
    assert float(train(world, settings).model.entities.detach().norm(dim=1).max()) > 2


def test_validation_comes_when_it_is_due_and_the_best_tables_are_kept(world: Splits) -> None:
    result = train(world, replace(SMALL, epochs=11, valid_every=4))
    assert [epoch.epoch for epoch in result.epochs if epoch.valid] == [4, 8, 11]
    assert result.valid == result.epochs[result.best_epoch - 1].valid
    assert evaluate(result.model, world.valid, known=world.known).metrics.both == result.valid
    assert result.valid.mrr == max(epoch.valid.mrr for epoch in result.epochs if epoch.valid)


def test_early_stopping_counts_validations_without_a_better_mrr(world: Splits) -> None:
    # Steps this wide tear down what the first epochs built.
    settings = replace(SMALL, epochs=60, valid_every=2, patience=2, learning_rate=2.0, seed=1)
    result = train(world, settings)
    measured = [epoch.valid.mrr for epoch in result.epochs if epoch.valid]
    assert len(result.epochs) < 60
    assert max(measured[-2:]) <= max(measured[:-2])
    assert result.best_epoch == 2 * (measured.index(max(measured)) + 1) == len(result.epochs) - 4
    assert evaluate(result.model, world.valid, known=world.known).metrics.both == result.valid


def test_a_reporter_hears_of_steps_and_epochs(world: Splits) -> None:
    heard: list[object] = []

    class Ears(Reporter):
        def on_start(self, splits: Splits, first_epoch: int) -> None:
            heard.append(first_epoch)

        def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
            heard.append((epoch, step, num_steps))

        def on_epoch(self, epoch: Epoch) -> None:
            heard.append((epoch.epoch, epoch.valid is not None))

    num_steps = -(-len(world.train) // 10)
    train(world, replace(TINY, batch_size=10, epochs=2), reporter=Ears())
    assert heard[0] == 1
    assert heard[1:3] == [(1, 16, num_steps), (1, num_steps - 1, num_steps)]
    assert [said for said in heard[1:] if len(said) == 2] == [(1, False), (2, True)]


def test_triples_of_unseen_entities_are_kept_and_reported(world: Splits) -> None:
    rows = ~((world.train[:, [0, 2]] == world.valid[0, 0]).any(1))
    lacking = replace(world, train=world.train[rows])
    result = train(lacking, replace(TINY, epochs=1))
    assert result.unseen == lacking.unseen("valid")
    assert result.unseen.entities == 1
    assert result.valid.count == 2 * len(world.valid)


def test_a_relation_without_triples_is_trained_around(world: Splits) -> None:
    lacking = replace(world, train=world.train[world.train[:, 1] != 2])
    for sampling in ("uniform", "bernoulli", "shared"):
        result = train(lacking, replace(TINY, epochs=1, sampling=sampling, inverses=True))
        first = TransE(world.num_entities, world.num_relations, 8, inverses=True)
        assert torch.equal(result.model.relations[2], first.relations[2])
        assert not torch.equal(result.model.relations[1], first.relations[1])
        assert result.unseen.relations == 1


def test_divergence_stops_with_the_epoch_and_the_cure(world: Splits, tmp_path: Path) -> None:
    settings = replace(TINY, optimizer="sgd", norm="dot", learning_rate=1e12)
    with pytest.raises(
        ValueError, match=r"training diverged in epoch \d+ \(loss .*\): lower learning_rate, it is 1000"
    ):
        train(world, settings, out=tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l3"}, "norm must be one of l1, l2, dot, got 'l3'"),
        ({"loss": "hinge"}, "loss must be one of margin, softmax, self_adversarial, got 'hinge'"),
        ({"optimizer": "lamb"}, "optimizer must be one of sgd, rowwise_adagrad, adam, adagrad, got 'lamb'"),
        ({"sampling": "all"}, "sampling must be one of uniform, bernoulli, shared, got 'all'"),
        ({"schedule": "cosine"}, "schedule must be one of constant, linear, got 'cosine'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
        ({"dim": 0}, "dim must be a positive integer, got 0"),
        ({"epochs": 2.0}, r"epochs must be a positive integer, got 2\.0"),
        ({"num_negatives": True}, "num_negatives must be a positive integer, got True"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0"),
        ({"temperature": float("inf")}, "temperature must be above 0, got inf"),
        ({"initial_bound": 0.0}, r"initial_bound must be above 0, got 0\.0"),
        ({"margin": -1.0}, r"margin must be at least 0, got -1\.0"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"tercet\.embedding\.train: " + message):
        TrainingSettings(**change)


def test_presets_have_names() -> None:
    assert isinstance(preset("fb15k-237"), TrainingSettings)
    assert isinstance(preset("wn18rr"), TrainingSettings)
    with pytest.raises(ValueError, match="name must be one of fb15k-237, wn18rr, got 'fb15k'"):
        preset("fb15k")


def test_splits_that_cannot_be_learnt_from_are_refused(world: Splits) -> None:
    none = world.train[:0]
    with pytest.raises(ValueError, match="the train split must hold triples, got none"):
        train(replace(world, train=none), TINY)
    with pytest.raises(ValueError, match="the valid split must hold triples, got none"):
        train(replace(world, valid=none), TINY)
    assert len(train(replace(world, test=none), replace(TINY, epochs=1)).epochs) == 1
    with pytest.raises(ValueError, match=r"train\[:, ::2\] must be in 0\.\.80, got 81"):
        train(replace(world, train=torch.tensor([[0, 0, 81]])), TINY)
    with pytest.raises(ValueError, match=r"test\[:, 1\] must be in 0\.\.4, got -1"):
        train(replace(world, test=torch.tensor([[0, -1, 8]])), TINY)
    with pytest.raises(ValueError, match=r"valid must be \[num_triples, 3\], got \[2, 2\]"):
        train(replace(world, valid=world.valid[:2, :2]), TINY)
    with pytest.raises(ValueError, match="num_threads must be a positive integer, got 0"):
        train(world, TINY, num_threads=0)
    with pytest.raises(ValueError, match="resume needs out"):
        train(world, TINY, resume=True)


def test_the_model_directory_holds_what_was_trained(world: Splits, tmp_path: Path) -> None:
    result: TrainingResult = train(world, TINY, out=tmp_path / "m")
    files = ["checkpoint.json", "config.json", "model.safetensors", "vocabulary.safetensors"]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == files
    loaded = TransE.load(tmp_path / "m")
    assert torch.equal(loaded.entities, result.model.entities)
    assert loaded.vocabulary is not None
    assert loaded.vocabulary.fingerprint == world.vocabulary.fingerprint
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["training"]["dim"] == 8
    assert config["training"]["best_epoch"] == result.best_epoch
    assert config["data"] == world.fingerprint


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("change", [{}, {"sampling": "shared", "norm": "dot"}, {"inverses": True, "optimizer": "adam"}])
def test_training_on_cuda_is_that_on_the_cpu(world: Splits, change: dict[str, object]) -> None:
    settings = replace(TINY, dtype="float64", filter_negatives=True, **change)
    there, here = (train(world, settings, device=device) for device in ("cuda", "cpu"))
    assert there.model.entities.device.type == "cuda"
    for got, wanted in zip(there.model.to_numpy(), here.model.to_numpy(), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), torch.from_numpy(wanted), rtol=1e-9, atol=1e-12)
    assert there.valid.mrr == pytest.approx(here.valid.mrr, rel=1e-6)
    best = there.model.predict(head=0, relation=0, known=there.model.filter_index(world.known))
    assert [p.entity for p in best] == [
        p.entity for p in here.model.predict(head=0, relation=0, known=here.model.filter_index(world.known))
    ]
