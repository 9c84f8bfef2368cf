"""Names: ids to names and back, with names that several ids share, and broken tables."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.graph.names import NameBuilder, Names
from tercet.ops import _native

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(deadline=None)
@given(st.lists(TEXT, max_size=60), st.integers(1, 40))
def test_every_id_is_found(pool: list[str], copies: int) -> None:
    strings = pool + pool[:copies] * 2
    names = Names.from_strings(strings)
    assert list(names) == strings
    assert len(names) == len(strings)
    assert names[:] == strings
    for name in set(strings):
        assert names.find(name) == [i for i, other in enumerate(strings) if other == name]
    assert names.find("\0".join(strings) + "x") == []
    assert names.fault() is None
    assert (names.following is None) == (len(set(strings)) == len(strings))


def test_many_names_many_sharing() -> None:
    strings = [f"name {i}" for i in range(50_000)] + ["shared"] * 50_000
    names = Names.from_strings(strings)
    assert names.find("shared") == list(range(50_000, 100_000))
    assert all(names.find(f"name {i}") == [i] for i in range(0, 50_000, 997))
    assert names.fault() is None


@pytest.mark.parametrize(
    "strings", [["name 116400", "name 129613"], ["name 63 34178380", "name 63"], ["name 63", "name 63 34178380"]]
)
def test_names_whose_hashes_agree_stay_apart(strings: list[str]) -> None:
    """The table keeps 32 bits of a hash; these pairs, found by search, share them: of one length, and with one start."""
    names = Names.from_strings(strings)
    assert [names.find(name) for name in strings] == [[0], [1]]
    assert names.following is None
    assert names.fault() is None


def test_rehashing_goes_on_at_the_start_of_the_table() -> None:
    """Two entries that belong in the last of four slots; what stands behind the table stays as it is."""
    old, slots = torch.tensor([3 << 32, 7 << 32 | 1]), torch.full((6,), -1)
    _native.cpu.names_rehash(old.data_ptr(), 2, slots.data_ptr(), 4)
    assert slots.tolist() == [7 << 32 | 1, -1, -1, 3 << 32, -1, -1]


def test_indexing() -> None:
    names = Names.from_strings(["a", "ä", ""])
    assert (names[1], names[-1], names[0:2]) == ("ä", "", ["a", "ä"])
    assert repr(names) == "Names(3: 'a', 'ä', '')"
    assert names.find("\ud800") == []
    with pytest.raises(IndexError, match=re.escape("tercet.Names: 3 of 3 names")):
        names[3]


@pytest.mark.parametrize("rapidfuzz", [True, False])
def test_near_names(rapidfuzz: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rapidfuzz:
        pytest.importorskip("rapidfuzz")
    else:
        monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    names = Names.from_strings(["Tom Hanks", "TOM HANKS", "Tom Hardy", "Natalie Portman", "Straße"])
    assert names.near("tom hanks") == ["Tom Hanks", "TOM HANKS"]
    assert names.near("STRASSE") == ["Straße"]
    assert names.near("natalie portmann", limit=1) == ["Natalie Portman"]
    assert names.near("Tom Hankz")[0].casefold() == "tom hanks"
    assert names.near("xyzzy 1234") == []
    assert Names.from_strings([]).near("a") == []


BROKEN = {
    "offsets do not start at 0": (lambda n: n.offsets.__setitem__(0, 1), "position 0 does not"),
    "offsets fall": (lambda n: n.offsets.__setitem__(1, 100), "offsets must rise from 0 to the size of the text"),
    "offsets do not end at the text's size": (lambda n: n.offsets.__setitem__(-1, 3), "position 5 does not"),
    "not UTF-8": (lambda n: n.blob.__setitem__(0, 0xFF), "name 0 is not UTF-8"),
    "split within a character": (lambda n: n.offsets.__setitem__(1, 3), "name 0 is not UTF-8"),
    "a slot beyond the names": (lambda n: n.slots.__setitem__(n.slots == -1, 99), "holds no id of a name"),
    "a name that is missing": (lambda n: n.slots.fill_(-1), "the hash table does not lead to name 0"),
    "a name changed": (lambda n: n.blob.__setitem__(0, ord("z")), "the hash table does not lead to name 0"),
    "a stray slot": (lambda n: n.slots.__setitem__(int((n.slots == -1).nonzero()[0]), 2**40), "holds no id of a name"),
    "a chain cut": (lambda n: n.following.__setitem__(0, -1), "the chain of ids that share a name is broken"),
    "a chain that turns back": (
        lambda n: n.following.__setitem__(3, 0),
        "chain of ids that share a name is broken at 3",
    ),
    "a chain to another name": (
        lambda n: n.following.__setitem__(0, 1),
        "chain of ids that share a name is broken at 0",
    ),
    "a chain that skips": (lambda n: n.following.__setitem__(0, 4), "the chain of ids that share a name is broken"),
    "slots no power of two": (lambda n: setattr(n, "slots", n.slots[:-1]), "slots must be a power of two, got 7"),
    "no slots": (lambda n: setattr(n, "slots", n.slots[:0]), "slots must be a power of two, got 0"),
    "no offsets": (lambda n: setattr(n, "offsets", n.offsets[:0]), "offsets must hold 1 to 2^31 - 1 entries, got 0"),
    "a dtype": (lambda n: setattr(n, "offsets", n.offsets.int()), "offsets must be torch.int64 of one dimension"),
    "short chain": (
        lambda n: setattr(n, "following", n.following[1:]),
        "following must have one entry for each of 5 names, got 4",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_invariant_is_named(kind: str) -> None:
    names = Names.from_strings(["aa", "ü", "c", "aa", "aa"])
    assert names.fault() is None
    change, message = BROKEN[kind]
    change(names)
    assert message in (names.fault() or "")


def test_missing_chain_is_named() -> None:
    names = Names.from_strings(["aa", "b", "aa"])
    assert names.following is not None
    assert Names(names.blob, names.offsets, names.slots, None).fault() == "the hash table does not lead to name 2"


def test_full_table_is_refused() -> None:
    names = Names.from_strings(["a", "b"])
    slots = names.slots[names.slots != -1]
    assert "holds no id of a name" in (Names(names.blob, names.offsets, slots.clone(), None).fault() or "")


def test_builder_doubles_what_is_short() -> None:
    builder = NameBuilder()
    builder.size[0] = len(builder.offsets) - 1
    builder.grow(1)
    assert (len(builder.offsets), len(builder.blob)) == (2 * ((1 << 12) + 1), 1 << 16)
    builder.grow(1 << 20)
    assert len(builder.blob) >= 1 << 20
    builder.size[0] = 2**31 - 2
    with pytest.raises(ValueError, match=r"more than 2\^31 - 2 different names"):
        builder.grow(1)
    assert torch.equal(builder.slots, torch.full_like(builder.slots, -1))
