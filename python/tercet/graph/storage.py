"""A knowledge graph as one safetensors file: memory-mapped, and fully checked when it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tercet.files import replaced
from tercet.graph.names import Names

FORMAT = "tercet.KnowledgeGraph"
VERSION = 1
_CHUNK = 16 << 20
_REBUILD = "build the graph again with `tercet graph build`"
_TENSORS = {"row_offsets": torch.int64, "relations": torch.int32, "objects": torch.int32}


def digest(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """A hash of named tensors' contents and some facts: BLAKE2b over chunks, hashed side by side."""
    jobs: list[memoryview] = []
    heading: list[str] = [repr(fact) for fact in facts]
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        heading.append(f"{name} {tensor.dtype} {list(tensor.shape)}")
        data: Any = tensor.view(-1).view(torch.uint8).numpy() if tensor.numel() else b""
        view = memoryview(data)
        jobs += (view[start : start + _CHUNK] for start in range(0, len(view), _CHUNK))
    whole = hashlib.blake2b("\n".join(heading).encode(), digest_size=16)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for part in pool.map(lambda chunk: hashlib.blake2b(chunk, digest_size=32).digest(), jobs):
            whole.update(part)
    return whole.hexdigest()


def identity(fields: Mapping[str, Any]) -> str:
    """The fingerprint: what a model depends on, that is edges, sizes and names; not attributes or edge ids."""
    tensors = {name: fields[name] for name in _TENSORS}
    for kind in ("entity_names", "relation_names"):
        names = fields[kind]
        if names is not None:
            tensors |= {f"{kind}.blob": names.blob, f"{kind}.offsets": names.offsets}
    return digest(tensors, fields["num_entities"], fields["num_relations"], fields["has_inverses"])


def save(fields: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the fields of a graph; the file appears whole or not at all."""
    tensors = {name: fields[name] for name in _TENSORS}
    rest: dict[str, Tensor] = {}
    if fields["edge_ids"] is not None:
        rest["edge_ids"] = fields["edge_ids"]
    rest |= {f"attributes.{name}": value for name, value in fields["attributes"].items()}
    for kind in ("entity_names", "relation_names"):
        names = fields[kind]
        if names is not None:
            tensors |= {f"{kind}.blob": names.blob, f"{kind}.offsets": names.offsets}
            rest[f"{kind}.slots"] = names.slots
            if names.following is not None:
                rest[f"{kind}.following"] = names.following
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "sizes": json.dumps([fields["num_entities"], fields["num_relations"], fields["has_inverses"]]),
        "fingerprint": fields["fingerprint"],
        "checksum": digest(rest),
    }
    with replaced(Path(path)) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in (tensors | rest).items()}, temporary, metadata
        )


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a graph, memory-mapped. ValueError names the file, what is wrong with it and the cure."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such graph file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_header(metadata, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path}: not a graph file, or cut short ({error}); {_REBUILD}") from error
    try:
        return _fields(tensors, metadata)
    except _Fault as fault:
        raise ValueError(f"{path}: {fault}; {_REBUILD}") from fault


class _Fault(Exception):
    """What is wrong with a file's contents."""


def _check_header(metadata: Mapping[str, str], path: Path) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: not a graph file of tercet (a foreign safetensors file); {_REBUILD}")
    version = metadata.get("version")
    if version != str(VERSION):
        raise ValueError(
            f"{path}: graph format version {version}, this tercet reads version {VERSION}; install the tercet that"
            f" wrote it, or {_REBUILD}"
        )


def _fields(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        num_entities, num_relations, has_inverses = json.loads(metadata["sizes"])
        fingerprint, checksum = metadata["fingerprint"], metadata["checksum"]
    except (KeyError, ValueError, TypeError) as error:
        raise _Fault("its header lacks sizes, fingerprint or checksum") from error
    if not (type(num_entities) is int and type(num_relations) is int and type(has_inverses) is bool):
        raise _Fault(f"its sizes must be two integers and a truth value, got {metadata['sizes']}")
    fields: dict[str, Any] = {
        "num_entities": num_entities,
        "num_relations": num_relations,
        "has_inverses": has_inverses,
    }
    rest = {name: tensors[name] for name in tensors if name == "edge_ids" or name.startswith("attributes.")}
    for name, dtype in _TENSORS.items():
        if name not in tensors or tensors[name].dtype != dtype:
            raise _Fault(f"it must hold {name} of {dtype}")
        fields[name] = tensors[name]
    fields["edge_ids"] = tensors.get("edge_ids")
    prefix = "attributes."
    fields["attributes"] = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for kind in ("entity_names", "relation_names"):
        blob, offsets, slots = (tensors.get(f"{kind}.{part}") for part in ("blob", "offsets", "slots"))
        fields[kind] = None
        if blob is not None and offsets is not None and slots is not None:
            fields[kind] = Names(blob, offsets, slots, tensors.get(f"{kind}.following"))
        elif blob is not None or offsets is not None or slots is not None:
            raise _Fault(f"its {kind} lack a part")
        rest |= {n: t for n, t in tensors.items() if n in (f"{kind}.slots", f"{kind}.following")}
    if identity(fields) != fingerprint or digest(rest) != checksum:
        raise _Fault("its contents do not fit its fingerprint: it was changed or damaged")
    fields["fingerprint"] = fingerprint
    return fields
