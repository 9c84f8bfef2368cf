"""Checkpoints of a run of training in the directory of its model: JSON and safetensors, never pickle.

checkpoint.json names the safetensors file that belongs to it and is renamed into place last, so a kill at any moment,
or a full disk, leaves the checkpoint before or the one after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from tercet.files import read_json, read_tensors, write_json, write_tensors

CHECKPOINT = "checkpoint.json"


@dataclass
class Checkpoint:
    """A run between two epochs: `state` is plain JSON, `tensors` the rest."""

    state: dict[str, Any]
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; then remove the one before."""
    name = f"checkpoint-{checkpoint.state['epoch']:04d}.safetensors"
    write_tensors(folder / name, checkpoint.tensors)
    write_json(folder / CHECKPOINT, {**checkpoint.state, "tensors": name})
    for other in folder.glob("checkpoint-*.safetensors"):
        if other.name != name:
            other.unlink()


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, without tensors where its run has finished; None where there is none.

    Raises:
        ValueError: its files are broken.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = read_json(path)
    if state.get("finished"):
        return Checkpoint(state, {})
    return Checkpoint(state, read_tensors(folder / str(state.get("tensors"))))


def finish_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Mark the run as finished and remove its tensors: the model's own file holds the best ones."""
    write_json(folder / CHECKPOINT, {**state, "finished": True})
    for leftover in (*folder.glob("checkpoint-*.safetensors"), *folder.glob(".*.partial")):
        leftover.unlink()


def under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors called `name.KEY`, by KEY."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def optimizer_tensors(optimizer: Optimizer, name: str) -> dict[str, Tensor]:
    """The state of an optimizer as tensors called `name.NUMBER.KEY`, a number for each parameter; not copied."""
    states = optimizer.state_dict()["state"]
    return {f"{name}.{number}.{key}": value for number, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], name: str) -> None:
    """Give an optimizer back what `optimizer_tensors` took; copied, for it changes them in place."""
    states: dict[int, dict[str, Tensor]] = {}
    for path, value in under(tensors, name).items():
        number, key = path.split(".")
        states.setdefault(int(number), {})[key] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def open_run(folder: Path, *, resume: bool) -> Checkpoint | None:
    """What to go on from, where `resume` and there is something; nothing is written.

    Raises:
        ValueError: the folder holds anything else, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: the model directory must be a directory")
    checkpoint = load_checkpoint(folder) if resume else None
    # What a kill before the first checkpoint leaves behind is no reason to refuse.
    files = [path for path in folder.iterdir() if not path.match("*.partial")] if folder.exists() else []
    if checkpoint is None and any(not (resume and path.match("checkpoint-*.safetensors")) for path in files):
        advice = "it holds no checkpoint to resume" if resume else "to go on with its run, resume (--resume)"
        raise ValueError(f"{folder}: the model directory must be empty; {advice}")
    return checkpoint


def check_same(folder: Path, before: dict[str, Any], own: dict[str, Any]) -> None:
    """Raises ValueError where the run of a checkpoint differs from the run that would resume it."""
    for name, value in own.items():
        if before.get(name) != value:
            raise ValueError(f"{folder}: its run has {name} = {before.get(name)!r}, so --resume cannot use {value!r}")


def read_config(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The configuration of a finished model directory, from its file.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    if not path.exists():
        hint = "its training has not finished; go on with --resume" if (path.parent / CHECKPOINT).exists() else ""
        raise FileNotFoundError(f"{path.parent}: no model here ({hint or f'there is no {path.name}'})")
    config = read_json(path)
    if config.get("format") != kind:
        raise ValueError(f"{path}: expected a {kind} model, got format {config.get('format')!r}")
    found = config.get("version")
    if found != version:
        cure = "train the model again" if isinstance(found, int) and found < version else "update tercet"
        raise ValueError(f"{path}: expected version {version}, got {found!r}; {cure}")
    return config
