"""Parts of the label model by themselves: convolutions, values that are not known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.labeling import Dialogue, Turn
from tercet.labeling.model.blocks import Blocks, Convolution
from tercet.labeling.model.features import PartReader, Vocabulary, VocabularyMaker


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_convolution_is_as_it_is_defined(lengths: list[int], reach: int, seed: int) -> None:
    dim, rng = 4, np.random.default_rng(seed)
    own = Convolution(dim, reach).double()
    sequences = [torch.from_numpy(rng.standard_normal((length, dim))) for length in lengths]
    wanted = []
    for rows in sequences:
        for place in range(len(rows)):
            near = [
                rows[at] if 0 <= at < len(rows) else torch.zeros(dim) for at in range(place - reach, place + reach + 1)
            ]
            wanted.append(rows[place] + (own.map.weight @ torch.cat(near).double() + own.map.bias).relu())
    found = own(torch.cat(sequences), torch.tensor(lengths))
    torch.testing.assert_close(found, torch.stack(wanted) if wanted else torch.zeros(0, dim).double())


def test_without_blocks_there_is_no_context() -> None:
    """Not by a convolution either."""
    torch.manual_seed(0)
    blocks, rows, lengths = Blocks(8, 2, 8, 0, positions=4, dropout=0.0, reach=1), torch.randn(5, 8), torch.tensor([5])
    before = blocks(rows, lengths)
    rows[3] += 1
    assert [place for place in range(5) if not torch.equal(before[place], blocks(rows, lengths)[place])] == [3]


def test_values_that_are_not_known_are_learnt() -> None:
    """Training shows known values as unknown ones now and then, of their own feature; use does not."""
    maker, values = VocabularyMaker(feedback=True), ("radio", "phone")
    some = [
        Dialogue(f"{n}", (Turn("user", "hi", categorical={"device": values[n % 2], "place": "home"}),))
        for n in range(4)
    ]
    for dialogue in some:
        maker.add(dialogue)
    vocabulary = maker.made()
    known = [vocabulary.names[place] for place in PartReader(vocabulary, True).read(some[1]).names]
    assert sorted(known) == ["device=phone", "place=home"]
    others = [vocabulary.names[place] for place in vocabulary.others()]
    assert dict(zip(vocabulary.names, others, strict=True)) == {
        name: f"{name.partition('=')[0].split(chr(10))[0]}\nother" for name in vocabulary.names
    }
    strange = replace(some[0], turns=(Turn("user", "hi", categorical={"device": "fridge"}),))
    place = PartReader(vocabulary, True).read(strange).names.item()
    assert vocabulary.names[place] == "device\nother"
    assert Vocabulary().others() == []
