"""Model directories: JSON and safetensors, never pickle.

A model directory holds config.json, model.safetensors and what its encoder needs (vocabulary.json, or encoder/). While
it is trained it holds a checkpoint too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tercet.answering.encoder import load_encoder
from tercet.answering.model import AnswerModel
from tercet.checkpoints import read_config
from tercet.files import read_tensors, write_json, write_tensors
from tercet.graph.knowledge_graph import KnowledgeGraph

_FORMAT, _VERSION = "tercet.answering", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


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
    write_json(folder / CONFIG, {**own, **config})


def load_config(folder: Path) -> dict[str, Any]:
    """A model directory's configuration.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    return read_config(Path(folder) / CONFIG, _FORMAT, _VERSION)


def load_model(folder: Path, device: torch.device) -> tuple[AnswerModel, dict[str, Any]]:
    """The model in `folder`, ready to answer, and its configuration.

    Raises:
        FileNotFoundError, ValueError: there is no model, or its files do not belong together.
    """
    config = load_config(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # modules are made with drawn values
            encoder = load_encoder(config["encoder"], folder)
            model = AnswerModel(
                encoder, config["num_relations"], config["hops"], dim=config["dim"], exclude_seed=config["exclude_seed"]
            )
        model.load_state_dict(read_tensors(folder / WEIGHTS))
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
