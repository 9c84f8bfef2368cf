"""`tercet kge` from files to predictions."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import commands
from grids import grid, write
from tercet.cli import app
from tercet.cli.kge import ProgressReporter
from tercet.embedding import PRESETS, TrainingSettings, TransE, evaluate
from tercet.graph.knowledge_graph import KnowledgeGraph
from tercet.graph.splits import read_splits, split_graph

METRICS = ["mrr", "hits_at_1", "hits_at_3", "hits_at_10", "mean_rank", "adjusted_mean_rank_index"]


run = partial(commands.run, "kge")


def training(folder: Path, out: str, *more: object) -> list[object]:
    fixed = ["--dim", 16, "--negatives", 16, "--batch-size", 32, "--epochs", 60, "--valid-every", 20, "--threads", 1]
    rule = ["--norm", "l2", "--loss", "softmax", "--optimizer", "adam", "--learning-rate", 0.03]
    plain = ["--sampling", "uniform", "--all-negatives", "--schedule", "constant"]
    return ["train", "--data", folder / "grid", "--out", folder / out, *fixed, *rule, *plain, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits, a graph file and a trained model."""
    folder = tmp_path_factory.mktemp("kge")
    splits = grid()
    write(folder / "grid", splits)
    graph = KnowledgeGraph.read(folder / "grid" / "train.txt", folder / "grid" / "test.txt")
    graph.save(folder / "kb")
    threads = torch.get_num_threads()
    (folder / "train.json").write_text(run(*training(folder, "model", "--json")))
    torch.set_num_threads(threads)
    return folder


def test_train_prints_one_json_object(folder: Path) -> None:
    result = json.loads((folder / "train.json").read_text())
    splits = read_splits(folder / "grid")
    assert result["path"] == str(folder / "model")
    assert (result["triples"], result["valid_triples"]) == (len(splits.train), len(splits.valid))
    assert [epoch["epoch"] for epoch in result["epochs"]] == list(range(1, 61))
    assert [epoch["epoch"] for epoch in result["epochs"] if epoch["valid"]] == [20, 40, 60]
    assert result["valid"]["mrr"] > 0.3
    files = ["checkpoint.json", "config.json", "model.safetensors", "vocabulary.safetensors"]
    assert sorted(path.name for path in (folder / "model").iterdir()) == files


def test_train_shows_progress_to_people_and_draws(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `plot`)")
    shown = run(*training(folder, "shown", "--epochs", 2, "--plot", folder / "curve.png"))
    assert "triples to learn from" in shown
    assert "epoch    2  loss" in shown
    assert "MRR" in shown
    assert f"Model: {folder / 'shown'}" in shown
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_bar_moves_within_an_epoch(folder: Path) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True)
    with closing(ProgressReporter(shown, 3)) as reporter:
        reporter.on_start(read_splits(folder / "grid"), 2)
        reporter.on_step(2, 1, 4, 0.5)
        assert reporter.bar.progress is not None
        assert reporter.bar.progress.tasks[0].completed == 1.25
    assert reporter.bar.progress is None


def test_every_setting_reaches_the_run(folder: Path) -> None:
    given = {
        "norm": "l1", "dim": 6, "dtype": "float64", "inverses": True, "initial_bound": 0.4, "num_negatives": 3, "sampling": "shared",
        "chunk_size": 7, "filter_negatives": True, "loss": "self_adversarial", "margin": 2.5, "temperature": 0.5,
        "optimizer": "sgd", "learning_rate": 0.2, "schedule": "linear", "unit_ball": True, "epochs": 2,
        "batch_size": 19, "seed": 4, "valid_every": 1, "patience": 2,
    }  # fmt: skip
    options: list[object] = []
    for name, value in given.items():
        flag = "--" + {"num_negatives": "negatives"}.get(name, name.replace("_", "-"))
        options += [flag] if value is True else [flag, value]
    run("train", "--data", folder / "grid", "--out", folder / "all", *options)
    config = json.loads((folder / "all" / "config.json").read_text())
    assert {name: config["training"][name] for name in given} == given
    assert set(given) == set(vars(TrainingSettings()))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_settings_to_start_from(folder: Path, name: str) -> None:
    changed = {"dim": 4, "epochs": 1, "num_negatives": 2}
    run("train", "--data", folder / "grid", "--out", folder / name, "--preset", name, "--dim", 4, "--epochs", 1,
        "--negatives", 2)  # fmt: skip
    config = json.loads((folder / name / "config.json").read_text())
    for setting, value in {**vars(PRESETS[name]), **changed}.items():
        assert config["training"][setting] == value


def test_eval_has_the_promised_keys_and_figures(folder: Path) -> None:
    asked = ["eval", "--model", folder / "model", "--data", folder / "grid"]
    found = json.loads(run(*asked, "--json"))
    assert list(found) == ["head", "tail", "both"]
    splits = read_splits(folder / "grid")
    wanted = evaluate(TransE.load(folder / "model"), splits.test, known=splits.known)
    assert found == wanted.metrics.to_dict()
    for side in found.values():
        assert list(side) == METRICS
    assert json.loads(run(*asked, "--split", "valid", "--json"))["both"]["mrr"] == pytest.approx(
        json.loads((folder / "train.json").read_text())["valid"]["mrr"]
    )
    assert f"{found['both']['mrr']:.4f}" in run(*asked)


def test_eval_by_relation(folder: Path) -> None:
    asked = ["eval", "--model", folder / "model", "--data", folder / "grid", "--by-relation"]
    found = json.loads(run(*asked, "--json"))["by_relation"]
    splits = read_splits(folder / "grid")
    wanted = evaluate(TransE.load(folder / "model"), splits.test, known=splits.known).by_relation
    assert found == {
        splits.vocabulary.relations[relation]: {"count": metrics.head.count, **metrics.to_dict()}
        for relation, metrics in wanted.items()
    }
    shown = run(*asked)
    assert all(name in shown for name in found)


def test_unseen_entities_are_reported(folder: Path) -> None:
    splits = grid()
    write(folder / "lacking", splits)
    (folder / "lacking" / "test.txt").write_text("point 0 0\tup\tnowhere\n")
    run("train", "--data", folder / "lacking", "--out", folder / "lack", "--dim", 4, "--epochs", 1)
    shown = run("eval", "--model", folder / "lack", "--data", folder / "lacking")
    assert "1 triples of test hold one of 1 entities and 0 relations that no training triple holds" in shown


def test_a_graph_file_is_split_alike_in_training_and_evaluation(folder: Path) -> None:
    run("train", "--data", folder / "kb", "--out", folder / "by_graph", "--dim", 4, "--epochs", 1, "--seed", 6)
    found = json.loads(run("eval", "--model", folder / "by_graph", "--data", folder / "kb", "--json"))
    splits = split_graph(KnowledgeGraph.load(folder / "kb"), seed=6)
    assert found == evaluate(TransE.load(folder / "by_graph"), splits.test, known=splits.known).metrics.to_dict()


def test_predict_gives_what_is_new_or_marks_what_is_known(folder: Path) -> None:
    asked = ["predict", "--model", folder / "model", "--relation", "up", "-k", "3", "--json"]
    # A step up from here is known from training.
    free = json.loads(run(*asked, "--head", "point 4 4"))
    assert (free["head"], free["relation"], free["tail"]) == ("point 4 4", "up", None)
    assert len(free["predictions"]) == 3
    assert {found["known"] for found in free["predictions"]} == {None}
    data = ["--data", folder / "grid"]
    new = json.loads(run(*asked, "--head", "point 4 4", *data))["predictions"]
    assert "point 4 5" not in [found["name"] for found in new]
    assert {found["known"] for found in new} == {False}
    everything = json.loads(run(*asked, "--head", "point 4 4", *data, "--known", "-k", 200))["predictions"]
    assert [found["name"] for found in everything if found["known"]] == ["point 4 5"]
    assert len(everything) == 81
    heads = json.loads(run(*asked, "--tail", "point 4 5", *data, "--known", "-k", 200))["predictions"]
    assert [found["name"] for found in heads if found["known"]] == ["point 4 4"]
    shown = run("predict", "--model", folder / "model", "--relation", "up", "--tail", "point 4 5", *data, "--known", "-k", 200)  # fmt: skip
    assert "? —up→ point 4 5" in shown
    assert "point 4 4  (known)" in shown


def test_train_refuses_a_folder_in_use_and_resumes_a_finished_run(folder: Path) -> None:
    refused = CliRunner().invoke(app, ["kge", *map(str, training(folder, "model"))])
    assert isinstance(refused.exception, ValueError)
    assert "must be empty" in str(refused.exception)
    assert json.loads(run(*training(folder, "model", "--json", "--resume"))) == json.loads(
        (folder / "train.json").read_text()
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--data", "{}/nothing", "--out", "{}/x"], "nothing: expected a directory with train.txt"),
        (["train", "--data", "{}/bad", "--out", "{}/x"], "bad/valid.txt, line 2: expected 3 fields"),
        (["train", "--data", "{}/empty", "--out", "{}/x"], "empty/test.txt: expected triples, got an empty file"),
        (["train", "--data", "{}/grid", "--out", "{}/x", "--norm", "l3"], "norm must be one of l1, l2, dot, got 'l3'"),
        (["train", "--data", "{}/grid", "--out", "{}/x", "--preset", "x"], "name must be one of fb15k-237, wn18rr"),
        (["train", "--data", "{}/grid", "--out", "{}/x", "--device", "tpu"], "--device must be cpu, cuda or cuda:N"),
        (["eval", "--model", "{}/nothing", "--data", "{}/grid"], "nothing: no model here"),
        (["eval", "--model", "{}/model", "--data", "{}/other"], "model: the model is of other data: it names 81"),
        (["eval", "--model", "{}/model", "--data", "{}/fewer"], "model: the model was trained on other triples"),
        (["eval", "--model", "{}/model", "--data", "{}/grid", "--split", "all"], "--split must be one of train, valid, test"),
        (["eval", "--model", "{}/newer", "--data", "{}/grid"], "config.json: expected version 1, got 99; update tercet"),
        (["predict", "--model", "{}/model", "--relation", "up"], "give either --head, to predict tails, or --tail"),
        (["predict", "--model", "{}/model", "--relation", "up", "--head", "point 9 9"], "no entity is named 'point 9 9'; near names:"),
        (["predict", "--model", "{}/model", "--relation", "down", "--head", "point 1 1"], "no relation is named 'down'"),
        (["predict", "--model", "{}/model", "--relation", "up", "--head", "point 1 1", "--known"], "--known needs --data"),
    ],
)  # fmt: skip
def test_errors_are_one_line_without_a_traceback(
    folder: Path, tmp_path: Path, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    splits = grid()
    for name in ("bad", "empty", "other", "fewer"):
        write(tmp_path / name, grid(7) if name == "other" else splits)
    (tmp_path / "bad" / "valid.txt").write_text("point 0 0\tup\tpoint 0 1\npoint 0 0\tup\n")
    (tmp_path / "empty" / "test.txt").write_text("")
    lines = (tmp_path / "fewer" / "train.txt").read_text().splitlines(keepends=True)
    (tmp_path / "fewer" / "train.txt").write_text("".join(lines[:-1]))
    (tmp_path / "grid").symlink_to(folder / "grid")
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "config.json").write_text('{"format": "tercet.embedding.TransE", "version": 99}')
    assert message in commands.error_of(capsys, "kge", *(part.replace("{}", str(tmp_path)) for part in args))
    assert not (tmp_path / "x").exists()


def test_a_missing_plotting_library_is_told_before_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    asked = training(folder, "undrawn", "--plot", folder / "undrawn.png")
    refused = CliRunner().invoke(app, ["kge", *map(str, asked)])
    assert isinstance(refused.exception, ImportError)
    assert "pip install 'tercet[plot]'" in str(refused.exception)
    assert not (folder / "undrawn").exists()
