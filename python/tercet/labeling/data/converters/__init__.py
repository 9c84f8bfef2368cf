"""Real data sets as dialogues: one file each, which says what becomes of what."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tercet.labeling.data.converters import dstc2, sgd, slurp, stc3
from tercet.labeling.data.dialogues import Dialogue

# By name: from the data set's folder, or one of its files, to its dialogues.
CONVERTERS: dict[str, Callable[[Path], Iterator[Dialogue]]] = {
    "stc3": stc3.read_stc3,
    "sgd": sgd.read_sgd,
    "dstc2": dstc2.read_dstc2,
    "slurp": slurp.read_slurp,
}

__all__ = ["CONVERTERS"]
