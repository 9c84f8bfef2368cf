"""`tercet qa` from files to answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from commands import error_of
from films import Films, write
from tercet.cli import app


@pytest.fixture(scope="module")
def world() -> Films:
    return Films()


@pytest.fixture(scope="module")
def folder(world: Films, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph, question files and a trained model."""
    folder = tmp_path_factory.mktemp("qa")
    world.graph.save(folder / "kb")
    write(folder / "train.txt", world.one_hop()[::2])
    write(folder / "more.txt", world.one_hop()[1::4])
    write(folder / "test.txt", world.one_hop()[3::4])
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, training(folder, "model", "--train", str(folder / "more.txt"), "--json"))
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    (folder / "train.json").write_text(result.stdout)
    return folder


def training(folder: Path, out: str, *more: str) -> list[str]:
    fixed = ["--hops", "1", "--dim", "32", "--batch-size", "16", "--learning-rate", "0.01", "--epochs", "8"]
    files = ["--graph", str(folder / "kb"), "--train", str(folder / "train.txt"), "--out", str(folder / out)]
    return ["qa", "train", *files, *fixed, "--threads", "1", *more]


def test_train_prints_one_json_object(folder: Path, world: Films) -> None:
    result = json.loads((folder / "train.json").read_text())
    both = len(world.one_hop()[::2]) + len(world.one_hop()[1::4])
    assert result["questions"] + result["valid_questions"] == both
    assert result["valid_questions"] == both // 10
    assert result["hits_at_1"] > 0.9
    assert result["path"] == str(folder / "model")
    files = sorted(path.name for path in (folder / "model").iterdir())
    assert files == ["checkpoint.json", "config.json", "model.safetensors", "vocabulary.json"]


def test_train_shows_progress_to_people(folder: Path) -> None:
    validation = ["--valid", str(folder / "test.txt"), "--seed", "5"]
    result = CliRunner().invoke(app, training(folder, "shown", *validation))
    assert result.exit_code == 0, result.output
    assert "questions to learn from" in result.output
    assert "epoch  1  loss" in result.output
    assert "Hits@1" in result.output
    assert f"Model: {folder / 'shown'}" in result.output


def test_eval_has_the_promised_keys(folder: Path, world: Films) -> None:
    asked = ["qa", "eval", "--model", str(folder / "model"), "--test", str(folder / "test.txt")]
    result = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert result["questions"] == len(world.one_hop()[3::4])
    assert 0.9 < result["hits_at_1"] <= 1
    assert 0 < result["f1"] <= 1
    assert result["questions_per_second"] > 0
    shown = CliRunner().invoke(app, [*asked, "--graph", str(folder / "kb")])
    assert shown.exit_code == 0, shown.output
    assert f"{100 * result['hits_at_1']:.2f}" in shown.output


def test_ask_answers_in_words(folder: Path, world: Films) -> None:
    film = world.films[0]
    asked = ["qa", "ask", "--model", str(folder / "model"), f"who directed [{film}]"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    path = f"{film} —directed_by→ {world.director[film]}"
    assert f"who directed [{film}]" in shown.output
    assert path in shown.output
    result = json.loads(CliRunner().invoke(app, [*asked, "--json", "-k", "1"]).stdout)
    (answer,) = result["answers"]
    assert answer["name"] == world.director[film]
    assert answer["path"] == [path]
    assert answer["paths"][0]["steps"][0]["relation"] == "directed_by"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["ask", "--model", "{}/model", "who directed [Film 999]"], "no entity is named 'Film 999'; near names:"),
        (["ask", "--model", "{}/nothing", "who directed [Film 1]"], "nothing: no model here"),
        (
            ["eval", "--model", "{}/model", "--test", "{}/bad.txt"],
            "bad.txt, line 1: expected `question with [entity] TAB",
        ),
        (["eval", "--model", "{}/model", "--test", "{}/unknown.txt"], "unknown.txt, line 1: "),
        (["eval", "--model", "{}/model", "--test", "{}/test.txt", "--graph", "{}/other"], "trained on another graph"),
    ],
)
def test_errors_are_one_line_without_a_traceback(
    folder: Path, change: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.txt").write_text("no tab [x]\n")
    (folder / "unknown.txt").write_text("who directed [Film 999]\tPerson 1\n")
    Films(seed=9).graph.save(folder / "other")
    assert message in error_of(capsys, "qa", *(part.replace("{}", str(folder)) for part in change))


def test_train_refuses_a_folder_in_use_and_resumes_a_finished_run(folder: Path) -> None:
    refused = CliRunner().invoke(app, training(folder, "model"))
    assert isinstance(refused.exception, ValueError)
    assert "must be empty" in str(refused.exception)
    more = ["--train", str(folder / "more.txt"), "--json", "--resume"]
    again = CliRunner().invoke(app, training(folder, "model", *more))
    assert json.loads(again.stdout) == json.loads((folder / "train.json").read_text())
