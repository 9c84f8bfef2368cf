"""Logits of a batch -> predictions of its dialogues."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.labeling.data.dialogues import SPEAKERS, Slot
from tercet.labeling.model.batches import Batch
from tercet.labeling.model.heads import Tasks, shares_of
from tercet.labeling.model.predictions import Prediction
from tercet.labeling.model.tagging import spans_of
from tercet.labeling.model.transcribing import edited


def read_out(tasks: Tasks, batch: Batch, logits: dict[str, Tensor]) -> list[Prediction]:
    """The predictions of a batch's dialogues, in their order."""
    sizes = batch.sizes.tolist()
    fields: list[dict[str, Any]] = [{} for _ in sizes]
    for part in ("begins", "success", "defects", "intents", "failure_point"):
        if part in logits:
            shares = logits[part].softmax(1) if part in ("intents", "failure_point") else shares_of(logits[part])
            if part in tasks.speakers:
                asked = torch.tensor([speaker in tasks.speakers[part] for speaker in SPEAKERS])[batch.speakers]
                shares = shares.where(asked.view(-1, *[1] * (shares.ndim - 1)), torch.nan)
            for field, own in zip(fields, shares.split(sizes), strict=True):
                field[part] = own
    if "membership" in logits:
        pairs = shares_of(logits["membership"]).split([size * (size + 1) // 2 for size in sizes])
        for field, own, size in zip(fields, pairs, sizes, strict=True):
            field["membership"] = table_of(own, size)
    if "whole_success" in logits:
        for field, share in zip(fields, shares_of(logits["whole_success"]).tolist(), strict=True):
            field["whole_success"] = share
    if "slots" in logits:
        _slots(tasks, batch, logits, fields)
    if "edits" in logits:
        _transcription(tasks, batch, logits["edits"].softmax(1), logits["choice"], fields)
    return [Prediction(**field) for field in fields]


def table_of(pairs: Tensor, size: int) -> Tensor:
    """The pairs s <= t of a dialogue of `size` turns, by s, as [size, size]: 0 below the diagonal, 1 on it."""
    table = torch.zeros(size, size)
    first, second = torch.triu_indices(size, size)
    table[first, second] = pairs
    return table.fill_diagonal_(1.0)


def _slots(tasks: Tasks, batch: Batch, logits: dict[str, Tensor], fields: list[dict[str, Any]]) -> None:
    places = np.concatenate([piece.spans for e in batch.examples for piece in e.pieces[: len(e.dialogue.turns)]])
    ends = batch.sizes.cumsum(0).tolist()
    turns = batch.token_turn.tolist()
    found: list[list[tuple[Slot, float]]] = [[] for _ in fields]
    spans, outside = spans_of(logits["slots"], logits["slot_names"], batch.token_turn)
    for first, end, name, sure in spans:
        dialogue = bisect_right(ends, turns[first])
        turn = turns[first] - (ends[dialogue - 1] if dialogue else 0)
        slot = Slot(turn, int(places[first, 0]), int(places[end - 1, 1]), tasks.classes.slots[name])
        found[dialogue].append((slot, sure))
    rest = np.ones(ends[-1])
    np.multiply.at(rest, batch.token_turn.numpy(), outside)
    no_slot = torch.from_numpy(rest).float().split(batch.sizes.tolist())
    for field, own, left in zip(fields, found, no_slot, strict=True):
        field["slots"], field["no_slot"] = tuple(own), left


def _transcription(tasks: Tasks, batch: Batch, shares: Tensor, choice: Tensor, fields: list[dict[str, Any]]) -> None:
    """The best hypothesis of each turn, with its edits; likely as all of these together."""
    names = [None, None, *tasks.edits]
    sure, tags = shares.max(1)
    counts = batch.word_candidate.bincount(minlength=len(batch.candidate_text)).tolist()
    by_candidate = list(zip(sure.split(counts), tags.split(counts), strict=True))
    scores, number = choice.tolist(), 0
    for example, field in zip(batch.examples, fields, strict=True):
        turns: dict[int, list[int]] = {}
        for place, (turn, _) in enumerate(example.candidates, number):
            turns.setdefault(turn, []).append(place)
        heard = {}
        for turn, places in turns.items():
            own = torch.tensor([scores[place] for place in places]).softmax(0)
            best = int(own.argmax())
            share, edits = by_candidate[places[best]]
            text = example.texts[example.candidates[places[best] - number][1]]
            whole = edited(text, [names[tag] for tag in edits.tolist()]) if len(edits) > 1 or not text else text
            product = float(own[best])
            for each in share.tolist():
                product *= each
            heard[turn] = whole, product
        number += len(example.candidates)
        field["transcription"] = heard
