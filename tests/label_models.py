"""Small dialogues whose labels follow from their words, small models of them, and a tiny Hugging Face encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tercet.labeling import (
    Annotation,
    Dialogue,
    Goal,
    Labels,
    ModelSettings,
    Slot,
    Trace,
    TrainingSettings,
    Turn,
)

SIZES = ModelSettings(dim=16, num_heads=2, feed_forward_dim=24, dialogue_layers=1, max_tokens=16)
SHORT = TrainingSettings(epochs=2, batch_size=8, held_out=0.25)
SONGS = ("jazz", "rock", "blues", "polka")
NAMES = ("play", "stop")


def music(
    number: int, tasks: tuple[str, ...] = ("goals", "defects", "intents", "slots", "transcription", "failure_point")
) -> Dialogue:
    """A user asks for music, which may be heard wrong; whoever is understood gets it, whoever is not asks to stop."""
    rng = np.random.default_rng(number)
    song, wrong = SONGS[rng.integers(4)], bool(rng.integers(2))
    said, heard = f"play some {song} please", f"play some {'jaws' if wrong else song} please"
    turns = [
        Turn("user", heard, 0.0, {"device": "radio"}, {"confidence": 0.2 + 0.6 * (not wrong)},
             {"recognition": Trace((heard, said) if wrong else (heard,), (-1.0, -2.0) if wrong else (-0.5,), heard)}),
        Turn("system", "i do not know that" if wrong else f"here is {song}", 1.5),
        Turn("user", "stop" if wrong else "thank you", 9.0, feedback={"stop": wrong}),
        Turn("system", "bye", 10.0),
    ]  # fmt: skip
    start = heard.find(song)
    labels: dict[str, Any] = {
        "goals": (Goal((0, 1, 2) if wrong else (0, 1), success=not wrong),),
        "defects": (1,) if wrong else (),
        "intents": {0: "play", 2: "stop"},
        "slots": () if wrong else (Slot(0, start, start + len(song), "genre"),),
        "transcription": {0: said, 2: "stop" if wrong else "thank you"},
        "failure_point": {0: "recognition" if wrong else "correct"},
    }
    return Dialogue(str(number), tuple(turns), Labels(**{task: labels[task] for task in tasks}))


def annotated(number: int) -> Dialogue:
    """The same by three annotators, the last of whom errs."""
    dialogue = music(number)
    labels, reached = dialogue.labels, dialogue.labels.goals[0].success  # type: ignore[index]
    wrong = Labels(goals=(Goal((0,), success=not reached),), intents={0: "stop", 2: "play"})
    given = [Labels(goals=labels.goals, intents=labels.intents)] * 2 + [wrong]
    notes = tuple(Annotation(name, each) for name, each in zip("abc", given, strict=True))
    return Dialogue(dialogue.id, dialogue.turns, annotations=notes)


def tiny_bert(folder: Path, *, places: int = 40, special: bool = True) -> Path:
    """A random BERT with a tokenizer of words, as transformers saves them; `special`: with tokens around a text."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra `labels`)")
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *["play", "some", "please", "stop", "i", "do", "not", "know", "that", "here", "is", "thank", "you", "bye"],
        *SONGS,
    ]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=places, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 16
    return folder
