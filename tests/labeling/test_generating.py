"""Labels that a model writes: those that are sure enough, calibrated; provenance; Hugging Face encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from label_models import SHORT, SIZES, annotated, music, tiny_bert
from tercet.labeling import (
    KINDS,
    Annotation,
    Calibration,
    Classes,
    Dialogue,
    Epoch,
    GenerationReport,
    Goal,
    LabelModel,
    Labels,
    Prediction,
    Reporter,
    Slot,
    Threshold,
    TrainingResult,
    TrainingSettings,
    Turn,
    calibrate,
    claims,
    generate,
    load_model,
    pretrain,
    thresholds_of,
    train,
)
from tercet.labeling.training.gates import measured
from tercet.labeling.trust.calibrating import judge

LEARN = TrainingSettings(epochs=15, batch_size=8, held_out=0.4, learning_rate=5e-3)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    return train([music(number) for number in range(120)], LEARN, SIZES)


def test_sure_labels_are_written(result: TrainingResult) -> None:
    new = [music(number) for number in range(300, 340)]
    bare = [replace(each, labels=Labels(), annotations=(Annotation("ann", Labels(defects=())),)) for each in new]
    thresholds = thresholds_of(result.model, result.calibration, 0.8)
    report = GenerationReport()
    made = list(
        generate(result.model, bare, result.calibration, thresholds, annotator="m", provenance="here", report=report)
    )
    assert [each.id for each in made] == [each.id for each in new]
    right = total = 0
    for truth, each in zip(new, made, strict=True):
        assert each.annotations[0] == Annotation("ann", Labels(defects=()))
        for annotation in each.annotations[1:]:
            assert annotation.annotator == "m"
            assert each.metadata == {"labels by m": "here"}
            for kind, judged in annotation.confidence.items():
                turns = annotation.labels.judged_turns("defects", len(each.turns)) if kind == "defects" else ()
                kinds = [kind if turn in (annotation.labels.defects or ()) else "no_defect" for turn in turns]
                if kind == "goals":
                    kinds = ["success" if goal.turns is None else kind for goal in annotation.labels.goals or ()]
                kinds = kinds or [kind] * len(judged)
                assert all(sure >= thresholds[k].threshold for k, sure in zip(kinds, judged, strict=True))
            intents = annotation.labels.intents or {}
            known = {turn: name for turn, name in intents.items() if turn in (truth.labels.intents or {})}
            total += len(known)
            right += sum((truth.labels.intents or {})[turn] == name for turn, name in known.items())
    assert total > 0
    assert right >= 0.8 * total
    assert report.dialogues == 40
    assert report.turns == 160
    assert report.written > 0
    for kind, found in report.kinds.items():
        assert found.written <= found.claimed, kind
        assert found.threshold is not None
        assert found.threshold.bound >= 0.8 or not found.written
    again = list(generate(result.model, made, result.calibration, thresholds, annotator="m"))
    assert [each.annotations for each in again] == [each.annotations for each in made]  # its own labels are replaced


class Fixed:
    """Believes the same of every dialogue."""

    parts, classes, long_turns = ("begins", "membership", "success", "defects", "slots"), Classes(slots=("genre",)), 0

    def predictions(self, dialogues: Iterable[Dialogue]) -> Iterator[Prediction]:
        for _ in dialogues:
            yield Prediction(
                begins=torch.tensor([0.9, 0.4, 0.6, 0.05]), membership=torch.eye(4), success=torch.full((4,), 0.9),
                defects=torch.tensor([0.1, 0.95, 0.6, 0.45]), no_slot=torch.tensor([0.9, 0.95, 0.9, 0.6]),
                slots=((Slot(0, 0, 4, "genre"), 0.95), (Slot(0, 5, 9, "genre"), 0.5), (Slot(2, 0, 4, "genre"), 0.9)),
            )  # fmt: skip


def test_what_is_sure_is_written_turn_by_turn() -> None:
    """And counted for each kind of label, with its provenance."""
    thresholds = {kind: Threshold(0.8, 10, 9, 9, 0.7, 0.7, 0.05) for kind in KINDS}
    report = GenerationReport()
    bare = [replace(music(number), labels=Labels()) for number in (0, 2)]
    made = list(generate(Fixed(), bare, None, thresholds, provenance="here", report=report))  # type: ignore[arg-type]
    for each in made:
        (annotation,) = each.annotations
        assert each.metadata == {"labels by tercet": "here"}
        assert annotation.labels == Labels(
            goals=(Goal((0,), success=True),), defects=(1,),
            slots=(Slot(0, 0, 4, "genre"), Slot(2, 0, 4, "genre")),
            judged={"goals": (0, 3), "defects": (0, 1), "slots": (1, 2)},
        )  # fmt: skip
        assert annotation.confidence["defects"] == pytest.approx((0.9, 0.95))
    counts = {kind: (found.claimed, found.written) for kind, found in report.kinds.items()}
    assert counts == {
        "goals": (4, 2), "no_goal": (4, 2), "success": (4, 2), "defects": (4, 2), "no_defect": (4, 2),
        "slots": (6, 4), "no_slot": (8, 4),
    }  # fmt: skip
    assert report.to_json()["labels"] == 2 + 2 + 2 + 4  # that there is none is no label
    (goals, _) = generate(Fixed(), bare, None, thresholds, tasks=["goals"])  # type: ignore[arg-type]
    assert goals.annotations[0].labels == Labels(goals=(Goal((0,), success=True),), judged={"goals": (0, 3)})
    assert set(goals.annotations[0].confidence) == {"goals", "success"}


def test_confidence_is_calibrated(result: TrainingResult) -> None:
    """Claims on held-out dialogues are judged, and one temperature keeps their order."""
    for kind, judged in result.calibration.kinds.items():
        values = [result.calibration.calibrated(kind, float(each)) for each in judged.confidence]
        order = judged.confidence.argsort(stable=True)
        assert torch.equal(
            torch.tensor(values, dtype=torch.float64)[order].sort().values,
            torch.tensor(values, dtype=torch.float64)[order],
        )
    assert Calibration().calibrated("slots", 0.3) == 0.3
    assert Calibration().threshold("slots", 0.9).threshold == float("inf")


def test_claims_are_judged_by_labels() -> None:
    model = train([annotated(n) for n in range(24)], replace(SHORT, held_out=0.0), SIZES).model
    for dialogue in (music(3), annotated(3)):  # two of three annotators say what holds
        prediction = model.predict([dialogue])[0]
        gold = music(3).labels
        for claim, right in judge(dialogue, claims(prediction, model.classes)):
            if claim.kind == "intents":
                assert right == ((gold.intents or {})[claim.place[0]] == claim.label)
            elif claim.kind == "success":
                assert right == ((claim.label == "reached") == (gold.goals or ())[0].success)
            elif claim.kind == "goals":
                assert right == (claim.place == (gold.goals or ())[0].turns)
    assert calibrate(model, [annotated(n) for n in range(50, 60)]).kinds


def test_long_turns_are_read_in_windows(result: TrainingResult) -> None:
    long = Dialogue("1", (Turn("user", "play some jazz please " * 40), Turn("system", "bye")))
    report = GenerationReport()
    list(generate(result.model, [long, music(1)], report=report))
    assert report.long_turns == 1
    assert report.to_json()["long_turns"] == 1


def test_tasks_may_be_chosen(result: TrainingResult) -> None:
    report = GenerationReport()
    made = list(generate(result.model, [replace(music(1), labels=Labels())], tasks=["intents"], report=report))
    assert made[0].annotations[0].labels.tasks() == ("intents",) == tuple(report.kinds)
    assert set(made[0].annotations[0].confidence) == {"intents"}


@pytest.mark.parametrize("encoder", ["small", "bert"])
def test_gates_come_down_to_their_share_of_compute(tmp_path: Path, encoder: str) -> None:
    """And what is learnt so is the same after a kill, and when it is loaded."""
    sizes = replace(SIZES, gates="learnt", encoder=str(tiny_bert(tmp_path / "bert")) if encoder == "bert" else None)
    settings = TrainingSettings(epochs=8, batch_size=8, held_out=0.0, learning_rate=5e-3, target_compute=0.5)
    dialogues = [music(n) for n in range(40)]
    whole = train(dialogues, settings, sizes, out=tmp_path / "whole").model
    texts = whole.batch([whole.prepare(dialogue) for dialogue in dialogues]).texts
    with torch.no_grad():
        assert measured(whole.encoder, lambda: whole.encoder(texts)) == pytest.approx(0.5, abs=0.06)

    class Stop(Reporter):
        def on_epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dialogues, settings, sizes, out=tmp_path / "broken", reporter=Stop())
    again = train(dialogues, settings, sizes, out=tmp_path / "broken", resume=True).model
    for other in (again, load_model(tmp_path / "whole")[0]):
        for name, value in whole.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_errors(result: TrainingResult) -> None:
    start = pretrain([music(n) for n in range(8)], replace(SHORT, epochs=1), SIZES).model
    with pytest.raises(ValueError, match="was trained for swapped and has no labels"):
        list(generate(start, [music(1)]))
    with pytest.raises(ValueError, match=r"tasks must be those of the model, goals, defects, .* got 'moods'"):
        list(generate(result.model, [music(1)], tasks=["moods"]))
    with pytest.raises(ValueError, match="min_precision needs labelled dialogues"):
        thresholds_of(result.model, Calibration(), 0.9)
    strange = replace(music(1), labels=Labels(intents={0: "dance"}))
    with pytest.raises(
        ValueError, match="dialogue '1': intents must have names that the model was trained for, got 'dance'"
    ):
        calibrate(result.model, [strange])


@pytest.mark.parametrize("tune", [True, False])
def test_any_hugging_face_encoder(tmp_path: Path, tune: bool) -> None:
    """Its weights are taken, trained or left, saved with the model, and long texts are read in windows."""
    folder = tiny_bert(tmp_path / "bert")
    sizes = replace(SIZES, encoder=str(folder), tune_encoder=tune)
    settings = replace(SHORT, encoder_learning_rate=1e-3)
    found = train([music(n) for n in range(24)], settings, sizes, out=tmp_path / "model")
    before = LabelModel(sizes, found.model.facts).encoder.state_dict()
    after = found.model.encoder.state_dict()
    name = next(key for key in after if key.endswith("query.weight"))
    assert torch.equal(before[name], after[name]) == (not tune)
    (folder / "model.safetensors").unlink()  # what was saved stands by itself
    loaded = load_model(tmp_path / "model")[0]
    long = Dialogue("1", (Turn("user", "play some jazz please " * 20), Turn("system", "")))
    for dialogue in (music(3), long):
        one, other = (model.predict([dialogue])[0] for model in (found.model, loaded))
        assert one.slots == other.slots
        assert torch.equal(one.begins, other.begins)
    assert loaded.long_turns == 1
    (folder / "config.json").unlink()
    more = train(
        [music(n) for n in range(8)],
        replace(settings, epochs=1, learning_rate=1e-12, encoder_learning_rate=1e-12),
        start=loaded,
    )
    torch.testing.assert_close(more.model.encoder.state_dict()[name], after[name])


@pytest.mark.parametrize("special", [True, False])
def test_texts_without_tokens(tmp_path: Path, special: bool) -> None:
    """Beside others and alone, whatever a tokenizer sets around them."""
    folder = tiny_bert(tmp_path / "bert", special=special)
    made = train([music(n) for n in range(8)], replace(SHORT, epochs=1), replace(SIZES, encoder=str(folder))).model
    mute = Dialogue("1", (Turn("user", ""), Turn("system", "")))
    alone, among = made.predict([mute])[0], made.predict([music(1), mute, music(2)])[1]
    assert alone.begins is not None
    assert among.begins is not None
    torch.testing.assert_close(alone.begins, among.begins)
    assert alone.slots == ()


def test_encoders_that_do_not_fit(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    some = [music(n) for n in range(4)]
    with pytest.raises(ValueError, match="max_tokens must be at most 38, the places of"):
        train(some, replace(SHORT, held_out=0.0), replace(SIZES, encoder=str(folder), max_tokens=64))
    with pytest.raises(FileNotFoundError, match="no such directory"):
        train(some, replace(SHORT, held_out=0.0), replace(SIZES, encoder=str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected an encoder of transformers with its tokenizer"):
        train(some, replace(SHORT, held_out=0.0), replace(SIZES, encoder=str(tmp_path / "empty")))
