"""SLURP (Bastianelli et al., EMNLP 2020, arXiv 2011.13205): recorded commands, and failure points derived from them.

One dialogue of one turn for each recording of the test set whose recognised text and understanding were published
(multi_slurp_hermit_predictions.jsonl):
  inputs     text: what was recognised; what the understanding made of it: categorical domain and intent, numeric
             entities, traces.recognition and traces.understanding. No true text and no error rate is among them.
  labels     failure_point, by comparing the understanding of the recognised text (A) and of the true text (B, from
             gold_hermit_predictions.jsonl) with the annotation; the first that holds:
               correct      A has the right intent (scenario and action) and the right entities
               intent       A and B have a wrong intent
               slot         A and B have wrong entities
               recognition  the recognised text is not the true one
               other        the texts are equal, and yet A is wrong
             Entities are pairs of type and words, in lower case and any order. This is `failure_point` of recognition
             and, side by side, intent and slots, of which it is known what they make of true input.
  metadata   slurp_id (recordings of one sentence share it: split by it), group (headset or far-field), split
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tercet.labeling.data.converters.layout import find_files, in_layout
from tercet.labeling.data.dialogues import Dialogue, Labels, Trace, Turn
from tercet.labeling.failure_points import Component, failure_point

_RECOGNISED = "multi_slurp_hermit_predictions.jsonl"
_TRUE = "gold_hermit_predictions.jsonl"
_Record = Mapping[str, Any]


def read_slurp(path: Path) -> Iterator[Dialogue]:
    """The recordings of a folder with test.jsonl and predictions/, or of a checkout of SLURP's repository.

    Raises:
        FileNotFoundError: a file is absent. ValueError: one is not laid out as SLURP's.
    """
    test, true, file = (
        find_files(path, f"{short}{name}", f"{long}/{name}", inside=True)[0]
        for short, long, name in (
            ("", "dataset/slurp", "test.jsonl"),
            ("predictions/", "experiments/predictions", _TRUE),
            ("predictions/", "experiments/predictions", _RECOGNISED),
        )
    )
    sentences: dict[str, _Record] = {}  # by recording
    for number, record in _lines(test):
        with in_layout(test, f"in line {number}"):
            sentences.update({recording["file"]: record for recording in record["recordings"]})
    understood: dict[str, _Record] = {}  # from the true text, by sentence
    for number, record in _lines(true):
        with in_layout(true, f"in line {number}"):
            understood[str(record["slurp_id"])] = record
    for number, record in _lines(file):
        with in_layout(file, f"in line {number}"):
            sentence = sentences[record["file"]]
            dialogue = _dialogue(record, sentence, understood[str(sentence["slurp_id"])])
        yield dialogue


def _lines(path: Path) -> Iterator[tuple[int, _Record]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            with in_layout(path, f"in line {number}"):
                record = json.loads(line)
            yield number, record


def _dialogue(recognised: _Record, sentence: _Record, understood: _Record) -> Dialogue:
    text, scenario = recognised["text"], recognised["scenario"]
    intent = f"{scenario}_{recognised['action']}"
    entities = [f"[{entity['type']} : {entity['filler']}]" for entity in recognised["entities"]]
    turn = Turn(
        "user",
        text,
        categorical={"domain": scenario, "intent": intent},
        numeric={"entities": float(len(entities))},
        traces={
            "recognition": Trace((text,), decision=text),
            "understanding": Trace(decision=" ".join([intent, *entities])),
        },
    )
    recording = recognised["file"].removesuffix(".flac")
    return Dialogue(
        recording,
        (turn,),
        Labels(failure_point={0: _failure_point(recognised, sentence, understood)}),
        metadata={
            "slurp_id": str(sentence["slurp_id"]),
            "group": "headset" if recording.endswith("-headset") else "far-field",
            "split": "test",
        },
    )


def _failure_point(recognised: _Record, sentence: _Record, understood: _Record) -> str:
    words = {token["id"]: token["surface"] for token in sentence["tokens"]}
    entities = sorted(
        (entity["type"], " ".join(words[word] for word in entity["span"]).lower()) for entity in sentence["entities"]
    )
    intents, slots = [], []  # of the recognised and of the true text: is it right?
    for guess in (recognised, understood):
        intents.append(all(guess[name] == sentence[name] for name in ("scenario", "action")))
        slots.append(sorted((entity["type"], entity["filler"].lower()) for entity in guess["entities"]) == entities)
    heard = Component("recognition", recognised["text"] == sentence["sentence"])
    return failure_point([heard, [Component("intent", *intents), Component("slot", *slots)]])
