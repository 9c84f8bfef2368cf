"""Runs that break: killed between or within writes, or on a full disk; what is resumed ends bit for bit the same."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grids import grid
from tercet.embedding import Reporter, TrainingResult, TrainingSettings, TransE, train
from tercet.graph.splits import Splits

TINY = TrainingSettings(
    norm="l2",
    dim=8,
    epochs=7,
    batch_size=10,
    num_negatives=4,
    optimizer="adagrad",
    learning_rate=0.3,
    valid_every=2,
    patience=9,
    sampling="uniform",
    filter_negatives=False,
    loss="softmax",
    schedule="constant",
)
CHANGES = [
    {"optimizer": "adam", "learning_rate": 0.02, "schedule": "linear", "filter_negatives": True},
    {"optimizer": "sgd", "sampling": "bernoulli", "loss": "margin"},
    {"sampling": "shared", "inverses": True, "norm": "l1", "dtype": "float64"},
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> Splits:
    return grid()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checkpoint.json"}


def timeless(result: TrainingResult) -> list[object]:
    return [replace(epoch, seconds=0.0, valid_seconds=0.0) for epoch in result.epochs]


class Killed(Exception):
    """Stands for a kill."""


class KillIn(Reporter):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        if epoch == self.epoch:
            raise Killed


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(next(iter(change.values()))))
@pytest.mark.parametrize("epoch", [1, 3, 6, 7])
def test_a_broken_run_resumes_bit_for_bit(world: Splits, tmp_path: Path, epoch: int, change: dict[str, object]) -> None:
    settings = replace(TINY, **change)
    unbroken = train(world, settings, out=tmp_path / "unbroken")
    with pytest.raises(Killed):
        train(world, settings, out=tmp_path / "broken", reporter=KillIn(epoch))
    resumed = train(world, settings, out=tmp_path / "broken", resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")
    assert timeless(resumed) == timeless(unbroken)
    again = train(world, settings, out=tmp_path / "broken", resume=True)
    assert timeless(again) == timeless(resumed)
    assert again.valid == resumed.valid
    assert torch.equal(again.model.entities, resumed.model.entities)


def test_early_stopping_is_resumed_with_its_patience(world: Splits, tmp_path: Path) -> None:
    settings = replace(TINY, learning_rate=2.0, epochs=60, valid_every=1, patience=3)
    unbroken = train(world, settings, out=tmp_path / "unbroken")
    stopped = len(unbroken.epochs)
    assert stopped < 60
    with pytest.raises(Killed):
        train(world, settings, out=tmp_path / "broken", reporter=KillIn(stopped - 1))
    assert timeless(train(world, settings, out=tmp_path / "broken", resume=True)) == timeless(unbroken)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


# Every checkpoint is two files, and a finished run three more and the last checkpoint.json: with validations after
# epochs 2, 4, 6 and 7, the rename that is killed is one of twelve.
KILLED_IN_A_RENAME = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from grids import grid
from test_checkpoints import TINY
from tercet.embedding import train
left, rename = int(sys.argv[1]), Path.replace
def replaced(self, target):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.replace = replaced
train(grid(), TINY, out=sys.argv[2], num_threads=1)
"""


@pytest.mark.parametrize("rename", [1, 2, 5, 6, 10, 11, 12])
def test_a_kill_while_writing_leaves_something_to_resume(world: Splits, tmp_path: Path, rename: int) -> None:
    tests = Path(__file__).parent
    code = KILLED_IN_A_RENAME.format(tests=str(tests))
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(rename), str(tmp_path / "broken")],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list((tmp_path / "broken").glob(".*.partial"))
    assert len(left) == 1, "the kill came before the rename"
    if rename < 12:
        with pytest.raises(FileNotFoundError, match="no model here"):
            TransE.load(tmp_path / "broken")
    train(world, TINY, out=tmp_path / "unbroken")
    train(world, TINY, out=tmp_path / "broken", resume=True)
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


@pytest.mark.parametrize("write", [1, 2, 3, 4, 8, 9, 11, 12])
def test_on_a_full_disk_the_checkpoint_before_survives(
    world: Splits, tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, left = Path.write_bytes, write

    def full(self: Path, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            whole(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return whole(self, data)

    folder = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left on device"):
            train(world, TINY, out=folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert not [name for name in before if name.endswith(".partial")]
        assert ("checkpoint.json" in before) is (write > 2)
        if write < 12:  # still full: nothing changes
            with pytest.raises(OSError, match="No space left on device"):
                train(world, TINY, out=folder, resume=True)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    train(world, TINY, out=tmp_path / "unbroken")
    train(world, TINY, out=folder, resume=True)
    assert contents(folder) == contents(tmp_path / "unbroken")


def test_resume_refuses_another_run(world: Splits, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(Killed):
        train(world, TINY, out=folder, reporter=KillIn(3))
    with pytest.raises(ValueError, match=r"m: its run has dim = 8, so --resume cannot use 9"):
        train(world, replace(TINY, dim=9), out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has data = "):
        train(replace(world, train=world.train[1:]), TINY, out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has data = "):
        train(grid(10), TINY, out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: its run has valid = "):
        train(replace(world, valid=world.valid[1:]), TINY, out=folder, resume=True)
    with pytest.raises(ValueError, match=r"m: the model directory must be empty; to go on with its run, resume"):
        train(world, TINY, out=folder)
    with pytest.raises(FileNotFoundError, match="its training has not finished; go on with --resume"):
        TransE.load(folder)


def test_resume_refuses_a_folder_that_is_no_run(world: Splits, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be empty; it holds no checkpoint to resume"):
        train(world, TINY, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="must be a directory"):
        train(world, TINY, out=tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("file", ["checkpoint.json", "checkpoint-0002.safetensors"])
def test_a_broken_checkpoint_is_named(world: Splits, tmp_path: Path, file: str) -> None:
    with pytest.raises(Killed):
        train(world, TINY, out=tmp_path, reporter=KillIn(3))
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{file}: expected"):
        train(world, TINY, out=tmp_path, resume=True)
