"""Data sets as dialogues: on records written here in their layouts, and on the real sets against their known counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tercet.labeling import CONVERTERS, Dialogue, Goal, Labels, Slot, Summary, Trace


def converted(name: str, path: Path) -> tuple[list[Dialogue], Summary]:
    summary = Summary()
    return list(summary.counted(CONVERTERS[name](path))), summary


@pytest.fixture
def real(data: Path, request: pytest.FixtureRequest) -> Path:
    folder = data / "dialogue" / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein distance of words, by its recurrence."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        before, row = row, [number]
        for place, other in enumerate(heard):
            row.append(min(before[place] + (word != other), before[place + 1] + 1, row[-1] + 1))
    return row[-1]


# ---- STC-3

STC3 = {
    "id": "7",
    "turns": [
        {"sender": "customer", "utterances": ["No signal.", "", "Help!"]},
        {"sender": "helpdesk", "utterances": ["Restart it."]},
        {"sender": "customer", "utterances": ["It works."]},
    ],
    "annotations": [
        {"nugget": ["CNUG0", "HNUG*", "CNUG*"], "quality": {"A": 1, "S": 0, "E": 2}},
        {"nugget": ["CNUG", "HNaN", "CNaN"], "quality": {"A": 0, "S": 2, "E": 2}},
        {"nugget": ["CNaN", "HNaN", "CNaN"], "quality": {"A": -2, "S": 0, "E": 0}},
    ],
}  # fmt: skip


def test_stc3(tmp_path: Path) -> None:
    (tmp_path / "train_data_en.json").write_text(json.dumps([STC3]))
    (dialogue,) = CONVERTERS["stc3"](tmp_path)
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == [
        ("user", "No signal.\nHelp!"),
        ("system", "Restart it."),
        ("user", "It works."),
    ]
    assert dialogue.labels == Labels()
    assert [annotation.annotator for annotation in dialogue.annotations] == [f"annotator-0{n}" for n in (1, 2, 3)]
    assert [annotation.labels for annotation in dialogue.annotations] == [
        Labels(goals=(Goal((0, 1, 2), success=True),), intents={0: "trigger", 1: "goal", 2: "goal"}),
        Labels(goals=(Goal((0,), success=False),), intents={0: "nugget", 1: "none", 2: "none"}),
        Labels(goals=(Goal(None, success=False),), intents={0: "none", 1: "none", 2: "none"}),
    ]


@pytest.mark.parametrize("real", ["stc3_dch1"], indirect=True)
def test_real_stc3(real: Path) -> None:
    dialogues, summary = converted("stc3", real)
    assert (summary.dialogues, summary.turns, len(summary.annotators)) == (1672, 6917, 19)
    assert {len(dialogue.annotations) for dialogue in dialogues} == {19}
    counts = summary.to_json()["tasks"]
    assert counts["goals"]["names"] == {"missed": 24151, "reached": 7617}
    assert counts["intents"]["names"] == {
        "nugget": 34728 + 26346,
        "none": 16256 + 15316,
        "trigger": 27045,
        "goal": 8723 + 3009,
    }
    test, _ = converted("stc3", real / "test_data_en.json")
    assert len(test) == 390
    assert not any(dialogue.annotations for dialogue in test)


# ---- SGD


def sgd_frame(service: str, intent: str | None, *acts: str, slots: list[Any] | None = None) -> dict[str, Any]:
    frame: dict[str, Any] = {"service": service, "actions": [{"act": act} for act in acts], "slots": slots or []}
    return frame if intent is None else frame | {"state": {"active_intent": intent}}


SGD_TURNS = [
    ("USER", "a bus to Bonn", [sgd_frame("Buses", "FindBus", "INFORM_INTENT", slots=[{"slot": "to", "start": 9, "exclusive_end": 13}])]),
    ("SYSTEM", "one at 9", [sgd_frame("Buses", None, "OFFER")]),
    ("USER", "take it", [sgd_frame("Buses", "BuyTicket", "SELECT", "INFORM_INTENT")]),
    ("SYSTEM", "sold out", [sgd_frame("Buses", None, "NOTIFY_FAILURE")]),
    ("USER", "again, and the weather", [sgd_frame("Buses", "BuyTicket", "INFORM_INTENT"), sgd_frame("Weather", "GetWeather", "INFORM_INTENT")]),
    ("SYSTEM", "bought it", [sgd_frame("Buses", None, "NOTIFY_SUCCESS", "INFORM")]),
    ("USER", "one more", [sgd_frame("Buses", "BuyTicket", "INFORM_INTENT")]),
    ("SYSTEM", "no", [sgd_frame("Buses", None, "NOTIFY_FAILURE")]),
    ("USER", "bye", [sgd_frame("Buses", "NONE", "GOODBYE")]),
    ("SYSTEM", "bye", [sgd_frame("Buses", None, "GOODBYE")]),
]  # fmt: skip


def sgd_file(path: Path, turns: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    record = {
        "dialogue_id": "1_0",
        "services": ["Buses", "Weather"],
        "turns": [{"speaker": speaker, "utterance": text, "frames": frames} for speaker, text, frames in turns],
    }
    path.write_text(json.dumps([record]))


def test_sgd(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        sgd_file(tmp_path / split / "dialogues_001.json", SGD_TURNS)
    both = list(CONVERTERS["sgd"](tmp_path))
    assert [dialogue.id for dialogue in both] == ["dev/1_0", "test/1_0"]
    assert [dialogue.id for dialogue in CONVERTERS["sgd"](tmp_path / "dev")] == ["dev/1_0"]
    dialogue = both[0]
    assert dialogue.labels.goals == (
        Goal((0, 1), success=True),  # selected when the state had gone over to buying
        Goal((2, 3, 4, 5), success=True),  # failed, tried again
        Goal((4,), success=False),  # never answered
        Goal((6, 7), success=False),  # announced again after the success: another goal
    )
    intents = {0: "FindBus", 2: "BuyTicket", 4: "BuyTicket", 6: "BuyTicket", 8: "NONE"}
    assert dialogue.labels.intents == intents
    assert dialogue.labels.slots == (Slot(0, 9, 13, "to"),)
    assert dialogue.turns[5].categorical == {"service": "Buses", "acts": "INFORM+NOTIFY_SUCCESS"}
    assert not any(turn.categorical for turn in dialogue.turns if turn.speaker == "user")
    assert dialogue.metadata == {"split": "dev", "services": "Buses Weather"}


@pytest.mark.parametrize("real", ["sgd"], indirect=True)
def test_real_sgd(real: Path) -> None:
    dialogues, summary = converted("sgd", real)
    assert (summary.dialogues, summary.turns, summary.user_turns) == (2679, 38842, 19421)
    assert Counter(dialogue.metadata["split"] for dialogue in dialogues) == {"dev": 1348, "test": 1331}
    counts = summary.to_json()["tasks"]
    assert counts["slots"]["labels"] == 26096
    assert counts["intents"]["labels"] == 19421
    assert counts["intents"]["names"]["NONE"] == 1560
    # 4,753 pairs of service and intent are active in some dialogue; 19 are announced again after their success.
    assert counts["goals"]["names"] == {"reached": 4662, "missed": 110}
    first = dialogues[0]
    assert first.turns[0].text[56:83] == "half past 11 in the morning"
    assert first.labels.slots is not None
    assert first.labels.slots[0] == Slot(0, 56, 83, "time")


# ---- DSTC2

DSTC2 = {
    "session-id": "voip-f2-20130328_161556",
    "turns": [
        ["Hello", "cheap thai food", "cheap tie food", -0.5, "asian oriental none cheap"],
        ["Sorry?", "thai", "", -2, "thai none cheap"],
    ],
}


def test_dstc2(tmp_path: Path) -> None:
    (tmp_path / "data.dstc2.dev.json").write_text(json.dumps([DSTC2]))
    (tmp_path / "data.dstc2.ontology.json").write_text("{}")
    (dialogue,) = CONVERTERS["dstc2"](tmp_path)
    assert [(turn.speaker, turn.text) for turn in dialogue.turns] == [
        ("system", "Hello"),
        ("user", "cheap tie food"),
        ("system", "Sorry?"),
        ("user", ""),
    ]
    assert dialogue.labels == Labels(transcription={1: "cheap thai food", 3: "thai"})
    assert dialogue.turns[1].traces == {"recognition": Trace(("cheap tie food",), (-0.5,), "cheap tie food")}
    assert dialogue.turns[1].numeric == {"recognition_score": -0.5}
    assert dialogue.turns[1].categorical == {}
    state = {"goal_state": "food=thai, area=none, pricerange=cheap"}
    assert dialogue.metadata == {"split": "dev", "caller": "f2", **state}
    (tmp_path / "dstc2_dev.flist").write_text("Mar13_S0A1/voip-f2-20130328_161556\n")
    (dialogue,) = CONVERTERS["dstc2"](tmp_path / "data.dstc2.dev.json")
    assert dialogue.turns[3].categorical == {"dialogue_manager": "S0", "acoustic_model": "A1"}
    assert dialogue.metadata == {"split": "dev", "caller": "f2", **state, "condition": "Mar13_S0A1", "group": "A1"}


@pytest.mark.parametrize("real", ["dstc2_asr"], indirect=True)
def test_real_dstc2(real: Path) -> None:
    dialogues, summary = converted("dstc2", real)
    assert (summary.dialogues, summary.turns, summary.user_turns) == (3235, 2 * 25501, 25501)
    assert Counter(dialogue.metadata["split"] for dialogue in dialogues) == {"train": 1612, "dev": 506, "test": 1117}
    assert {dialogue.metadata["group"] for dialogue in dialogues} == {"A0", "A1"}
    errors: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for dialogue in dialogues:
        for turn, said in (dialogue.labels.transcription or {}).items():
            split = dialogue.metadata["split"]
            errors[split] += word_errors(said.split(), dialogue.turns[turn].text.split())
            words[split] += len(said.split())
    rates = {split: round(100 * errors[split] / words[split], 1) for split in words}
    assert rates == {"train": 29.8, "dev": 34.8, "test": 32.2}


# ---- SLURP


def slurp_files(folder: Path, guesses: Sequence[tuple[str, str, str]], *, checkout: bool = False) -> None:
    """One recording for each guess: the recognised text, and the understanding of it and of the true text."""
    sentences = folder / "dataset" / "slurp" if checkout else folder
    predictions = folder / "experiments" / "predictions" if checkout else folder / "predictions"
    for path in (sentences, predictions):
        path.mkdir(parents=True, exist_ok=True)

    def understood(text: str) -> dict[str, Any]:
        scenario, action, *entity = text.split()
        return {
            "scenario": scenario,
            "action": action,
            "entities": [{"type": "genre", "filler": word} for word in entity],
        }

    lines: dict[Path, list[Any]] = {}
    for number, (text, heard, true) in enumerate(guesses):
        lines.setdefault(sentences / "test.jsonl", []).append(
            {
                "slurp_id": number,
                "sentence": "play Jazz",
                "scenario": "play",
                "action": "music",
                "tokens": [{"id": 0, "surface": "play"}, {"id": 1, "surface": "Jazz"}],
                "entities": [{"type": "genre", "span": [1]}],
                "recordings": [{"file": f"{number}-headset.flac", "wer": 0.5}],
            }
        )
        lines.setdefault(predictions / "gold_hermit_predictions.jsonl", []).append(
            understood(true) | {"slurp_id": str(number)}
        )
        lines.setdefault(predictions / "multi_slurp_hermit_predictions.jsonl", []).append(
            understood(heard) | {"file": f"{number}-headset.flac", "text": text}
        )
    for path, records in lines.items():
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("checkout", [False, True])
def test_slurp(tmp_path: Path, checkout: bool) -> None:
    cases = {
        ("play chess", "play music jazz", "play game"): "correct",
        ("play chess", "play game jazz", "play song jazz"): "intent",
        ("play chess", "play game", "play song"): "intent",
        ("play chess", "play music chess", "play music"): "slot",
        ("play Jazz", "play game", "play music"): "slot",
        ("play chess", "play music chess", "play music jazz"): "recognition",
        ("play chess", "play game jazz", "play music"): "recognition",
        ("play Jazz", "play music", "play music jazz"): "other",
    }
    slurp_files(tmp_path, list(cases), checkout=checkout)
    dialogues = list(CONVERTERS["slurp"](tmp_path))
    assert [dialogue.labels for dialogue in dialogues] == [Labels(failure_point={0: name}) for name in cases.values()]
    (turn,) = dialogues[3].turns
    assert (turn.speaker, turn.text) == ("user", "play chess")
    assert turn.categorical == {"domain": "play", "intent": "play_music"}
    assert turn.traces["understanding"].decision == "play_music [genre : chess]"
    assert dialogues[3].metadata == {"slurp_id": "3", "group": "headset", "split": "test"}


@pytest.mark.parametrize("real", ["slurp"], indirect=True)
def test_real_slurp(real: Path) -> None:
    dialogues, summary = converted("slurp", real)
    assert summary.to_json()["tasks"]["failure_point"]["names"] == {
        "correct": 7154,
        "recognition": 2154,
        "slot": 2022,
        "intent": 1357,
        "other": 384,
    }
    assert Counter(dialogue.metadata["group"] for dialogue in dialogues) == {"headset": 6279, "far-field": 6792}
    assert len({dialogue.metadata["slurp_id"] for dialogue in dialogues}) == 2974
    # Nothing that tells how well it was heard is among the inputs: the true text where it differs, an error rate.
    sentences = {}
    for line in (real / "test.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        sentences[str(record["slurp_id"])] = record["sentence"]
    for dialogue in dialogues:
        (turn,) = dialogue.turns
        heard = {turn.text, *turn.traces["recognition"].n_best, turn.traces["recognition"].decision}
        assert heard == {turn.text}
        assert set(turn.numeric) == {"entities"}
        if turn.text != sentences[dialogue.metadata["slurp_id"]]:
            assert sentences[dialogue.metadata["slurp_id"]] not in heard


# ---- Layouts that are others


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("stc3", "train_data_en.json", "[{}]", "dialogue 0 is not laid out as expected: it has no 'turns'"),
        ("stc3", "train_data_en.json", "{}", "expected a JSON list, got dict"),
        ("stc3", "train_data_en.json", json.dumps([STC3 | {"turns": []}]), "dialogue 7: an annotation must have a nugget for each of the 0 turns, got 3"),
        ("stc3", "train_data_en.json", '[{"id": "7", "turns": []}]', "dialogue 7: turns must not be empty"),
        ("sgd", "dialogues_001.json", '[{"dialogue_id": "1_0", "turns": [{"speaker": "USER", "frames": [{"slots": []}]}]}]', "dialogue 1_0 is not laid out as expected: it has no 'state'"),
        ("dstc2", "data.dstc2.dev.json", '[{"session-id": "a-b-c", "turns": [["Hi"]]}]', "dialogue a-b-c: not enough values to unpack"),
    ],
)  # fmt: skip
def test_files_that_are_laid_out_otherwise(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / file}: {message}"):
        list(CONVERTERS[name](tmp_path))


@pytest.mark.parametrize("name", CONVERTERS)
def test_folders_without_the_data_set(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: expected a "):
        list(CONVERTERS[name](tmp_path))


def test_slurp_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    slurp_files(tmp_path, [("play Jazz", "play music jazz", "play music jazz")] * 2)
    predictions = tmp_path / "predictions" / "multi_slurp_hermit_predictions.jsonl"
    first = predictions.read_text().splitlines()[0]
    predictions.write_text(f"{first}\n{first.replace('0-headset', 'gone')}\n")
    with pytest.raises(
        ValueError, match=f"^{predictions}: dialogue in line 2 is not laid out as expected: it has no 'gone.flac'"
    ):
        list(CONVERTERS["slurp"](tmp_path))
    predictions.write_text(f"{first}\nno json\n")
    with pytest.raises(ValueError, match=f"^{predictions}: dialogue in line 2: Expecting value"):
        list(CONVERTERS["slurp"](tmp_path))
