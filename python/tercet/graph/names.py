"""Names: the names of entities or relations as one UTF-8 blob with a native hash table."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise

import torch
from torch import Tensor

from tercet.ops import _native

LIMIT = 2**31 - 1
_MOST_COMPARED = 2_000_000  # names that `near` reads, so that a suggestion never takes long
_MOST_MATCHED = 20_000  # names that difflib compares: it is a hundred times slower than rapidfuzz
_FAULTS = {
    1: "offsets must rise from 0 to the size of the text; position {} does not",
    2: "name {} is not UTF-8",
    3: "slot {} of the hash table holds no id of a name",
    4: "the hash table does not lead to name {}",
    5: "the chain of ids that share a name is broken at {}",
}


class Names(Sequence[str]):
    """The name of each id; several ids may share one. Immutable.

    Attributes:
        blob: uint8, the names in the order of their ids, in UTF-8.
        offsets: int64 [num_names + 1]: name i is blob[offsets[i]:offsets[i + 1]].
        slots: int64 [a power of two], an open-addressing hash table; see csrc/names.h.
        following: int32 [num_names], the next id of the same name or -1; None when all names differ.

    Example:
        >>> names = Names.from_strings(["Rome", "Paris", "Rome"])
        >>> names[1], names.find("Rome"), names.find("Oslo")
        ('Paris', [0, 2], [])
    """

    __slots__ = ("blob", "following", "offsets", "slots")

    def __init__(self, blob: Tensor, offsets: Tensor, slots: Tensor, following: Tensor | None) -> None:
        self.blob, self.offsets, self.slots, self.following = blob, offsets, slots, following

    @classmethod
    def from_strings(cls, names: Iterable[str], *, op: str = "Names", argument: str = "names") -> Names:
        """The names in the order of their ids. TypeError and ValueError name the one that is no text."""
        encoded: list[bytes] = []
        for position, name in enumerate(names):
            if not isinstance(name, str):
                raise TypeError(
                    f"tercet.{op}: {argument} must hold str, got {type(name).__name__} at position {position}"
                )
            try:
                encoded.append(name.encode())
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"tercet.{op}: {argument} must be valid Unicode, got {name!r} at position {position}"
                ) from error
        if len(encoded) >= LIMIT:
            raise ValueError(f"tercet.{op}: {argument} must be fewer than 2^31 - 1, got {len(encoded)}")
        offsets = torch.tensor(list(accumulate(map(len, encoded), initial=0)), dtype=torch.int64)
        blob = bytes_tensor(b"".join(encoded))
        slots = torch.empty(slots_for(len(encoded)), dtype=torch.int64)
        following = torch.empty(len(encoded), dtype=torch.int32)
        table = cls(blob, offsets, slots, None)
        args, _keep = table._args()
        distinct = _native.cpu.names_build(args, _native.pointer(following))
        return cls(blob, offsets, slots, following if distinct < len(encoded) else None)

    def _args(self) -> tuple[tuple[int, ...], Tensor]:
        """The table as native functions take it, and a tensor to keep alive through the call."""
        size = torch.tensor([len(self)])
        pointers = tuple(map(_native.pointer, (self.blob, self.offsets, self.slots)))
        return (*pointers, len(self.blob), len(self), len(self.slots), _native.pointer(size)), size

    def __len__(self) -> int:
        return max(len(self.offsets) - 1, 0)

    def __getitem__(self, index: int | slice) -> str | list[str]:  # type: ignore[override]
        if isinstance(index, slice):
            return [self.name(i) for i in range(*index.indices(len(self)))]
        return self.name(index)

    def name(self, index: int) -> str:
        """The name of an id."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"tercet.Names: {index} of {len(self)} names")
        start, stop = self.offsets[index % len(self) :][:2].tolist()
        return bytes(self.blob[start:stop].numpy()).decode()

    def __iter__(self) -> Iterator[str]:
        text = memoryview(self.blob.numpy())  # type: ignore[arg-type]
        for block in range(0, len(self), 65536):
            offsets = self.offsets[block : block + 65537].tolist()
            for start, stop in pairwise(offsets):
                yield str(text[start:stop], "utf-8")

    def find(self, name: str) -> list[int]:
        """Every id of that name, ascending; empty when there is none."""
        try:
            text = bytes_tensor(name.encode())
        except UnicodeEncodeError:
            return []
        args, _keep = self._args()
        found = _native.cpu.names_find(args, _native.pointer(text), len(text))
        ids = []
        while found >= 0:
            ids.append(found)
            found = int(self.following[found]) if self.following is not None else -1
        return ids

    def near(self, name: str, limit: int = 3) -> list[str]:
        """Names like `name`, nearest first: those equal but for case, else the most alike."""
        wanted = name.casefold()
        names = list(islice(self, _MOST_COMPARED))
        same = list(dict.fromkeys(other for other in names if other.casefold() == wanted))
        if same:
            return same[:limit]
        try:
            from rapidfuzz import fuzz, process
        except ImportError:
            alike = [n for n in names if n[:1].casefold() == wanted[:1] and abs(len(n) - len(name)) <= 4]
            folded = {n.casefold(): n for n in alike[:_MOST_MATCHED]}
            return [folded[match] for match in difflib.get_close_matches(wanted, folded, n=limit)]
        found = process.extract(
            wanted, names, scorer=fuzz.ratio, processor=str.casefold, limit=4 * limit, score_cutoff=60
        )
        return list(dict.fromkeys(match for match, _, _ in found))[:limit]

    def fault(self) -> str | None:
        """What is wrong with names that came from a file, in words; None when nothing is."""
        tensors = {"blob": (self.blob, torch.uint8), "offsets": (self.offsets, torch.int64)}
        tensors["slots"] = self.slots, torch.int64
        if self.following is not None:
            tensors["following"] = self.following, torch.int32
        for label, (tensor, dtype) in tensors.items():
            if tensor.dtype != dtype or tensor.ndim != 1:
                return f"{label} must be {dtype} of one dimension, got {tensor.dtype} {list(tensor.shape)}"
        size, capacity = len(self.offsets) - 1, len(self.slots)
        if size < 0 or size >= LIMIT:
            return f"offsets must hold 1 to 2^31 - 1 entries, got {len(self.offsets)}"
        if capacity < 1 or capacity & (capacity - 1) or capacity > 2**32:
            return f"slots must be a power of two, got {capacity}"
        if self.following is not None and len(self.following) != size:
            return f"following must have one entry for each of {size} names, got {len(self.following)}"
        args, _keep = self._args()
        code, position = _native.cpu.names_check(args, len(self.blob), _native.pointer(self.following))
        return _FAULTS[code].format(position) if code else None

    def __repr__(self) -> str:
        shown = ", ".join(repr(name) for name in self[:3])
        return f"Names({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"


class NameBuilder:
    """A name table that grows: the arrays that native readers append to."""

    def __init__(self) -> None:
        self.blob = torch.empty(1 << 16, dtype=torch.uint8)
        self.offsets = torch.zeros((1 << 12) + 1, dtype=torch.int64)
        self.slots = torch.full((1 << 13,), -1, dtype=torch.int64)
        self.size = torch.zeros(1, dtype=torch.int64)

    def args(self) -> tuple[int, ...]:
        """The table as native functions take it."""
        pointers = tuple(map(_native.pointer, (self.blob, self.offsets, self.slots)))
        return (*pointers, len(self.blob), len(self.offsets) - 1, len(self.slots), _native.pointer(self.size))

    def grow(self, needed: int) -> None:
        """Room for at least one more name of `needed` bytes; doubles whatever is short of it."""
        size = int(self.size)
        if size + 1 >= LIMIT:
            raise ValueError("tercet: there are more than 2^31 - 2 different names")
        used = int(self.offsets[size])
        if used + needed > len(self.blob):
            self.blob = grown(self.blob, used, max(2 * len(self.blob), used + needed))
        if size + 1 >= len(self.offsets):
            self.offsets = grown(self.offsets, size + 1, 2 * len(self.offsets))
        if 3 * (size + 1) > 2 * len(self.slots):
            old, self.slots = self.slots, torch.empty(2 * len(self.slots), dtype=torch.int64)
            pointers = _native.pointer(old), len(old), _native.pointer(self.slots), len(self.slots)
            _native.cpu.names_rehash(*pointers)

    def finish(self) -> Names:
        """The names so far."""
        size = int(self.size)
        return Names(self.blob[: int(self.offsets[size])], self.offsets[: size + 1], self.slots, None)


def grown(tensor: Tensor, used: int, size: int) -> Tensor:
    """A longer tensor that begins with the first `used` entries of this one."""
    new = torch.empty(size, dtype=tensor.dtype)
    new[:used] = tensor[:used]
    return new


def bytes_tensor(data: bytes) -> Tensor:
    """Bytes as uint8."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def slots_for(num_names: int) -> int:
    """The size of a table at most two thirds full, at least 2."""
    return max(2, 1 << (3 * num_names // 2).bit_length())


def names_for(op: str, argument: str, names: Names | Iterable[str] | None, size: int) -> Names | None:
    """The names of `size` ids, checked; None stays None."""
    if names is None:
        return None
    if isinstance(names, str):
        raise TypeError(f"tercet.{op}: {argument} must hold one str for each id, got one str")
    table = names if isinstance(names, Names) else Names.from_strings(names, op=op, argument=argument)
    if len(table) != size:
        raise ValueError(f"tercet.{op}: {argument} must have one name for each of {size} ids, got {len(table)}")
    return table


def name_of(op: str, kind: str, names: Names | None, index: int, size: int) -> str:
    """The name of a checked id, its digits where there are no names."""
    if not 0 <= index < size:
        raise ValueError(f"tercet.{op}: {kind} must be in 0..{size - 1}, got {index}")
    return str(index) if names is None else names.name(index)


def ids_of(op: str, kind: str, names: Names | None, name: str) -> list[int]:
    """Every id of a name, at least one; ValueError suggests near names."""
    if not isinstance(name, str):
        raise TypeError(f"tercet.{op}: name must be a str, got {type(name).__name__}")
    if names is None:
        raise ValueError(f"tercet.{op}: the graph has no {kind} names; use ids")
    ids = names.find(name)
    if not ids:
        near = names.near(name)
        hint = f"; near names: {', '.join(map(repr, near))}" if near else "; no name is near"
        raise ValueError(f"tercet.{op}: no {kind} is named {name!r}{hint}")
    return ids
