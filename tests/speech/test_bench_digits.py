"""The benchmark of spoken digits: rivals' sizes, intervals, and what its folder keeps; on tones (not speech)."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bench_digits as bench
import digits_figures
from spoken import tones
from tercet.speech import DigitRecognizer, ModelSettings, TrainingSettings
from tercet.speech.features import FRAME
from tercet.speech.storage import save_model

SIZES = ModelSettings(dim=16, num_layers=3, num_heads=2, feed_forward_dim=32, window=5, context=3)
SHORT = TrainingSettings(epochs=3, batches=2, batch_size=3)


@pytest.mark.parametrize("sizes", [SIZES, replace(bench.SIZES, gates="on"), replace(SIZES, window=0, num_layers=1)])
def test_dense_cost_is_the_models_own_count_at_a_full_window(sizes: ModelSettings) -> None:
    model, frames = DigitRecognizer(sizes).eval(), sizes.window + 3
    with torch.inference_mode():
        rows = model.features(torch.zeros(1, frames * FRAME))
        total = model(rows, torch.zeros(1, frames, dtype=torch.bool)).total
    assert total.dense[0, sizes.window :].tolist() == [bench.dense_cost(sizes)] * 3


@given(st.floats(0.25, 1))
def test_rivals_have_at_least_the_share_and_no_more_than_they_need(share: float) -> None:
    sizes, whole = replace(bench.SIZES, gates="on"), bench.dense_cost(bench.SIZES)
    for rival, step in (
        (bench.smaller(sizes, share), lambda own: replace(own, dim=own.dim - 4, feed_forward_dim=4 * (own.dim - 4))),
        (bench.shallower(sizes, share), lambda own: replace(own, num_layers=own.num_layers - 1)),
    ):
        assert bench.dense_cost(rival) >= share * whole
        if min(rival.dim - 4, rival.num_layers - 1) > 0:
            assert bench.dense_cost(step(rival)) < share * whole


def test_the_docstring_has_the_rivals_shares() -> None:
    told = " ".join(str(bench.__doc__).split())
    for name, size in (("small", "40 of 64"), ("shallow", "3 of 8")):
        sizes = bench.systems()[name][1]
        share = bench.dense_cost(sizes) / bench.dense_cost(bench.SIZES)
        assert share >= bench.TARGET
        assert f"{size}, which is {100 * share:.1f} % ({name}_share" in told
    assert (bench.systems()["small"][1].dim, bench.systems()["shallow"][1].num_layers) == (40, 3)


# ---- intervals


def counts(seed: int, clusters: int = 40) -> dict[str, Any]:
    """Of two speakers at two ratios, two seeds."""
    rng = np.random.default_rng(seed)
    snr = np.tile(np.repeat([30.0, 10.0], clusters), 2)
    found: dict[str, Any] = {name: rng.integers(1, 9, (2, len(snr))) for name in bench.COUNTS}
    number = np.tile(digits_figures.string_numbers(snr[: 2 * clusters]), 2)
    return {**found, "snr": snr, "speaker": np.repeat(["ann", "bob"], 2 * clusters), "number": number}


@given(st.integers(0, 2**32))
@settings(max_examples=20)  # each draws 10,000 resamples
def test_intervals_of_the_same_and_of_twice_the_errors_have_no_width(seed: int) -> None:
    one = counts(seed)
    for times in (1, 2):
        other = {**one, "errors": times * one["errors"]}
        found = digits_figures.ratio_interval(other, one, "ratio")
        assert found == {"ratio": times, "ratio_95": [times, times]}


def test_a_string_is_drawn_with_all_its_ratios() -> None:
    """What goes to and fro between the ratios of a string, but not its sum, leaves no interval."""
    one, rng = counts(3), np.random.default_rng(4)
    moved = rng.integers(0, 1000, 80)
    errors = np.full((2, 160), 1000)
    for speaker in range(2):
        first = 80 * speaker
        errors[:, first : first + 40] += moved[40 * speaker : 40 * speaker + 40]
        errors[:, first + 40 : first + 80] -= moved[40 * speaker : 40 * speaker + 40]
    found = digits_figures.ratio_interval({**one, "errors": errors}, {**one, "errors": np.full((2, 160), 500)})
    assert found["word_error_ratio_95"] == [2, 2]
    assert digits_figures.string_numbers([20.0, 5.0, 20.0, 5.0, 5.0]).tolist() == [0, 0, 1, 1, 2]


def test_an_interval_covers_what_is_true_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        one, rng = counts(seed), np.random.default_rng([seed, 1])
        both = [np.tile(rng.poisson(3.0, (2, 1, 40)), (1, 2, 1)).reshape(1, 160) for _ in range(2)]
        low, high = digits_figures.ratio_interval({**one, "errors": both[0]}, {**one, "errors": both[1]})[
            "word_error_ratio_95"
        ]
        covered += low <= 1 <= high
    assert covered >= 51


def test_compute_rises_where_the_interval_is_above_zero() -> None:
    one = counts(5)
    flat = {**one, "spent": np.full((2, 160), 40), "dense": np.full((2, 160), 100)}
    found = digits_figures.compute_rise(flat, flat)
    assert found == {"compute_rise": 0, "compute_rise_95": [0, 0], "compute_rises_with_noise": False}
    steep = {**flat, "spent": np.where(one["snr"] == 10, 50, 40) * np.ones((2, 1), int)}
    found = digits_figures.compute_rise(steep, flat)
    assert found["compute_rise"] == pytest.approx(0.1)
    assert found["compute_rise_95"] == pytest.approx([0.1, 0.1])
    assert found["compute_rises_with_noise"]
    noisy = {**flat, "spent": 40 + np.random.default_rng(6).integers(-30, 30, (2, 160))}
    low, high = digits_figures.compute_rise(noisy, flat)["compute_rise_95"]
    assert low < 0 < high


# ---- what is kept


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small settings; the names of the systems that were trained."""
    pytest.importorskip("jiwer", reason="jiwer is not installed (extra `speech`)")
    monkeypatch.setattr(bench, "TRAINING", SHORT)
    monkeypatch.setattr(bench, "SIZES", SIZES)
    monkeypatch.setattr(bench, "SNRS", (30.0, 5.0))
    monkeypatch.setattr(bench, "TARGET", 0.85)
    trained, train = [], bench.train

    def noted(clips: Any, training: Any, sizes: Any, **more: Any) -> Any:
        how = ["start"] if more["start"] else []
        how += [] if more["teacher"] is None else [f"taught by {more['teacher'].name}"]
        trained.append(" ".join([sizes.gates, str(sizes.num_layers), str(sizes.dim), *how]))
        return train(clips, training, sizes, **more)

    monkeypatch.setattr(bench, "train", noted)
    return trained


def test_models_are_kept_and_counted_anew(tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = bench.Bench(tones(), tmp_path)
    for system in ("gated", "all_on", "taught", "small", "shallow"):
        own.measure("ann", 0, system)
    own.measure("ann", 1, "small")
    sizes = [bench.systems()[name][1] for name in ("small", "shallow", "small")]
    first, *rivals = (f"on {one.num_layers} {one.dim}" for one in (SIZES, *sizes))
    taught = [f"{one} taught by ann 0 all_on" for one in (f"learnt{first[2:]} start", f"{first} start", *rivals[:2])]
    assert small == [f"{first} start", *taught, f"{first} start", f"{rivals[2]} taught by ann 1 all_on"]
    count = len(small)
    made = bench.results(own, [0], ["ann"])
    for name in (*bench.RIVALS, "taught"):
        assert made.get(f"{name}_share", 1) >= bench.TARGET
        assert made["gated"][f"word_error_ratio_to_{name}_seeds"] == [0]
        low, high = made["gated"][f"word_error_ratio_to_{name}_95"]
        assert low <= made["gated"][f"word_error_ratio_to_{name}"] <= high
    assert made["interval"] == "strings; seeds and speakers held fixed"
    assert {"compute_rise", "compute_rise_95", "compute_rises_with_noise"} <= set(made)

    path = own.path("ann", 0, "gated")
    kept = path.read_text()
    path.write_text(json.dumps({**json.loads(kept), "strings": "others", "errors": []}))
    assert bench.Bench(tones(), tmp_path).pooled("gated", [0], ["ann"]) is not None
    assert json.loads(path.read_text()) == json.loads(kept)
    path.unlink()
    bench.Bench(tones(), tmp_path).measure("ann", 0, "gated")
    assert json.loads(path.read_text()) == json.loads(kept)
    monkeypatch.setattr(bench, "SNRS", (30.0, 20.0, 5.0))
    found = bench.Bench(tones(), tmp_path).part("ann", 0, "gated")
    assert found is not None
    assert set(found["snr"]) == {30.0, 20.0, 5.0}
    assert len(small) == count  # nothing was trained again

    monkeypatch.setattr(bench, "TRAINING", replace(SHORT, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"ann 0 gated: .* other training settings than today's: learning_rate"):
        bench.Bench(tones(), tmp_path).measure("ann", 0, "gated")
    monkeypatch.setattr(bench, "TRAINING", SHORT)
    own.model_path("bob", 0, "gated").mkdir()
    for name in ("config.json", "model.safetensors"):
        moved = own.model_path("ann", 0, "gated") / name
        (own.model_path("bob", 0, "gated") / name).write_bytes(moved.read_bytes())
    with pytest.raises(ValueError, match="bob 0 gated: it was made with hold_out 'ann', not 'bob'"):
        own.part("bob", 0, "gated")


def test_a_system_belongs_to_the_teacher_that_is_there(tmp_path: Path, small: list[str]) -> None:
    own = bench.Bench(tones(), tmp_path)
    own.measure("ann", 0, "shallow")
    assert len(small) == 2
    teacher = own.model_path("ann", 0, "all_on")
    rmtree(teacher)  # what was counted of it stays
    own.measure("ann", 0, "gated")
    assert len(small) == 4
    assert own.part("ann", 0, "shallow") is not None  # the same training gave the same weights
    config = json.loads((teacher / "config.json").read_text())
    told = {name: config[name] for name in ("training", "hold_out")}
    save_model(teacher, DigitRecognizer(ModelSettings(**config["model"])), told)
    with pytest.raises(ValueError, match=r"ann 0 shallow: it was made with teacher '\w+', not '\w+'"):
        bench.Bench(tones(), tmp_path).measure("ann", 0, "shallow")


def test_the_plan_has_each_system_of_each_speaker_and_seed_once() -> None:
    planned = list(bench.plan(["gated", "taught", "window"], [0, 2], ["ann", "bob"]))
    assert len(planned) == len(set(planned))
    windows = [f"window {window}" for window in bench.WINDOWS]
    for speaker in ("ann", "bob"):
        assert {system for who, seed, system in planned if (who, seed) == (speaker, 0)} == {"gated", "taught", *windows}
        assert {system for who, seed, system in planned if (who, seed) == (speaker, 2)} == {"gated"}


def test_points_of_one_seed_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share: dict[str, Any] = {"compute_share": 0.5, "word_error_rate": 0.1}
    made: dict[str, Any] = {"seeds": [0, 1], "speakers": ["ann"], "curve": {"weight 1": share}}
    made["all_on"] = {**share, "seeds": [0, 1], "system": "all_on"}
    made["window"] = {**share, "seeds": [0], "system": "window 4"}
    drawn: list[Any] = []
    monkeypatch.setattr(bench, "plot_compute", lambda points, path, **more: drawn.extend(points))
    bench.draw(made, tmp_path / "digits.png")
    labels = [(point.label, point.series) for point in drawn]
    assert labels == [("all_on", ""), ("window 4, seed 0 alone", ""), ("weight 1", "cost weights, seed 0 alone")]


def test_unknown_systems_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_digits.py", "--work", "none", "--systems", "gated,smal"])
    with pytest.raises(SystemExit):
        bench.main()
    assert (
        "--systems: expected some of all_on, gated, small, shallow, taught, window, weight, got smal"
        in capsys.readouterr().err
    )
