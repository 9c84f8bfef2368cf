"""Encoders: the small one, and a Hugging Face encoder from a folder, without network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from films import Films
from tercet.answering import Answerer, train
from tercet.answering.encoder import GruEncoder, Vocabulary, load_encoder


def test_vocabulary_is_the_same_for_any_order() -> None:
    rows = [["who", "<entity>"], ["when", "who"]]
    assert Vocabulary.of(rows).words == Vocabulary.of(rows[::-1]).words
    assert Vocabulary.of(rows).ids(["who", "nobody", "<entity>"]) == [5, 1, 2]


def test_padding_changes_nothing() -> None:
    encoder = GruEncoder(Vocabulary.of([["a", "b", "c"]]), 8).eval()
    short = encoder(torch.tensor([[4, 5]]))
    padded = encoder(torch.tensor([[4, 5, 0, 0], [4, 5, 6, 6]]))
    assert torch.allclose(short[0][0], padded[0][0, :2], atol=1e-6)
    assert torch.allclose(short[2][0], padded[2][0], atol=1e-6)
    assert padded[1][0].tolist() == [True, True, False, False]


def test_an_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    encoder = GruEncoder(Vocabulary.of([["a", "b", "c"]]), 8).eval()
    again = load_encoder(encoder.save(tmp_path), tmp_path).eval()
    again.load_state_dict(encoder.state_dict())
    ids = encoder.batch([encoder.ids("a [x] c", 0)], torch.device("cpu"))
    assert torch.equal(ids, again.batch([again.ids("a [x] c", 0)], torch.device("cpu")))
    assert torch.equal(encoder(ids)[0], again(ids)[0])


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights and a word-piece vocabulary, saved as the library saves them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (tercet[transformers])")
    folder = tmp_path_factory.mktemp("bert")
    words = "who what when directed starred in was released did direct the of".split()  # noqa: SIM905
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(str(folder))
    config = transformers.BertConfig(
        vocab_size=5 + len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(str(folder))
    return folder


@pytest.mark.filterwarnings("default")
def test_a_hugging_face_encoder_is_trained_saved_and_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    world = Films()
    questions = world.one_hop()
    options = {"hops": 1, "encoder": str(tiny_bert), "dim": 32, "batch_size": 16, "learning_rate": 1e-2, "epochs": 5}
    result = train(world.graph, questions, out=tmp_path / "a", **options)
    assert result.hits_at_1 > 0.8
    answerer = Answerer.load(tmp_path / "a", world.graph)
    assert answerer.evaluate(questions).hits_at_1 > 0.8
    assert (tmp_path / "a" / "encoder" / "config.json").exists()
    train(world.graph, questions, out=tmp_path / "b", **options)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'tercet\[transformers\]'"):
        train(Films().graph, Films().one_hop(), hops=1, out=tmp_path / "m", encoder="some/bert")
    assert not (tmp_path / "m").exists()
