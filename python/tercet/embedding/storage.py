"""Model directories of embeddings: config.json, model.safetensors, vocabulary.safetensors; never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from tercet.checkpoints import read_config
from tercet.files import read_tensors, write_json, write_tensors
from tercet.graph.splits import Splits
from tercet.graph.vocabulary import Vocabulary

FORMAT, VERSION = "tercet.embedding.TransE", 1
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.safetensors"


def save_model(
    folder: str | PathLike[str], entities: Tensor, relations: Tensor, vocabulary: Vocabulary | None,
    config: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a model directory; config.json comes last."""
    folder = Path(folder)
    write_tensors(folder / WEIGHTS, {"entities": entities, "relations": relations})
    if vocabulary is not None:
        write_tensors(folder / VOCABULARY, vocabulary.tensors())
    own = {
        "format": FORMAT,
        "version": VERSION,
        "num_entities": len(entities),
        "num_relations": len(relations),
        "dim": entities.shape[1],
        "vocabulary": None if vocabulary is None else vocabulary.fingerprint,
    }
    write_json(folder / CONFIG, {**own, **config})


def load_config(folder: str | PathLike[str]) -> dict[str, Any]:
    """A model directory's configuration.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not of this kind, or of a version this tercet does not know.
    """
    return read_config(Path(folder) / CONFIG, FORMAT, VERSION)


def load_model(folder: str | PathLike[str]) -> tuple[Tensor, Tensor, Vocabulary | None, dict[str, Any]]:
    """(entities, relations, names, configuration) of a model directory.

    Raises:
        FileNotFoundError: there is none. ValueError: its files are broken or do not belong together.
    """
    folder = Path(folder)
    config = load_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        entities, relations = tensors["entities"], tensors["relations"]
        wanted = [config["num_entities"], config["dim"]], [config["num_relations"], config["dim"]]
        if (list(entities.shape), list(relations.shape)) != wanted:
            raise ValueError(f"tables must be {wanted}, got {list(entities.shape)} and {list(relations.shape)}")
        vocabulary = None
        if config["vocabulary"] is not None:
            vocabulary = Vocabulary.from_tensors(read_tensors(folder / VOCABULARY))
            if vocabulary.fingerprint != config["vocabulary"]:
                raise ValueError(f"the names of {VOCABULARY} are of another model")
        if not {"norm", "inverses"} <= config.keys():
            raise KeyError("norm and inverses")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder}: its files do not belong together: {error}") from error
    return entities, relations, vocabulary, config


def check_vocabulary(folder: str | PathLike[str], vocabulary: Vocabulary | None, splits: Splits) -> None:
    """Raises ValueError where the entities and relations of data are others than a model's."""
    if vocabulary is None:
        raise ValueError(f"{folder}: the model has no names, so its ids cannot be told from those of data")
    if vocabulary.fingerprint != splits.vocabulary.fingerprint:
        raise ValueError(
            f"{folder}: the model is of other data: it names {len(vocabulary.entities)} entities and"
            f" {len(vocabulary.relations)} relations, fingerprint {vocabulary.fingerprint}; the data names"
            f" {splits.num_entities} and {splits.num_relations}, fingerprint {splits.vocabulary.fingerprint}"
        )


def check_data(folder: str | PathLike[str], config: Mapping[str, Any], splits: Splits) -> None:
    """Raises ValueError where the training triples of data are others than a model's."""
    if "data" in config and config["data"] != splits.fingerprint:
        raise ValueError(
            f"{folder}: the model was trained on other triples: the fingerprint of its data is {config['data']}, got"
            f" {splits.fingerprint}"
        )
