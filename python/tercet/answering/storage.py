"""Model directories and checkpoints: JSON and safetensors, never pickle.

A model directory holds config.json, model.safetensors and what its encoder needs (vocabulary.json, or encoder/). While
it is trained it holds checkpoint.json too, which names the safetensors file that belongs to it: the JSON is renamed
into place last, so a kill at any moment leaves the checkpoint before or the one after.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tercet.answering.encoder import load_encoder
from tercet.answering.files import write_tensors, write_text
from tercet.answering.model import AnswerModel
from tercet.graph.knowledge_graph import KnowledgeGraph

_FORMAT, _VERSION = "tercet.answering", 1
CONFIG, WEIGHTS, CHECKPOINT = "config.json", "model.safetensors", "checkpoint.json"


@dataclass
class Checkpoint:
    """A run between two epochs: `state` is plain JSON, `tensors` the rest."""

    state: dict[str, Any]
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; then remove the one before."""
    name = f"checkpoint-{checkpoint.state['epoch']:04d}.safetensors"
    write_tensors(folder / name, checkpoint.tensors)
    write_text(folder / CHECKPOINT, json.dumps({**checkpoint.state, "tensors": name}, indent=1, ensure_ascii=False))
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
    state = _read_json(path)
    if state.get("finished"):
        return Checkpoint(state, {})
    return Checkpoint(state, _read_tensors(folder / str(state.get("tensors"))))


def finish_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Mark the run as finished and remove its tensors: the model's own file holds the best ones."""
    write_text(folder / CHECKPOINT, json.dumps({**state, "finished": True}, indent=1, ensure_ascii=False))
    for leftover in (*folder.glob("checkpoint-*.safetensors"), *folder.glob(".*.partial")):
        leftover.unlink()


def save_model(folder: Path, model: AnswerModel, config: dict[str, Any]) -> None:
    """Write a model directory; `config` adds to what the model says of itself. config.json comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = model.encoder.save(folder)
    write_tensors(folder / WEIGHTS, model.state_dict())
    own = {
        "format": _FORMAT,
        "version": _VERSION,
        "hops": model.num_hops,
        "num_relations": model.num_relations,
        "dim": model.dim,
        "exclude_seed": model.exclude_seed,
        "encoder": encoder,
    }
    write_text(folder / CONFIG, json.dumps({**own, **config}, indent=1, ensure_ascii=False))


def load_config(folder: Path) -> dict[str, Any]:
    """A model directory's configuration.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    path = folder / CONFIG
    if not path.exists():
        hint = "its training has not finished; go on with --resume" if (folder / CHECKPOINT).exists() else ""
        raise FileNotFoundError(f"{folder}: no model here ({hint or f'there is no {CONFIG}'})")
    config = _read_json(path)
    if config.get("format") != _FORMAT:
        raise ValueError(f"{path}: expected a {_FORMAT} model, got format {config.get('format')!r}")
    if config.get("version") != _VERSION:
        raise ValueError(f"{path}: expected version {_VERSION}, got {config.get('version')!r}; update tercet")
    return config


def load_model(folder: Path, device: torch.device) -> tuple[AnswerModel, dict[str, Any]]:
    """The model in `folder`, ready to answer, and its configuration.

    Raises:
        FileNotFoundError, ValueError: there is no model, or its files do not belong together.
    """
    config = load_config(folder)
    try:
        encoder = load_encoder(config["encoder"], folder)
        model = AnswerModel(
            encoder, config["num_relations"], config["hops"], dim=config["dim"], exclude_seed=config["exclude_seed"]
        )
        model.load_state_dict(_read_tensors(folder / WEIGHTS))
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{folder}: {CONFIG} and {WEIGHTS} do not belong together: {error}") from error
    return model.to(device).eval(), config


def check_graph(config: dict[str, Any], graph: KnowledgeGraph, folder: Path) -> None:
    """Raises ValueError if `graph`, inverses included, is another than the model's."""
    wanted, got = config["graph"]["fingerprint"], graph.fingerprint
    if wanted != got:
        raise ValueError(
            f"{folder}: the model was trained on another graph: its fingerprint is {wanted}, got a graph with {got};"
            f" its graph was {config['graph'].get('path') or 'built in memory'}"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected a safetensors file: {error}") from error
    return tensors
