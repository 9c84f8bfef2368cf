"""Model directories of recognisers: config.json and model.safetensors; never pickle."""

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
from tercet.speech.model import DigitRecognizer
from tercet.speech.settings import ModelSettings

FORMAT, VERSION = "tercet.speech.DigitRecognizer", 3
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_model(folder: str | PathLike[str], model: DigitRecognizer, facts: Mapping[str, Any]) -> None:
    """Write a model directory; config.json comes last and says which weights it belongs to."""
    folder, tensors = Path(folder), model.state_dict()
    write_tensors(folder / WEIGHTS, tensors)
    config = {"format": FORMAT, "version": VERSION, "model": asdict(model.settings), "weights": digest(tensors)}
    write_json(folder / CONFIG, {**config, **facts})


def load_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """A model directory's configuration.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    return read_config(Path(folder) / CONFIG, FORMAT, VERSION)


def load_model(folder: str | PathLike[str]) -> DigitRecognizer:
    """The recogniser of a model directory, in evaluation mode.

    Raises:
        FileNotFoundError: there is none. ValueError: its files are broken or do not belong together.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    if config.get("weights") != digest(tensors):
        raise ValueError(f"{folder}: its files do not belong together: {CONFIG} is of other weights than {WEIGHTS}")
    try:
        with torch.random.fork_rng(devices=[]):  # modules are made with drawn values
            model = DigitRecognizer(ModelSettings(**config["model"]))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: its files do not belong together: {error}") from error
    return model.eval()
