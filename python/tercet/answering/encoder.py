"""Encoders of question text: a small one trained from scratch, and any Hugging Face encoder.

Both take rows of token ids (`ids`) and return contextual tokens [rows, length, dim], a mask of the real ones
[rows, length] and a summary [rows, dim]. A row is a question seen from one of its mentions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tercet.answering.data import OTHER_MENTION, OWN_MENTION, tokens
from tercet.files import write_text

_PAD, _UNKNOWN = "<pad>", "<unknown>"
Encoded = tuple[Tensor, Tensor, Tensor]


class Encoder(nn.Module):
    """What the answer model asks of an encoder."""

    dim: int
    pad: int

    def ids(self, text: str, mention: int) -> list[int]:
        """Token ids of a question seen from one of its mentions."""
        raise NotImplementedError

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what beside the weights makes the encoder; return its configuration."""
        raise NotImplementedError

    def batch(self, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Rows of ids as one padded int64 tensor [rows, length]."""
        length = max(len(row) for row in rows)
        padded = [[*row, *[self.pad] * (length - len(row))] for row in rows]
        return torch.tensor(padded, dtype=torch.int64, device=device)

    def forward(self, ids: Tensor) -> Encoded:
        """Padded ids [rows, length] -> (tokens, mask, summary)."""
        raise NotImplementedError


class Vocabulary:
    """Words and their ids; words that were never seen share one."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def of(cls, rows: Iterable[Iterable[str]]) -> Vocabulary:
        """The words of all rows, sorted, after the special tokens."""
        special = [_PAD, _UNKNOWN, OWN_MENTION, OTHER_MENTION]
        return cls([*special, *sorted({word for row in rows for word in row} - set(special))])

    def ids(self, words: Iterable[str]) -> list[int]:
        """The id of each word."""
        unknown = self._ids[_UNKNOWN]
        return [self._ids.get(word, unknown) for word in words]

    def __len__(self) -> int:
        return len(self.words)


class GruEncoder(Encoder):
    """Word vectors and a bidirectional GRU, trained from scratch.

    In training a word is now and then replaced by the unknown word, so that its vector is learnt and no single word is
    relied on.
    """

    def __init__(self, vocabulary: Vocabulary, dim: int, *, word_dropout: float = 0.05, dropout: float = 0.1) -> None:
        super().__init__()
        self.vocabulary, self.dim, self.pad, self.word_dropout = vocabulary, dim, 0, word_dropout
        self.words = nn.Embedding(len(vocabulary), dim, padding_idx=0)
        self.gru = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def ids(self, text: str, mention: int) -> list[int]:
        """Ids of the question's words, its mentions replaced by what they are to this row."""
        return self.vocabulary.ids(tokens(text, mention))

    def save(self, folder: Path) -> dict[str, Any]:
        """The vocabulary, as vocabulary.json."""
        write_text(folder / "vocabulary.json", json.dumps(self.vocabulary.words, ensure_ascii=False, indent=0))
        return {"kind": "gru", "dim": self.dim}

    def forward(self, ids: Tensor) -> Encoded:
        """Padded ids [rows, length] -> (tokens, mask, summary)."""
        mask = ids != self.pad
        if self.training:
            special = ids < 4
            dropped = (torch.rand(ids.shape, device=ids.device) < self.word_dropout) & ~special
            ids = ids.masked_fill(dropped, 1)
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.dropout(self.words(ids)), lengths, batch_first=True, enforce_sorted=False)
        states, last = self.gru(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=ids.shape[1])
        return self.dropout(states), mask, self.dropout(torch.cat([last[0], last[1]], 1))


class HuggingFaceEncoder(Encoder):
    """Any encoder of the transformers library, fine-tuned. Mentions become two tokens of their own.

    Args:
        name: name or path that AutoModel and AutoTokenizer understand.
        pretrained: load weights too; otherwise the configuration only, for a model whose weights come from elsewhere.

    Raises:
        ImportError: transformers is not installed.
    """

    def __init__(self, name: str | Path, *, pretrained: bool = True) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel, AutoTokenizer
        except ImportError as error:
            raise ImportError(
                "a Hugging Face encoder needs transformers: pip install 'tercet[transformers]'"
            ) from error
        self.tokenizer = AutoTokenizer.from_pretrained(str(name))
        if pretrained:
            self.model = AutoModel.from_pretrained(str(name))
        else:
            self.model = AutoModel.from_config(AutoConfig.from_pretrained(str(name)))
        added = self.tokenizer.add_tokens([OWN_MENTION, OTHER_MENTION], special_tokens=True)
        if added or self.model.get_input_embeddings().num_embeddings < len(self.tokenizer):
            self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        self.dim = int(self.model.config.hidden_size)
        self.pad = int(self.tokenizer.pad_token_id or 0)

    def ids(self, text: str, mention: int) -> list[int]:
        """Ids from the encoder's own tokenizer."""
        ids: list[int] = self.tokenizer(" ".join(tokens(text, mention)))["input_ids"]
        return ids

    def save(self, folder: Path) -> dict[str, Any]:
        """Configuration and tokenizer, under encoder/; the weights are saved with the model's."""
        self.tokenizer.save_pretrained(str(folder / "encoder"))
        self.model.config.save_pretrained(str(folder / "encoder"))
        return {"kind": "huggingface", "dim": self.dim}

    def forward(self, ids: Tensor) -> Encoded:
        """Padded ids [rows, length] -> (tokens, mask, summary): the summary is the mean over the real tokens."""
        mask = ids != self.pad
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(2).to(states.dtype)
        return states, mask, (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def make_encoder(name: str, texts: Iterable[tuple[str, int]], dim: int) -> Encoder:
    """The encoder of that name: "gru" with the vocabulary of `texts` (question, mention), or a Hugging Face encoder."""
    if name == "gru":
        return GruEncoder(Vocabulary.of(tokens(text, mention) for text, mention in texts), dim)
    return HuggingFaceEncoder(name)


def load_encoder(config: dict[str, Any], folder: Path) -> Encoder:
    """The encoder saved in `folder`, with weights still to be loaded."""
    if config["kind"] == "gru":
        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        return GruEncoder(Vocabulary(words), int(config["dim"]))
    return HuggingFaceEncoder(folder / "encoder", pretrained=False)
