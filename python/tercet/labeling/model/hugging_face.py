"""Any Hugging Face encoder that reads text, with its fast tokenizer, in the place of the small encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.labeling.model.blocks import chunks, in_order, places_of
from tercet.labeling.model.encoder import TextBatch, TextEncoder
from tercet.labeling.model.text import Pieces
from tercet.labeling.settings import ModelSettings

_TOKENS = 4096  # of a batch, padding included
_OP = "tercet.labeling.ModelSettings"


class TokenReader:
    """Texts -> the tokenizer's tokens, without those that it adds.

    Attributes:
        before, after: the tokens that it adds to each text.
        most: tokens of a window, those included, that the encoder has places for; None: it does not say.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if not self.tokenizer.is_fast:
            raise ValueError("the tokenizer must be a fast one, which knows where its tokens stand")
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        start = next((i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare), 0)
        self.before: list[int] = whole[:start]
        self.after: list[int] = whole[start + len(bare) :]

    def read(self, text: str) -> Pieces:
        """Tokens that stand for no character are kept, with an empty span."""
        # verbose: a text that is longer than the encoder takes is no fault, it is read in windows.
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.array(found["input_ids"], np.int64).reshape(-1, 1)
        return Pieces(ids, np.array(found["offset_mapping"], np.int64).reshape(-1, 2))


class HuggingFaceEncoder(TextEncoder):
    """An AutoModel. Of the BERT and RoBERTa families padding is not computed (`tercet.integrations.transformers`).

    Args:
        config: of the model.
        reader: of its texts.
        settings: of the label model.
    """

    def __init__(self, config: Any, reader: TokenReader, settings: ModelSettings) -> None:
        from transformers import AutoModel

        super().__init__(config.hidden_size, settings.dim, settings.gates)
        self.model: Any = AutoModel.from_config(config)
        self.reader, self.tune = reader, settings.tune_encoder
        self.before, self.after = reader.before, reader.after
        self.padding = reader.tokenizer.pad_token_id or 0
        self.packed = self._arbitrate()
        if self.learnt and not self.packed:
            raise ValueError(f"{_OP}: gates of {type(self.model).__name__} cannot be learnt")
        if not self.tune:
            self.model.requires_grad_(False)

    def load(self, folder: Path) -> HuggingFaceEncoder:
        """Take the weights that stand in a directory of transformers."""
        from transformers import AutoModel

        found = AutoModel.from_pretrained(folder).state_dict()
        self.model.load_state_dict(found, strict=not self.packed)
        return self

    def save(self, folder: Path) -> None:
        """Write the model's configuration and the tokenizer."""
        self.model.config.save_pretrained(folder)
        self.reader.tokenizer.save_pretrained(folder)

    def _arbitrate(self) -> bool:
        from tercet.integrations.transformers import arbitrate

        try:
            arbitrate(self.model)
        except (TypeError, ValueError):  # another family, or set up for what gates cannot honour: as it is
            return False
        return True

    def train(self, mode: bool = True) -> HuggingFaceEncoder:
        """An encoder that is not trained stays in evaluation."""
        super().train(mode)
        if not self.tune:
            self.model.eval()
        return self

    def read(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """The first token's state is the window's vector."""
        before, after = len(self.before), len(self.after)
        starts = torch.nn.functional.pad(batch.lengths.cumsum(0), (1, 0))[:-1]
        heads, states, windows, tokens = [], [], [], []
        for chosen in chunks(batch.lengths + before + after, _TOKENS):
            own = batch.lengths[chosen]
            size = int(own.max()) + before + after
            ids = torch.full((len(chosen), size), self.padding)
            if before:
                ids[:, :before] = torch.tensor(self.before)
            rows = torch.repeat_interleave(torch.arange(len(chosen)), own)
            columns = places_of(own) + before
            index = torch.repeat_interleave(starts[chosen], own) + places_of(own)
            ids[rows, columns] = batch.ids[index, 0]
            for number, token in enumerate(self.after):
                ids[torch.arange(len(chosen)), before + own + number] = token
            mask = (torch.arange(size) < (own + before + after)[:, None]).long()
            out = self._run(ids, mask)
            heads.append(out[:, 0])
            states.append(out[rows, columns])
            windows.append(chosen)
            tokens.append(index)
        nothing = torch.zeros(len(batch.lengths), self.vector.in_features // 2)
        if not heads:
            return nothing, nothing[:0]
        return nothing.index_copy(0, torch.cat(windows), torch.cat(heads)), in_order(states, tokens)

    def _run(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tune):
            if not self.packed:
                whole: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
                return whole
            from tercet.integrations.transformers import count_compute

            layers = self.model.config.num_hidden_layers
            decide = self.learnt and not self.forced
            with count_compute(self.model, None if decide else (mask > 0).expand(layers, 2, *mask.shape)) as costs:
                packed: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            if self.costs is not None:
                self.costs += costs
            return packed


def open_encoder(settings: ModelSettings, folder: Path, *, weights: bool) -> tuple[TokenReader, HuggingFaceEncoder]:
    """The reader and encoder of a directory of transformers; with its weights, or to be loaded later.

    Raises:
        ImportError: transformers is missing. FileNotFoundError: no such directory. ValueError: it holds no encoder with
            a fast tokenizer, or one that has fewer places than `max_tokens`.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise ImportError(f"{folder} needs transformers: pip install 'tercet[labels]'") from error
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such directory; an encoder is a local directory of transformers")
    try:
        reader, config = TokenReader(folder), AutoConfig.from_pretrained(folder)
        encoder = HuggingFaceEncoder(config, reader, settings)
        encoder = encoder.load(folder) if weights else encoder
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder}: expected an encoder of transformers with its tokenizer: {error}") from error
    added = len(reader.before) + len(reader.after)
    places = getattr(config, "max_position_embeddings", None)
    if places is not None and "roberta" in str(config.model_type):
        places -= 1 + (config.pad_token_id or 0)
    if places is not None and settings.max_tokens + added > places:
        raise ValueError(
            f"{_OP}: max_tokens must be at most {places - added}, the places of {folder}, got {settings.max_tokens}"
        )
    return reader, encoder
