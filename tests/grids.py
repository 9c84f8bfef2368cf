"""A generated graph that a translation describes exactly: points of a grid, relations that step from one to another."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tercet.graph.splits import Splits
from tercet.graph.vocabulary import Vocabulary

STEPS = {"right": (1, 0), "up": (0, 1), "diagonal": (1, 1), "knight": (2, 1), "back": (-1, 0)}


def grid(side: int = 9, seed: int = 0) -> Splits:
    """Every step within the grid, an eighth of them held out for valid and test each."""
    triples = [
        (x * side + y, relation, (x + dx) * side + y + dy)
        for relation, (dx, dy) in enumerate(STEPS.values())
        for x in range(side)
        for y in range(side)
        if 0 <= x + dx < side and 0 <= y + dy < side
    ]
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(seed))
    shuffled = torch.tensor(triples)[order]
    valid, test, train = shuffled.tensor_split([len(triples) // 8, len(triples) // 4])
    names = Vocabulary.from_strings([f"point {x} {y}" for x in range(side) for y in range(side)], STEPS)
    return Splits(train, valid, test, names)


def write(folder: Path, splits: Splits) -> None:
    """The splits as a directory."""
    folder.mkdir()
    for split in ("train", "valid", "test"):
        write_triples(folder / f"{split}.txt", getattr(splits, split), splits.vocabulary)


def write_triples(path: Path, triples: Tensor, names: Vocabulary) -> None:
    """One split as a file."""
    rows = [(names.entities[h], names.relations[r], names.entities[t]) for h, r, t in triples.tolist()]
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
