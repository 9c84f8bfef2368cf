"""Vocabularies: ids by name, and tensors that a file keeps."""

from __future__ import annotations

import pytest
import torch

from tercet.graph.vocabulary import Vocabulary


def test_ids_are_found_by_names() -> None:
    vocabulary = Vocabulary.from_strings(["Rome", "Paris", "Rome"], ["capital"])
    assert (vocabulary.entity("Paris"), vocabulary.relation("capital")) == (1, 0)
    with pytest.raises(ValueError, match="2 entity ids are named 'Rome': 0, 2"):
        vocabulary.entity("Rome")
    with pytest.raises(ValueError, match="no relation is named 'capitol'; near names: 'capital'"):
        vocabulary.relation("capitol")


def test_tensors_give_the_same_names_back() -> None:
    vocabulary = Vocabulary.from_strings(["Rome", "", "日本", "Rome"], ["in", "near"])
    again = Vocabulary.from_tensors(vocabulary.tensors())
    assert list(again.entities) == ["Rome", "", "日本", "Rome"]
    assert again.entities.find("Rome") == [0, 3]
    assert again.fingerprint == vocabulary.fingerprint


def test_the_fingerprint_depends_on_names_and_their_order_alone() -> None:
    one = Vocabulary.from_strings(["ab", "c"], ["r"]).fingerprint
    for entities, relations in ((["a", "bc"], ["r"]), (["c", "ab"], ["r"]), (["ab"], ["c", "r"])):
        assert Vocabulary.from_strings(entities, relations).fingerprint != one


def test_broken_tensors_are_refused() -> None:
    tensors = Vocabulary.from_strings(["ab", "c"], ["r"]).tensors()
    with pytest.raises(ValueError, match="the names of entities: offsets must rise from 0"):
        Vocabulary.from_tensors(tensors | {"entities.offsets": torch.tensor([0, 3, 2])})
    with pytest.raises(KeyError, match=r"relations\.blob"):
        Vocabulary.from_tensors({name: tensor for name, tensor in tensors.items() if name != "relations.blob"})
