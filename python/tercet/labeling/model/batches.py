"""Dialogues made ready for a model, and batches of them: what is known of each, all turns one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tercet.labeling.data.dialogues import Dialogue
from tercet.labeling.model.encoder import TextBatch, text_batch
from tercet.labeling.model.features import PartReader, Parts
from tercet.labeling.model.heads import Tasks, Turns
from tercet.labeling.model.tagging import tags_of
from tercet.labeling.model.targets import Consensus, Targets, targets_of
from tercet.labeling.model.text import Pieces, TextReader
from tercet.labeling.model.transcribing import KEEP, OTHER, edits_between, errors, hypotheses, word_tokens
from tercet.labeling.model.wide import Hashes, Wide, dialogue_groups, summaries, turn_groups


@dataclass(frozen=True, eq=False)
class Example:
    """A dialogue made ready.

    Attributes:
        parts: of its turns; targets: None where nothing is learnt.
        pieces: of each text of `parts`, then of each further hypothesis.
        candidates: (turn, text) of each hypothesis, the number of its text in `pieces`; of user turns.
        words: of each candidate, the tokens that its words begin with.
        wide_whole, wide_turns: features for `Wide`. figures: in training, what it says: [1, 1], [T, columns].
    """

    dialogue: Dialogue
    parts: Parts
    pieces: list[Pieces]
    texts: list[str]
    candidates: list[tuple[int, int]]
    words: list[npt.NDArray[np.int64]]
    targets: Targets | None = None
    wide_whole: list[Hashes] | None = None
    wide_turns: list[list[Hashes]] | None = None
    figures: tuple[Tensor, Tensor] | None = None


class Preparer:
    """Dialogues -> examples."""

    def __init__(
        self, tasks: Tasks, parts: PartReader, reader: TextReader, wide: tuple[Wide | None, Wide | None]
    ) -> None:
        self.tasks, self.parts, self.reader, self.wide = tasks, parts, reader, wide
        self._pieces: dict[str, Pieces] = {}

    def __call__(
        self, dialogue: Dialogue, *, learn: bool = False, consensus: Consensus | None = None, wide: bool = True
    ) -> Example:
        """An example; with targets if it is there to `learn`, with features for ridge regression if `wide`.

        Raises:
            ValueError: a label has a name that the model does not know.
        """
        parts = self.parts.read(dialogue)
        targets = targets_of(dialogue, self.tasks.classes, consensus) if learn else None
        texts, candidates, words = list(parts.texts), [], []
        if "transcription" in self.tasks.parts:
            for place, turn in enumerate(dialogue.turns):
                if turn.speaker == "user" or (targets is not None and place in targets.transcription):
                    for text in hypotheses(turn):
                        number = texts.index(text) if text in texts else len(texts)
                        texts += [text] if number == len(texts) else []
                        candidates.append((place, number))
        pieces = [self._read(text) for text in texts]
        for _, number in candidates:
            spans = pieces[number].spans
            words.append(word_tokens(texts[number], spans) if len(spans) else np.zeros(0, np.int64))
        whole, turns = self.wide if wide else (None, None)
        return Example(
            dialogue, parts, pieces, texts, candidates, words, targets,
            None if whole is None else dialogue_groups(dialogue),
            None if turns is None else turn_groups(dialogue),
        )  # fmt: skip

    def _read(self, text: str) -> Pieces:
        """Short texts come again."""
        found = self._pieces.get(text)
        if found is None:
            found = self.reader.read(text)
            if len(self._pieces) < 1 << 16:
                self._pieces[text] = found
        return found


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples side by side; N turns in all.

    Attributes:
        sizes: int64 [num_dialogues], turns of each. speakers: int64 [N].
        texts: every different text once. own: int64 [N], the text of each turn.
        text_*, name_*, number_*: parts of turns, as `Parts` has them, turns and texts counted over the batch.
        sounds: (turn, Audio).
        turns: without rows, which the model makes.
        token, token_turn: int64 [K]: the tokens of all turns' own texts, in their order.
        candidate_text, candidate_turn, candidate_rank: int64 [num_candidates].
        word, word_candidate: int64 [num_words], tokens (-1: the place before the first word), by candidate.
    """

    examples: Sequence[Example]
    sizes: Tensor
    speakers: Tensor
    texts: TextBatch
    own: Tensor
    text_turn: Tensor
    text_index: Tensor
    text_kind: Tensor
    name_turn: Tensor
    names: Tensor
    number_turn: Tensor
    numbers: Tensor
    shares: Tensor
    sounds: list[tuple[int, object]]
    turns: Turns
    token: Tensor
    token_turn: Tensor
    candidate_text: Tensor
    candidate_turn: Tensor
    candidate_rank: Tensor
    word: Tensor
    word_candidate: Tensor
    targets: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


def collate(examples: Sequence[Example], tasks: Tasks, max_tokens: int, wide: tuple[Wide | None, Wide | None]) -> Batch:
    """A batch of examples, with targets where all of them have any."""
    sizes = np.array([len(example.parts.speakers) for example in examples])
    starts = np.cumsum([0, *sizes])
    number: dict[str, int] = {}
    pieces: list[Pieces] = []
    index = []  # of each example's texts in the batch
    for example in examples:
        for text, piece in zip(example.texts, example.pieces, strict=True):
            if text not in number:
                number[text] = len(pieces)
                pieces.append(piece)
        index.append(np.array([number[text] for text in example.texts], np.int64))
    texts = text_batch(pieces, max_tokens)
    whole: dict[str, list[npt.NDArray[np.int64]]] = {}

    def collect(**columns: npt.NDArray[np.int64]) -> None:
        for name, values in columns.items():
            whole.setdefault(name, []).append(values)

    offsets, first_candidate = texts.offsets.numpy(), 0
    for example, start, places, size in zip(examples, starts, index, sizes, strict=False):
        parts = example.parts
        pairs = np.triu_indices(size)
        turn_texts = places[: len(parts.texts)]
        collect(
            speakers=parts.speakers, own=places[:size], text_turn=parts.text_turn + start, text_index=turn_texts,
            text_kind=parts.text_kind, name_turn=parts.name_turn + start, names=parts.names,
            number_turn=parts.number_turn + start, numbers=parts.numbers,
            first=pairs[0] + start, second=pairs[1] + start, pair_count=np.arange(size, 0, -1),
        )  # fmt: skip
        ranks: dict[int, int] = {}
        for (turn, number_of_text), words in zip(example.candidates, example.words, strict=True):
            ranks[turn] = ranks.get(turn, -1) + 1
            place = places[number_of_text]
            collect(
                candidate_text=np.array([place]), candidate_turn=np.array([turn + start]),
                candidate_rank=np.array([ranks[turn]]), word=np.concatenate([[-1], words + offsets[place]]),
                word_candidate=np.full(len(words) + 1, first_candidate),
            )  # fmt: skip
            first_candidate += 1
    joint = {name: torch.from_numpy(np.concatenate(values)) for name, values in whole.items()}
    none = torch.zeros(0, dtype=torch.int64)
    own = joint["own"]
    counts = texts.offsets.diff()[own]
    token = torch.repeat_interleave(
        texts.offsets[:-1][own] - torch.nn.functional.pad(counts.cumsum(0), (1, 0))[:-1], counts
    )
    shares = np.concatenate([example.parts.shares for example in examples])
    turns = Turns(
        torch.zeros(0), torch.from_numpy(starts), joint["first"], joint["second"],
        torch.nn.functional.pad(joint["pair_count"].cumsum(0), (1, 0)), *wide_figures(examples, wide)[::-1],
    )  # fmt: skip
    sounds = [
        (int(start) + turn, sound)
        for example, start in zip(examples, starts, strict=False)
        for turn, sound in example.parts.sounds.items()
    ]
    names = ("speakers", "text_turn", "text_index", "text_kind", "name_turn", "names", "number_turn", "numbers",
             "candidate_text", "candidate_turn", "candidate_rank", "word", "word_candidate")  # fmt: skip
    return Batch(
        examples=examples,
        sizes=torch.from_numpy(sizes),
        texts=texts,
        own=own,
        shares=torch.from_numpy(shares),
        sounds=sounds,
        turns=turns,
        token=token + torch.arange(len(token)),
        token_turn=torch.repeat_interleave(torch.arange(len(own)), counts),
        targets=_targets(examples, tasks) if all(example.targets is not None for example in examples) else {},
        **{name: joint.get(name, none) for name in names},
    )


def turn_summaries(examples: Sequence[Example], figures: Tensor) -> Tensor:
    """`summaries` of the figures of all examples' turns."""
    turns = [example.dialogue.turns for example in examples]
    by_user = torch.tensor([turn.speaker == "user" for each in turns for turn in each])
    return summaries(figures, by_user, torch.tensor([len(each) for each in turns]))


def wide_figures(
    examples: Sequence[Example], wide: tuple[Wide | None, Wide | None]
) -> tuple[Tensor | None, Tensor | None]:
    """The figures of dialogues and of turns: those that were cross-fitted in training, else by the weights."""
    if examples[0].figures is not None:
        figures = [example.figures for example in examples if example.figures is not None]
        whole, turns = (torch.cat([each[place] for each in figures]) for place in (0, 1))
        return whole if whole.numel() else None, turns if turns.numel() else None
    found: list[Tensor | None] = [None, None]
    if wide[1] is not None:
        found[1] = wide[1](wide[1].rows([groups for each in examples for groups in each.wide_turns or ()]))
    if wide[0] is not None:
        rows = wide[0].rows([each.wide_whole for each in examples if each.wide_whole is not None])
        found[0] = wide[0](rows, None if found[1] is None else turn_summaries(examples, found[1]))
    return found[0], found[1]


def _targets(examples: Sequence[Example], tasks: Tasks) -> dict[str, tuple[Tensor, Tensor]]:
    """What is wanted and its weight, by part; the loss needs no more."""
    targets = [example.targets for example in examples if example.targets is not None]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in ("begins", "success", "defects", "intents", "failure_point", "swapped"):
        if part in tasks.parts:
            values = ([getattr(each, name) for each in targets] for name in (part, f"{part}_weight"))
            wanted, weights = (torch.from_numpy(np.concatenate(each)) for each in values)
            found[part] = wanted, weights
    if "membership" in tasks.parts:
        upper = [np.triu_indices(len(each.begins)) for each in targets]
        wanted, weights = (
            torch.from_numpy(np.concatenate([getattr(t, name)[pair] for t, pair in zip(targets, upper, strict=True)]))
            for name in ("membership", "membership_weight")
        )
        found["membership"] = wanted, weights
    if "whole_success" in tasks.parts:
        found["whole_success"] = (
            torch.tensor([each.whole_success for each in targets]),
            torch.tensor([each.whole_weight for each in targets]),
        )
    if "slots" in tasks.parts:
        names, kinds, named, known = tasks.classes.slots, [], [], []
        for example, each in zip(examples, targets, strict=True):
            for turn in range(len(example.dialogue.turns)):
                kind, name = tags_of(each.slots, names, turn, example.pieces[turn].spans)
                kinds.append(kind)
                named.append(name)
                known.append(np.maximum(each.slots_known[turn], name >= 0).astype(np.float32))
        found["slots"] = torch.from_numpy(np.concatenate(kinds)), torch.from_numpy(np.concatenate(known))
        number = torch.from_numpy(np.concatenate(named))
        found["slot_names"] = number.clamp(min=0), (number >= 0).float()
    if "transcription" in tasks.parts:
        found |= _transcription_targets(examples, targets, tasks)
    return found


def _transcription_targets(
    examples: Sequence[Example], targets: Sequence[Targets], tasks: Tasks
) -> dict[str, tuple[Tensor, Tensor]]:
    """The edit of each word, and which candidates of a turn are nearest to what was said (shares of their turn)."""
    ids = {edit: place for place, edit in enumerate(tasks.edits, 2)}
    tags: list[int] = []
    known: list[float] = []
    nearest: list[float] = []
    weights: list[float] = []
    for example, each in zip(examples, targets, strict=True):
        off: dict[int, list[int]] = {}
        for (turn, number), words in zip(example.candidates, example.words, strict=True):
            said = each.transcription.get(turn)
            if said is None:
                tags += [KEEP] * (len(words) + 1)
                known += [0.0] * (len(words) + 1)
            else:
                text = example.texts[number] if len(words) else ""
                made = edits_between(text, said)
                tags += [KEEP if edit is None else ids.get(edit, OTHER) for edit in made]
                known += [1.0] * len(made)
                off.setdefault(turn, []).append(errors(text, said))
        for turn, _ in example.candidates:
            counts = off.get(turn, [])
            weights.append(float(len(counts) > 1))
        places: dict[int, int] = {}
        for turn, _ in example.candidates:
            rank = places[turn] = places.get(turn, -1) + 1
            counts = off.get(turn, [])
            best = bool(counts) and counts[rank] == min(counts)
            nearest.append(best / counts.count(min(counts)) if best else 0.0)
    return {
        "edits": (torch.tensor(tags, dtype=torch.int64), torch.tensor(known)),
        "choice": (torch.tensor(nearest), torch.tensor(weights)),
    }
