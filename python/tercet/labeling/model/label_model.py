"""The label model: words and logged signals of each turn -> a vector of the turn -> the whole dialogue -> labels.

    text vectors     encoder of the words of turns, and of what components made of them (traces)
    x_t = mixing(speaker, text, names, numbers, sound of turn t)[0]          blocks over the parts of a turn
    y   = dialogue(x_1 .. x_T)                                               blocks over the turns, both ways
    labels from heads on y (heads.py), of tokens on their states and y (tagging.py)

The small text encoder and the dialogue's blocks begin with a convolution over neighbouring words, and turns.

Beside it stands ridge regression on words (wide.py). Blocks are `tercet.nn.ArbitratedEncoder`s. The text encoder with
dialogue context follows RoBERTaIQ (Gupta et al. 2021) and Wang et al.: Joint Goal Segmentation and Goal Success
Prediction on Multi-Domain Conversations, COLING 2022; tokens of logged signals beside the text, Khaziev et al.: FPI:
Failure Point Isolation in Large-scale Conversational Assistants, NAACL 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.model.batches import Batch, Example, Preparer, collate, wide_figures
from tercet.labeling.model.blocks import Blocks, Linear
from tercet.labeling.model.encoder import Encoded, SmallEncoder, TextEncoder
from tercet.labeling.model.features import BINS, PartReader, Vocabulary
from tercet.labeling.model.heads import Heads, Tasks, Turns
from tercet.labeling.model.predictions import Classes, Prediction
from tercet.labeling.model.reading_out import read_out
from tercet.labeling.model.sound import SoundEncoder
from tercet.labeling.model.tagging import GIVEN, Tagger
from tercet.labeling.model.text import TextReader, WordReader
from tercet.labeling.model.wide import Wide
from tercet.labeling.settings import ModelSettings

_TURNS, _PAIRS = 8192, 1 << 20  # of a batch of predictions: turns, and pairs of turns of a dialogue
_CHUNK = 4096  # dialogues that are batched by length together
_HIDDEN = 0.1  # share of the values and numbers that training leaves out
_PLACES = 64  # of turns that have a vector of their own


@dataclass(frozen=True)
class Facts:
    """What a model is made for beside its sizes: it follows from the training data.

    Attributes:
        tasks: what it learns. vocabulary: of features. words: of the small encoder.
        whole_features, turn_features: of ridge regression; None: there is none.
    """

    tasks: Tasks
    vocabulary: Vocabulary
    words: tuple[str, ...] = ()
    whole_features: int | None = None
    turn_features: int | None = None


@dataclass(frozen=True, eq=False)
class Output:
    """Logits by part; of slots and edits by token and word, of choice by candidate. `turns`: with rows."""

    logits: dict[str, Tensor]
    turns: Turns


class LabelModel(nn.Module):
    """Labels of dialogues, with how likely they are; made by `train`.

    Attributes:
        settings: its sizes.
        classes: the names that it knows, by task.
        parts: what it was trained for, of `tercet.labeling.model.heads.PARTS`.
        vocabulary: the features that it knows; words: those of the small text encoder.
        long_turns: how many texts of the last `predict` were longer than `settings.max_tokens` and read in windows.

    Args:
        settings: sizes.
        facts: what follows from the training data.
        folder: where the Hugging Face encoder's configuration and tokenizer stand; None: `settings.encoder`.
    """

    others: Tensor

    def __init__(self, settings: ModelSettings, facts: Facts, folder: Path | None = None) -> None:
        super().__init__()
        self.settings, self.facts, tasks, dim = settings, facts, facts.tasks, settings.dim
        self.long_turns = 0
        self.folder = folder or (None if settings.encoder is None else Path(settings.encoder))
        self.reader, self.encoder = _encoder(settings, facts, folder)
        width = self.encoder.vector.in_features // 2
        vocabulary = facts.vocabulary
        self.speakers = nn.Parameter(0.1 * torch.randn(2, dim))
        self.kinds = nn.Parameter(0.1 * torch.randn(1 + len(vocabulary.texts), dim))
        self.names = nn.Parameter(0.1 * torch.randn(len(vocabulary.names), dim))
        self.register_buffer("others", torch.tensor(vocabulary.others(), dtype=torch.int64), persistent=False)
        self.numbers = nn.Parameter(0.1 * torch.randn(len(vocabulary.numbers), 1 + BINS, dim))
        self.sound = SoundEncoder(dim) if vocabulary.sound else None
        sizes = dim, settings.num_heads, settings.feed_forward_dim
        self.mixing = Blocks(*sizes, settings.mixing_layers, positions=0, dropout=settings.dropout)
        self.dialogue = Blocks(*sizes, settings.dialogue_layers, positions=_PLACES, dropout=settings.dropout, reach=1)
        self.join = Linear(2 * dim, dim)
        self.heads = Heads(dim, tasks, settings.dropout, wide=settings.wide)
        if "slots" in tasks.parts:
            self.slots = Tagger(width, dim, GIVEN + len(tasks.classes.slots), settings.dropout)
        if "transcription" in tasks.parts:
            self.edits = Tagger(width, dim, 2 + len(tasks.edits), settings.dropout)
            self.beginning = nn.Parameter(0.1 * torch.randn(width))
            self.choice = Linear(3 * dim, 1)
        self.wide_whole, self.wide_turns = (
            None if features is None else Wide(features, outputs, extra)
            for features, outputs, extra in (
                (facts.whole_features, 1, 0 if facts.turn_features is None else 8 * _columns(tasks)),
                (facts.turn_features, _columns(tasks), 0),
            )
        )
        self.prepare = Preparer(tasks, PartReader(vocabulary, settings.feedback), self.reader, self.wide)

    @property
    def wide(self) -> tuple[Wide | None, Wide | None]:
        """Ridge regression on dialogues and on turns."""
        return self.wide_whole, self.wide_turns

    def set_wide(self, whole: Wide | None, turns: Wide | None) -> None:
        """Put fitted ridge regression in."""
        self.wide_whole, self.wide_turns = whole, turns
        features = (None if wide is None else len(wide.hashes) for wide in (whole, turns))
        self.facts = replace(self.facts, whole_features=next(features), turn_features=next(features))
        self.prepare.wide = self.wide

    def figures_of(self, example: Example) -> tuple[Tensor, Tensor]:
        """What ridge regression says of an example that it was not fitted to: [1, 1], [T, columns]."""
        whole, turns = wide_figures([example], self.wide)
        size = len(example.parts.speakers)
        return torch.zeros(1, 0) if whole is None else whole, torch.zeros(size, 0) if turns is None else turns

    def save_encoder(self, folder: Path) -> None:
        """Write the configuration and tokenizer of a Hugging Face encoder."""
        self.encoder.save(folder)

    @property
    def classes(self) -> Classes:
        """The names that it knows."""
        return self.facts.tasks.classes

    @property
    def parts(self) -> tuple[str, ...]:
        """What it was trained for."""
        return self.facts.tasks.parts

    @property
    def vocabulary(self) -> Vocabulary:
        """The features that it knows."""
        return self.facts.vocabulary

    def batch(self, examples: Sequence[Example]) -> Batch:
        """A batch of examples of `prepare`."""
        return collate(examples, self.facts.tasks, self.settings.max_tokens, self.wide)

    def forward(self, batch: Batch) -> Output:
        """Logits of a batch."""
        encoded: Encoded = self.encoder(batch.texts)
        rows = self.turn_rows(batch, encoded)
        turns = replace(batch.turns, rows=rows)
        wanted = batch.targets.get("membership")
        logits = self.heads(turns, wanted[0] if wanted is not None and self.training else None)
        if "slots" in self.parts:
            tags = self.slots(encoded.states, rows, batch.token, batch.token_turn)
            logits["slots"], logits["slot_names"] = tags[:, :GIVEN], tags[:, GIVEN:]
        if "transcription" in self.parts:
            states = torch.cat([encoded.states, self.beginning[None]])
            word = torch.where(batch.word < 0, len(encoded.states), batch.word)
            turn = batch.candidate_turn[batch.word_candidate]
            logits["edits"] = self.edits(states, rows, word, turn)
            logits["choice"] = self._choice(batch, encoded, rows)
        return Output(logits, turns)

    def turn_rows(self, batch: Batch, encoded: Encoded) -> Tensor:
        """The vector of each turn in its dialogue, [N, dim]."""
        turns, parts = [torch.arange(len(batch.speakers))], [self.speakers[batch.speakers]]
        turns.append(batch.text_turn)
        parts.append(encoded.vectors.index_select(0, batch.text_index) + self.kinds[batch.text_kind])
        if len(batch.names):
            turns.append(batch.name_turn)
            names = batch.names
            if self.training:  # so that values are met that are not known
                names = torch.where(torch.rand(len(names)) < _HIDDEN, self.others[names], names)
            parts.append(self.names[names])
        if len(batch.numbers):
            table = self.numbers[batch.numbers]
            number = table[:, 0]
            for place in range(BINS):  # in one order, however many there are
                number = number + batch.shares[:, place, None] * table[:, 1 + place]
            told = torch.rand(len(number)) >= _HIDDEN if self.training else torch.ones(len(number), dtype=torch.bool)
            turns.append(batch.number_turn[told])
            parts.append(number[told])
        if self.sound is not None and batch.sounds:
            turns.append(torch.tensor([turn for turn, _ in batch.sounds]))
            parts.append(self.sound([sound for _, sound in batch.sounds]))
        turn = torch.cat(turns)
        order = turn.argsort(stable=True)
        counts = turn.bincount(minlength=len(batch.speakers))
        mixed = self.mixing(torch.cat(parts).index_select(0, order), counts)
        starts = F.pad(counts.cumsum(0), (1, 0))[:-1]
        own = encoded.vectors.index_select(0, batch.own)  # past the blocks too: few dialogues train few blocks
        rows = F.relu(self.join(torch.cat([mixed.index_select(0, starts), own], 1)))
        done: Tensor = self.dialogue(rows, batch.sizes)
        return done

    def _choice(self, batch: Batch, encoded: Encoded, rows: Tensor) -> Tensor:
        """A score of each hypothesis of a turn."""
        if not len(batch.candidate_text):
            return rows.new_zeros(0)
        text = encoded.vectors.index_select(0, batch.candidate_text)
        turn = rows.index_select(0, batch.candidate_turn)
        own = encoded.vectors.index_select(0, batch.own[batch.candidate_turn])
        rank = batch.candidate_rank.clamp(max=len(self.kinds) - 1)
        both = torch.cat([text + self.kinds[rank], text * turn, own - text], 1)
        score: Tensor = self.choice(both).squeeze(1)
        return score

    @torch.no_grad()
    def predict(self, dialogues: Sequence[Dialogue], *, batch_size: int = 1024) -> list[Prediction]:
        """What the model believes of each dialogue.

        It does not depend on `batch_size`, on the other dialogues or on the number of threads, bit for bit, where
        products are oneDNN's, as they are in float32 on CPUs with the small encoder.

        Args:
            dialogues: any.
            batch_size: dialogues at a time, at most.
        """
        return list(self.predictions(dialogues, batch_size=batch_size))

    def predictions(self, dialogues: Iterable[Dialogue], *, batch_size: int = 1024) -> Iterator[Prediction]:
        """As `predict`, one after the other, of dialogues that need not fit in memory."""
        self.eval()
        self.long_turns = 0
        remaining = iter(dialogues)
        while some := list(islice(remaining, _CHUNK)):
            yield from self._predicted(some, batch_size)

    @torch.no_grad()
    def _predicted(self, dialogues: Sequence[Dialogue], batch_size: int) -> list[Prediction]:
        """Dialogues of about the same length go together."""
        order = sorted(range(len(dialogues)), key=lambda place: len(dialogues[place].turns))
        found: list[Prediction | None] = [None] * len(dialogues)
        start = 0
        while start < len(order):
            end, turns, pairs = start, 0, 0
            while end < len(order) and end - start < batch_size:
                size = len(dialogues[order[end]].turns)
                turns, pairs = turns + size, pairs + size * size
                if end > start and (turns > _TURNS or pairs > _PAIRS):
                    break
                end += 1
            chosen = order[start:end]
            batch = self.batch([self.prepare(dialogues[place]) for place in chosen])
            sizes = batch.texts.texts.bincount()
            self.long_turns += int((sizes[batch.own] > 1).sum())
            for place, prediction in zip(chosen, read_out(self.facts.tasks, batch, self(batch).logits), strict=True):
                found[place] = prediction
            start = end
        return [prediction for prediction in found if prediction is not None]


def _columns(tasks: Tasks) -> int:
    return max((columns.stop for columns in tasks.wide_columns().values()), default=0)


def _encoder(settings: ModelSettings, facts: Facts, folder: Path | None) -> tuple[TextReader, TextEncoder]:
    if settings.encoder is None:
        words = WordReader(facts.words)
        return words, SmallEncoder(settings, words)
    from tercet.labeling.model.hugging_face import open_encoder

    return open_encoder(settings, folder or Path(settings.encoder), weights=folder is None)
