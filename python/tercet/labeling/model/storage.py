"""Model directories of label models: config.json, model.safetensors, calibration.safetensors, and the configuration and
tokenizer of a Hugging Face encoder in encoder/; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from tercet.checkpoints import read_config
from tercet.files import read_tensors, write_json, write_tensors
from tercet.graph.storage import digest
from tercet.labeling.model.features import Vocabulary
from tercet.labeling.model.heads import Tasks
from tercet.labeling.model.label_model import Facts, LabelModel
from tercet.labeling.model.predictions import Classes
from tercet.labeling.settings import ModelSettings
from tercet.labeling.trust.calibrating import Calibration, Judged

FORMAT, VERSION = "tercet.labeling.LabelModel", 3
CONFIG, WEIGHTS, CALIBRATION, ENCODER = "config.json", "model.safetensors", "calibration.safetensors", "encoder"
_JUDGED = ("confidence", "correct", "dialogues")


def save_model(
    folder: str | PathLike[str], model: LabelModel, calibration: Calibration, facts: Mapping[str, Any]
) -> None:
    """Write a model directory; config.json comes last and says which weights it belongs to."""
    folder, tensors = Path(folder), model.state_dict()
    write_tensors(folder / WEIGHTS, tensors)
    judged = {
        f"{kind}.{name}": value
        for kind, each in calibration.kinds.items()
        for name in (*_JUDGED, "support")
        if (value := getattr(each, name)) is not None
    }
    write_tensors(folder / CALIBRATION, judged)
    if model.settings.encoder is not None:
        model.save_encoder(folder / ENCODER)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "model": asdict(model.settings),
        "facts": asdict(model.facts),
        "temperatures": {kind: each.temperature for kind, each in calibration.kinds.items()},
        "weights": digest(tensors),
    }
    write_json(folder / CONFIG, {**config, **facts})


def load_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """A model directory's configuration.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    return read_config(Path(folder) / CONFIG, FORMAT, VERSION)


def load_model(folder: str | PathLike[str]) -> tuple[LabelModel, Calibration]:
    """The model of a directory, in evaluation mode, and the calibration of its confidence.

    Raises:
        FileNotFoundError: there is none. ValueError: its files are broken or do not belong together. ImportError: its
            encoder needs transformers.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors, judged = read_tensors(folder / WEIGHTS), read_tensors(folder / CALIBRATION)
    if config.get("weights") != digest(tensors):
        raise ValueError(f"{folder}: its files do not belong together: {CONFIG} is of other weights than {WEIGHTS}")
    try:
        settings = ModelSettings(**config["model"])
        own = None if settings.encoder is None else folder / ENCODER
        with torch.random.fork_rng(devices=[]):
            model = LabelModel(settings, _facts(config["facts"]), own)
        model.load_state_dict(tensors)
        kinds = {
            kind: Judged(
                **{name: judged[f"{kind}.{name}"] for name in _JUDGED},
                temperature=temperature,
                support=judged.get(f"{kind}.support"),
            )
            for kind, temperature in config["temperatures"].items()
        }
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: its files do not belong together: {error}") from error
    return model.eval(), Calibration(kinds)


def _facts(found: Mapping[str, Any]) -> Facts:
    """Lists of JSON as tuples."""
    tasks, vocabulary = found["tasks"], found["vocabulary"]
    classes = Classes(**{task: tuple(names) for task, names in tasks["classes"].items()})
    return Facts(
        Tasks(tuple(tasks["parts"]), classes, tuple(tasks["edits"]),
              {task: tuple(found) for task, found in tasks["speakers"].items()}),
        Vocabulary(
            tuple(vocabulary["names"]), tuple(vocabulary["numbers"]), tuple(map(tuple, vocabulary["edges"])),
            tuple(vocabulary["texts"]), vocabulary["sound"],
        ),
        tuple(found["words"]), found["whole_features"], found["turn_features"],
    )  # fmt: skip
