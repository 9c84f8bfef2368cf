"""Training: what is learnt, what it costs, and runs that break and are resumed bit for bit; on tones (not speech)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spoken import tones
from tercet.checkpoints import Checkpoint
from tercet.speech import (
    DigitRecognizer,
    ModelSettings,
    Reporter,
    StringMaker,
    TrainingResult,
    TrainingSettings,
    train,
    warm_up,
)
from tercet.speech.guides import Teacher, along_path
from tercet.speech.model import Spent, fixed_cost, least_share
from tercet.speech.run import Run
from tercet.speech.storage import VERSION, load_config, load_model

SIZES = ModelSettings(dim=16, num_layers=2, num_heads=2, feed_forward_dim=32, window=8, context=3)
TINY = TrainingSettings(cost_weight=0.3, epochs=6, batches=3, batch_size=4, warm_up=0.3, checkpoint_every=2)


pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(Exception):
    """Stands for a kill."""


class KillIn(Reporter):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        if (epoch, step) == (self.epoch, 2):
            raise Killed


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint.json"}


def timeless(result: TrainingResult) -> list[object]:
    return [replace(epoch, seconds=0.0) for epoch in result.epochs]


@pytest.fixture(scope="module")
def all_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory to learn from."""
    folder = tmp_path_factory.mktemp("teacher")
    train(tones(), replace(TINY, cost_weight=0.0), replace(SIZES, gates="on"), hold_out="ann", out=folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [{}, {"cost_weight": 0.0, "target_compute": 0.93}, {"mode": "compact", "masked_bins": 0, "short": 0.0}],
    ids=["weight", "target", "compact"],
)
@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_a_broken_run_resumes_bit_for_bit(tmp_path: Path, epoch: int, change: dict[str, object]) -> None:
    settings = replace(TINY, **change)
    unbroken = train(tones(), settings, SIZES, hold_out="ann", out=tmp_path / "unbroken")
    with pytest.raises(Killed):
        train(tones(), settings, SIZES, hold_out="ann", out=tmp_path / "broken", reporter=KillIn(epoch))
    torch.rand(3)  # whatever else draws
    resumed = train(tones(), settings, SIZES, hold_out="ann", out=tmp_path / "broken", resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")
    assert timeless(resumed) == timeless(unbroken)
    again = train(tones(), settings, SIZES, hold_out="ann", out=tmp_path / "broken", resume=True)
    assert timeless(again) == timeless(unbroken)
    assert again.compute_share == unbroken.compute_share == load_config(tmp_path / "unbroken")["compute_share"]
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, unbroken.model.state_dict()[name])


def test_decided_gates_are_learnt_with_on_kept_frames_alone() -> None:
    """Which is what dense training of forced gates computes."""
    settings = replace(TINY, settle=0.5, cost_weight=0.0, target_compute=0.6)
    run = Run(tones(), settings, SIZES, "ann", Reporter())
    modes = []
    for _ in range(TINY.epochs - 1):
        run.train_epoch()
        modes.append({block.mode for block in run.model.encoder.blocks})
    assert modes == [{"dense"}] * 3 + [{"compact"}] * 2
    before, batch = run.snapshot(), run._batches(TINY.epochs, 4, 1)[0]
    before = Checkpoint(before.state, {name: value.clone() for name, value in before.tensors.items()})
    found = []
    for mode in ("compact", "dense"):
        run.restore(before)
        run.model.train()
        for block in run.model.encoder.blocks:
            block.mode = mode
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loss, share = run.train_step(batch, TINY.batches * (TINY.epochs - 1))
        assert share < 0.9
        found.append((loss, {name: value.grad.clone() for name, value in run.model.named_parameters()
                             if value.grad is not None}))  # fmt: skip
    (compact, compact_gradients), (dense, dense_gradients) = found
    assert compact == pytest.approx(dense, rel=1e-5)
    for name in compact_gradients:
        torch.testing.assert_close(compact_gradients[name], dense_gradients[name], rtol=1e-3, atol=1e-6)


def test_the_speaker_who_is_held_out_is_not_heard() -> None:
    """Not in strings, not in babble, not by the features' mean."""
    clips, rng = tones(), np.random.default_rng(5)
    audio = [
        rng.standard_normal(len(clip)).astype(np.float32) if name == "ann" else clip
        for clip, name in zip(clips.audio, clips.speakers, strict=True)
    ]
    own, changed = (train(some, TINY, SIZES, hold_out="ann") for some in (clips, replace(clips, audio=audio)))
    for name, value in own.model.state_dict().items():
        assert torch.equal(value, changed.model.state_dict()[name]), name
    assert timeless(own) == timeless(changed)


def test_training_leaves_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    train(tones(), replace(TINY, epochs=1), SIZES)
    assert torch.equal(torch.get_rng_state(), before)


def test_resume_refuses_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(Killed):
        train(tones(), TINY, SIZES, hold_out="ann", out=folder, reporter=KillIn(3))
    with pytest.raises(ValueError, match=r"m: its run has dim = 16, so --resume cannot use 32"):
        train(tones(), TINY, replace(SIZES, dim=32), hold_out="ann", out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has cost_weight = 0.3, so --resume cannot use 0.4"):
        train(tones(), replace(TINY, cost_weight=0.4), SIZES, hold_out="ann", out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has hold_out = 'ann', so --resume cannot use 'bob'"):
        train(tones(), TINY, SIZES, hold_out="bob", out=folder, resume=True)
    with pytest.raises(FileNotFoundError, match="its training has not finished; go on with --resume"):
        load_model(folder)


def test_cost_buys_compute_off_and_a_target_is_met() -> None:
    """On a toy task: without a cost blocks stay on, with one they close, and a target finds the weight."""
    learning = TrainingSettings(
        epochs=16, batches=8, batch_size=8, learning_rate=1e-2, warm_up=0.2, ramp=0.2, short=0.0
    )
    batch = StringMaker(tones().to_train("ann")).training_batches(7, 1, 64, 1, (3.0, 30.0))[0]

    def total(model: DigitRecognizer) -> Spent:
        with torch.inference_mode():
            return model(model.features(batch.samples), batch.padding()).total

    # Most of what so small a model takes is its front end, which no gate saves: a floor of every share.
    frames = int(batch.frames.sum())
    floor = frames * fixed_cost(SIZES) / int(total(DigitRecognizer(SIZES).eval()).dense.sum())
    aim = floor + 0.6 * (1 - floor)
    free, dear, target = (
        train(tones(), replace(learning, **change), SIZES, hold_out="ann")
        for change in ({}, {"cost_weight": 20.0}, {"target_compute": aim})
    )
    drawn = [(result.epochs[-1].compute_share - floor) / (1 - floor) for result in (free, dear, target)]
    assert drawn[0] > 0.8
    assert drawn[1] < 0.5
    assert 0.5 < drawn[2] < 0.85
    # Thresholds are shifted until decided gates take the target's share of strings like those of training.
    near = 0.05 * (1 - floor)
    assert total(target.model).share == pytest.approx(aim, abs=near)
    assert target.compute_share == pytest.approx(aim, abs=near / 5)
    assert free.compute_share > dear.compute_share
    assert total(dear.model).share == pytest.approx(dear.compute_share, abs=near)


def test_gates_off_leave_the_least_share() -> None:
    """At full windows."""
    model = DigitRecognizer(SIZES).eval()
    rows, padding = torch.zeros(1, 20, 96), torch.zeros(1, 20, dtype=torch.bool)
    total = model(rows, padding, gates=torch.zeros(2, 2, 1, 20, dtype=torch.bool)).total
    at = (total.spent / total.dense)[0]
    assert at[8:].tolist() == pytest.approx([least_share(SIZES)] * 12)
    assert float(at[:8].min()) > least_share(SIZES)


def test_the_temperature_moves_geometrically(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tones(), replace(TINY, temperature=2.0, last_temperature=0.5), SIZES, "ann", Reporter())
    heard: list[float] = []
    plain = run.model.forward

    def noted(*args: object, **more: object) -> object:
        if run.model.training:  # not where gates are decided before a step
            heard.append(run.model.encoder.temperature)
        return plain(*args, **more)

    monkeypatch.setattr(run.model, "forward", noted)
    for _ in range(TINY.epochs):
        run.train_epoch()
    assert heard == pytest.approx([2.0 * 0.25 ** (step / 18) for step in range(18)])


def test_the_loss_of_tones_falls() -> None:
    settings = TrainingSettings(epochs=16, batches=8, batch_size=8, learning_rate=1e-2, lowest_snr=20, highest_snr=30)
    result = train(tones(), settings, replace(SIZES, gates="on"), hold_out="bob")
    assert result.epochs[-1].loss < 0.6 * result.epochs[0].loss
    assert {epoch.compute_share for epoch in result.epochs} == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"cost_weight": -1.0}, "cost_weight must be at least 0, got -1.0"),
        ({"warm_up": 1.5}, r"warm_up must be in 0\.\.1, got 1.5"),
        ({"target_compute": 0.0}, "target_compute must be above 0 and at most 1, got 0.0"),
        ({"target_compute": 0.4, "cost_weight": 1.0}, "give cost_weight or target_compute, not both"),
        ({"lowest_snr": 20.0, "highest_snr": 10.0}, "lowest_snr must be at most highest_snr, got 20.0 and 10.0"),
        ({"lowest_snr": float("-inf")}, "lowest_snr must be finite, got -inf"),
        ({"highest_snr": float("inf")}, "highest_snr must be finite, got inf"),
        ({"lowest_snr": float("nan")}, "lowest_snr must be finite, got nan"),
        ({"teacher_weight": 0.0}, "teacher_weight must be above 0, got 0.0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be an integer of at least 0, got 0.5"),
        ({"masked_bins": 25}, r"masked_bins must be in 0\.\.24, got 25"),
        ({"mode": "sparse"}, "mode must be one of dense, compact, got 'sparse'"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be a positive integer, got 0"),
        ({"window": -1}, "window must be an integer of at least 0, got -1"),
        ({"num_heads": 3}, "dim must be a multiple of num_heads = 3, got 64"),
        ({"gates": "off"}, "gates must be one of on, learnt, got 'off'"),
    ],
)
def test_sizes_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSettings(**change)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with gates on there is no cost to weigh"):
        train(tones(), TINY, replace(SIZES, gates="on"))
    below = replace(TINY, cost_weight=0.0, target_compute=least_share(SIZES))
    with pytest.raises(ValueError, match=r"target_compute must be above 0\.\d+, which log-mel, convolutions, head and"):
        train(tones(), below, SIZES)
    with pytest.raises(ValueError, match="resume needs out"):
        train(tones(), TINY, SIZES, resume=True)
    with pytest.raises(ValueError, match=r"must be one of ann, bob, cy, got 'dan'"):
        train(tones(), TINY, SIZES, hold_out="dan")
    with pytest.raises(ValueError, match="no other speaker is left to learn from"):
        train(tones().to_test("ann"), TINY, SIZES, hold_out="ann")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="the model directory must be empty"):
        train(tones(), TINY, SIZES, out=tmp_path)


@pytest.mark.parametrize("change", [{}, {"cost_weight": 0.0, "target_compute": 0.93}], ids=["weight", "target"])
def test_arbitrators_need_steps_to_learn_in(change: dict[str, object]) -> None:
    crowded = replace(TINY, epochs=1, warm_up=0.5, ramp=0.25, settle=0.5, **change)
    message = r"warm_up \+ ramp \+ settle must be at most 1, .* got 0\.5 \+ 0\.25 \+ 0\.5"
    with pytest.raises(ValueError, match=message):
        train(tones(), crowded, SIZES)
    for fine, sizes in (
        (replace(crowded, settle=0.25), SIZES),  # just full, as the defaults are
        (replace(crowded, cost_weight=0.0, target_compute=None), SIZES),
        (replace(crowded, cost_weight=0.0, target_compute=None), replace(SIZES, gates="on")),
    ):
        assert len(train(tones(), fine, sizes).epochs) == 1


def test_divergence_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"training diverged in step \d+ \(loss .*\): lower learning_rate, it is 1e\+30"
    ):
        train(tones(), replace(TINY, learning_rate=1e30, epochs=3), SIZES)


def test_a_model_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    result = train(tones(), TINY, SIZES, hold_out="cy", out=tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.settings == SIZES
    assert not loaded.training
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    config = (tmp_path / "m" / "config.json").read_text()
    (tmp_path / "m" / "config.json").write_text(config.replace('"dim": 16', '"dim": 32'))
    with pytest.raises(ValueError, match="m: its files do not belong together"):
        load_model(tmp_path / "m")
    for version, cure in ((VERSION + 1, "update tercet"), (VERSION - 1, "train the model again")):
        other = config.replace(f'"version": {VERSION}', f'"version": {version}')
        assert other != config
        (tmp_path / "m" / "config.json").write_text(other)
        with pytest.raises(ValueError, match=rf"config\.json: expected version {VERSION}, got {version}; {cure}"):
            load_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(config)
    train(tones(), replace(TINY, seed=1), SIZES, hold_out="cy", out=tmp_path / "other")
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"m: its files do not belong together: config\.json is of other weights"):
        load_model(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a safetensors file"):
        load_model(tmp_path / "m")
    with pytest.raises(FileNotFoundError, match=r"no model here \(there is no config.json\)"):
        load_model(tmp_path)


def test_runs_share_a_warm_up_bit_for_bit() -> None:
    settings = replace(TINY, cost_weight=0.0)
    warm = warm_up(tones(), settings, replace(SIZES, gates="on"), hold_out="ann")
    assert warm.state["epoch"] == 1  # of 6, at a warm-up of 30 %
    for sizes, change in (
        (replace(SIZES, gates="on"), {}),
        (SIZES, {"cost_weight": 0.5}),
        (SIZES, {"target_compute": 0.93}),
    ):
        own = replace(settings, **change)
        alone = train(tones(), own, sizes, hold_out="ann")
        shared = train(tones(), own, sizes, hold_out="ann", start=warm)
        assert timeless(shared) == timeless(alone)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, shared.model.state_dict()[name]), name


def test_a_start_of_another_run_is_refused() -> None:
    warm = warm_up(tones(), TINY, SIZES, hold_out="ann")
    with pytest.raises(ValueError, match="the run to start from has seed = 0, this one 1"):
        train(tones(), replace(TINY, seed=1), SIZES, hold_out="ann", start=warm)
    late = Checkpoint({**warm.state, "epoch": 2}, warm.tensors)
    with pytest.raises(ValueError, match="the run to start from must have come to epoch 1 at most, got 2"):
        train(tones(), TINY, SIZES, hold_out="ann", start=late)


# ---- what guides


def test_the_path_is_that_of_the_symbols_where_a_row_ends() -> None:
    batch = StringMaker(tones().to_train("ann")).training_batches(5, 3, 4, 1, (20.0, 30.0))[0]
    for hop in (56, 80, 112):
        frames = ((batch.frames * 320 - 80) // hop + 1) // 4
        log_probs = torch.randn(4, int(frames.max()), 11, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
        said = [
            -float(log_probs[b, t, batch.symbols[b, min((4 * t + 3) * hop // 80, batch.symbols.shape[1] - 1)]])
            for b in range(4)
            for t in range(int(frames[b]))
        ]
        assert float(along_path(log_probs, batch, frames, hop)) == pytest.approx(np.mean(said), rel=1e-5)


def test_a_teachers_divergence_is_that_of_its_log_probabilities(all_on: Path) -> None:
    teacher, rng = Teacher(all_on), np.random.default_rng(3)
    rows = torch.from_numpy(rng.standard_normal((2, 7, 96)).astype(np.float32))
    padding = torch.arange(7) >= torch.tensor([[7], [4]])
    theirs = teacher.model(rows, padding).log_probs.detach()
    own = torch.from_numpy(rng.standard_normal((2, 7, 11))).log_softmax(-1).requires_grad_()
    want = sum(
        float(theirs[b, t].double().exp() @ (theirs[b, t].double() - own[b, t].detach()))
        for b, frames in enumerate((7, 4))
        for t in range(frames)
    )
    found = teacher.divergence(rows, padding, own)
    assert found.item() == pytest.approx(want / 11, rel=1e-5)
    found.backward()
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert not teacher.model.training
    assert float(teacher.divergence(rows, padding, theirs)) == pytest.approx(0, abs=1e-6)
    assert float(teacher.divergence(rows[:, :0], padding[:, :0], theirs[:, :0])) == 0


def test_who_is_taught_comes_closer_to_the_teacher(all_on: Path) -> None:
    """And hears as it does, whatever the seed; global random state stays."""
    learning = replace(TINY, cost_weight=0.0, epochs=12, learning_rate=1e-2, lowest_snr=20.0, seed=1)
    batch = StringMaker(tones().to_train("ann")).training_batches(7, 1, 32, 1, (20.0, 30.0))[0]
    teacher, found, before = Teacher(all_on), [], torch.get_rng_state()
    for folder in (None, all_on):
        model = train(tones(), learning, SIZES, hold_out="ann", teacher=folder).model
        own, theirs = model.features, teacher.model.features
        assert torch.equal(own.mean, theirs.mean) is torch.equal(own.deviation, theirs.deviation) is (folder == all_on)
        with torch.inference_mode():
            rows, padding = model.features(batch.samples), batch.padding()
            found.append(float(teacher.divergence(rows, padding, model(rows, padding).log_probs)))
    assert found[1] < 0.5 * found[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_taught_run_resumes_bit_for_bit_with_its_teacher_alone(tmp_path: Path, all_on: Path) -> None:
    unbroken = train(tones(), TINY, SIZES, hold_out="ann", teacher=all_on)
    with pytest.raises(Killed):
        train(tones(), TINY, SIZES, hold_out="ann", teacher=all_on, out=tmp_path, reporter=KillIn(4))
    with pytest.raises(ValueError, match=r"its run has teacher = '\w+', so --resume cannot use None"):
        train(tones(), TINY, SIZES, hold_out="ann", out=tmp_path, resume=True)
    resumed = train(tones(), TINY, SIZES, hold_out="ann", teacher=all_on, out=tmp_path, resume=True)
    assert timeless(resumed) == timeless(unbroken)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, unbroken.model.state_dict()[name]), name


def test_a_weight_that_tells_nothing_is_no_reason_to_refuse(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tones(), TINY, SIZES, hold_out="ann", out=tmp_path, reporter=KillIn(4))
    assert train(tones(), replace(TINY, teacher_weight=1.0), SIZES, hold_out="ann", out=tmp_path, resume=True).epochs


def test_runs_share_a_warm_up_before_a_teacher(all_on: Path) -> None:
    """It teaches from then on; features of another seed's teacher are others."""
    warm = warm_up(tones(), TINY, SIZES, hold_out="ann")
    alone = train(tones(), TINY, SIZES, hold_out="ann", teacher=all_on)
    shared = train(tones(), TINY, SIZES, hold_out="ann", teacher=all_on, start=warm)
    assert timeless(shared) == timeless(alone)
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, shared.model.state_dict()[name]), name
    other = replace(TINY, seed=1)
    late = warm_up(tones(), other, SIZES, hold_out="ann")
    with pytest.raises(ValueError, match="the run to start from hears by another mean: a teacher of another seed"):
        train(tones(), other, SIZES, hold_out="ann", teacher=all_on, start=late)


def test_a_teacher_who_may_have_heard_what_is_tested_is_refused(all_on: Path, tmp_path: Path) -> None:
    for hold_out in ("bob", None):
        with pytest.raises(ValueError, match=rf"same clips: it had hold_out = 'ann', this run has {hold_out!r}"):
            train(tones(), TINY, SIZES, hold_out=hold_out, teacher=all_on)
    clips = tones()
    fewer = clips.where(np.arange(len(clips)) != np.flatnonzero(clips.speakers == "bob")[0])
    with pytest.raises(ValueError, match="a teacher must have learnt from the same clips: its were others"):
        train(fewer, TINY, SIZES, hold_out="ann", teacher=all_on)
    with pytest.raises(ValueError, match="a teacher teaches after the warm-up, which is all there is"):
        train(tones(), replace(TINY, cost_weight=0.0, warm_up=1.0), SIZES, hold_out="ann", teacher=all_on)
    with pytest.raises(FileNotFoundError, match=r"no model here \(there is no config.json\)"):
        train(tones(), TINY, SIZES, hold_out="ann", teacher=tmp_path)
