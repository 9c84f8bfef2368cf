"""Words, windows, tags and edits: each against what it is defined as."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Slot
from tercet.labeling.model.tagging import spans_of, tags_of
from tercet.labeling.model.text import WordReader, windows
from tercet.labeling.model.transcribing import edited, edits_between, errors, word_tokens

texts = st.lists(st.sampled_from([*"abAB1 _-é中カ\n", "don't "]), max_size=30).map("".join)
sentences = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=7).map(" ".join)


@given(texts)
def test_every_sign_is_in_one_word(text: str) -> None:
    reader = WordReader(("a", "b"))
    ids, spans = reader.read(text)
    covered = [place for start, end in spans for place in range(start, end)]
    assert covered == [place for place, sign in enumerate(text) if not sign.isspace()]
    assert ids.shape == (len(spans), 4)
    assert not ids.size or 0 <= ids.min() <= ids.max() < reader.num_ids
    assert [int(row[0]) for row in ids] == [{"a": 1, "b": 2}.get(text[s:e].lower(), 0) for s, e in spans]
    if len(spans):
        firsts = word_tokens(text, spans)
        assert [text[spans[f][0] :].split()[0] for f in firsts] == text.split()


@given(st.integers(0, 300), st.integers(8, 40))
def test_windows_cover_every_token_once_with_context(count: int, size: int) -> None:
    made = list(windows(count, size))
    assert [place for _, _, first, last in made for place in range(first, last)] == list(range(count))
    for start, end, first, last in made:
        assert start <= first <= last <= end <= count
        assert end - start <= size
        assert first - start >= size // 8 or start == 0
        assert end - last >= size // 8 or end == count


def distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j - 1] + (x != y), before[j] + 1, row[-1] + 1))
    return row[-1]


@given(sentences, sentences)
def test_edits_make_the_text_and_are_the_fewest(text: str, said: str) -> None:
    edits = edits_between(text, said)
    assert len(edits) == len(text.split()) + 1
    assert edited(text, edits) == said
    assert errors(text, said) >= distance(text.split(), said.split())
    assert (errors(text, said) == 0) == (text == said)


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_tags_give_the_slots_back(seed: int, count: int) -> None:
    torch = pytest.importorskip("torch")
    rng = random.Random(seed)
    text = " ".join("word" for _ in range(count))
    spans = WordReader(()).read(text).spans
    names, slots, place = ("genre", "artist"), [], 0
    while place < count:
        length = rng.randint(1, 3)
        if rng.random() < 0.5 and place + length <= count:
            slots.append(Slot(3, int(spans[place, 0]), int(spans[place + length - 1, 1]), rng.choice(names)))
        place += length
    tags = tags_of(slots, names, 3, spans)
    shares = torch.nn.functional.one_hot(torch.from_numpy(tags), 5).float() if count else torch.zeros(0, 5)
    assert spans_of(shares, names, 3, spans) == [(slot, 1.0) for slot in slots]
    assert not tags_of(slots, names, 2, spans).any()
    assert not tags_of([Slot(3, 0, 1, "other")], names, 3, spans).any()
    assert np.array_equal(tags, tags_of(slots[::-1], names, 3, spans))
