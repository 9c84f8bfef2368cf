"""Words, windows, tags and edits: each against what it is defined as."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Slot
from tercet.labeling.model.tagging import FIRST, FURTHER, OUTSIDE, given_before, spans_of, tags_of
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


def slots_by_chance(rng: random.Random, spans: np.ndarray, names: tuple[str, ...], turn: int) -> list[Slot]:
    slots, place = [], 0
    while place < len(spans):
        length = rng.randint(1, 3)
        if rng.random() < 0.5 and place + length <= len(spans):
            slots.append(Slot(turn, int(spans[place, 0]), int(spans[place + length - 1, 1]), rng.choice(names)))
        place += length
    return slots


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_tags_give_the_slots_back(seed: int, counts: list[int]) -> None:
    rng, names = random.Random(seed), ("genre", "artist")
    slots, kinds, named, turns, places = [], [], [], [], []
    for turn, count in enumerate(counts):
        spans = WordReader(()).read(" ".join("word" for _ in range(count))).spans
        own = slots_by_chance(rng, spans, names, turn)
        kind, name = tags_of(own, names, turn, spans)
        assert not tags_of(own, names, turn + 1, spans)[0].any()
        assert not tags_of([Slot(turn, 0, 1, "other")], names, turn, spans)[0].any()
        assert all(map(np.array_equal, (kind, name), tags_of(own[::-1], names, turn, spans)))
        slots += own
        places += spans.tolist()
        kinds += kind.tolist()
        named += name.tolist()
        turns += [turn] * count
    sure = 60.0 * torch.eye(3)[torch.tensor(kinds, dtype=torch.int64)]
    logits = sure.repeat(1, 3)  # whatever the kind before
    found, _ = spans_of(logits, 60.0 * torch.eye(2)[torch.tensor(named, dtype=torch.int64)], torch.tensor(turns))
    made = [Slot(turns[first], places[first][0], places[end - 1][1], names[name]) for first, end, name, _ in found]
    assert made == slots
    assert all(sure == pytest.approx(1) for *_, sure in found)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_a_spans_probability_is_as_it_is_defined(seed: int, counts: list[int]) -> None:
    """Kinds are chosen one after the other; the product is of those that were chosen."""
    rng = np.random.default_rng(seed)
    turn = np.repeat(np.arange(len(counts)), counts)
    kinds, names = (torch.from_numpy(3 * rng.standard_normal((len(turn), size))) for size in (9, 4))
    given_kinds, named = kinds.view(-1, 3, 3).softmax(2), names.log_softmax(1)
    path = []
    for place in range(len(turn)):
        before = path[-1] if place and turn[place] == turn[place - 1] else OUTSIDE
        kind = int(given_kinds[place, before].argmax())
        path.append(FIRST if kind == FURTHER and before == OUTSIDE else kind)
    same_turn = [place > 0 and turn[place] == turn[place - 1] for place in range(len(turn))]
    wanted = []
    for first in (place for place, kind in enumerate(path) if kind == FIRST):
        end = first + 1
        share = float(given_kinds[first, path[first - 1] if same_turn[first] else OUTSIDE, FIRST])
        while end < len(turn) and same_turn[end] and path[end] == FURTHER:
            share *= float(given_kinds[end, path[end - 1], FURTHER])
            end += 1
        if end < len(turn) and same_turn[end]:
            share *= 1 - float(given_kinds[end, path[end - 1], FURTHER])
        shares = named[first:end].mean(0).softmax(0)
        wanted.append((first, end, int(shares.argmax()), pytest.approx(share * float(shares.max()))))
    rest = [
        1.0
        if kind != OUTSIDE
        else pytest.approx(float(given_kinds[place, path[place - 1] if same_turn[place] else 0, 0]))
        for place, kind in enumerate(path)
    ]
    found, outside = spans_of(kinds, names, torch.from_numpy(turn))
    assert (found, outside.tolist()) == (wanted, rest)
    own = given_before(kinds, torch.tensor(path), torch.from_numpy(turn))
    for place, row in enumerate(own):
        before = path[place - 1] if same_turn[place] else OUTSIDE
        assert torch.equal(row, kinds[place, 3 * before : 3 * before + 3])
