"""Labels of new dialogues: those that a model is sure enough of, with their confidence and where they come from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tercet.labeling.data.dialogues import Annotation, Dialogue, Labels, turn_of
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import ABSENCES, KINDS, claims, decide, task_of
from tercet.labeling.trust.calibrating import Calibration
from tercet.labeling.trust.thresholds import Threshold


@dataclass
class KindReport:
    """Labels of one kind.

    Attributes:
        claimed: what the model could have said. written: what it was sure enough of.
        threshold: of calibrated confidence, with the precision that it promises; None: everything is written.
    """

    claimed: int = 0
    written: int = 0
    threshold: Threshold | None = None

    @property
    def coverage(self) -> float:
        """The share that is written; 0 of nothing."""
        return self.written / self.claimed if self.claimed else 0.0


@dataclass
class GenerationReport:
    """What generating came to.

    Attributes:
        kinds: by kind, of KINDS. dialogues, turns, long_turns: how many; long turns were read in windows.
        skipped: malformed dialogues that were left out. seconds: reading and writing included.
    """

    kinds: dict[str, KindReport] = field(default_factory=dict)
    dialogues: int = 0
    turns: int = 0
    long_turns: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def written(self) -> int:
        """Labels of all kinds; that there is none at a turn (`ABSENCES`) does not count as one."""
        return sum(each.written for kind, each in self.kinds.items() if kind not in ABSENCES)

    def to_json(self) -> dict[str, Any]:
        """All figures; a threshold that nothing passes is null."""
        seconds = max(self.seconds, 1e-9)
        return {
            "dialogues": self.dialogues,
            "turns": self.turns,
            "long_turns": self.long_turns,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "labels": self.written,
            "turns_per_second": self.turns / seconds,
            "labels_per_hour": 3600 * self.written / seconds,
            "kinds": {kind: _kind_to_json(each) for kind, each in self.kinds.items()},
        }


def thresholds_of(
    model: LabelModel, calibration: Calibration, min_precision: float, *, alpha: float = 0.05
) -> dict[str, Threshold]:
    """The threshold of each kind of label that a model makes.

    Raises:
        ValueError: nothing is known of its confidence.
    """
    kinds = [kind for kind in KINDS if kind in made_by(model)]
    if not any(kind in calibration.kinds for kind in kinds):
        raise ValueError(
            "tercet.labeling.generate: min_precision needs labelled dialogues that the model has not learnt from: train"
            " with held_out above 0, or calibrate on others"
        )
    return {kind: calibration.threshold(kind, min_precision, alpha=alpha) for kind in kinds}


def made_by(model: LabelModel) -> tuple[str, ...]:
    """The kinds of labels that a model makes, of KINDS."""
    parts = set(model.parts)
    names = {"goals": {"begins"}, "success": {"success", "whole_success"}}
    able = {kind for kind in KINDS if parts & names.get(kind, {kind})}
    return tuple(kind for kind in KINDS if ABSENCES.get(kind, kind) in able)


def generate(
    model: LabelModel,
    dialogues: Iterable[Dialogue],
    calibration: Calibration | None = None,
    thresholds: Mapping[str, Threshold] | None = None,
    *,
    tasks: Sequence[str] | None = None,
    annotator: str = "tercet",
    provenance: str = "",
    report: GenerationReport | None = None,
) -> Iterator[Dialogue]:
    """The dialogues with an annotation of the model added, one after the other; what is in them stays.

    Args:
        model: of `train`.
        dialogues: need not fit in memory.
        calibration: of the model's confidence, which is written by it; None: as it is.
        thresholds: by kind, of `thresholds_of`; None: every label is written.
        tasks: to label, of TASKS; None: all of the model's.
        annotator: the name of the model in annotations. What it said before under this name is replaced.
        report: counts as it goes.
        provenance: written to the metadata of dialogues that get labels, under `labels by ANNOTATOR`.

    Raises:
        ValueError: the model makes no labels, or was not trained for one of the tasks.
    """
    calibration = calibration or Calibration()
    report = GenerationReport() if report is None else report
    kinds = made_by(model)
    if not kinds:
        raise ValueError(
            f"tercet.labeling.generate: the model was trained for {', '.join(model.parts)} and has no labels"
        )
    for task in tasks or ():
        if task not in (able := tuple(map(task_of, kinds))):
            known = ", ".join(dict.fromkeys(able))
            raise ValueError(f"tercet.labeling.generate: tasks must be those of the model, {known}, got {task!r}")
    if tasks:
        kinds = tuple(kind for kind in kinds if task_of(kind) in tasks)
    lowest = {kind: found.threshold for kind, found in (thresholds or {}).items()}
    report.kinds = {kind: KindReport(threshold=(thresholds or {}).get(kind)) for kind in kinds}
    started, passed = time.perf_counter(), _Passing(dialogues)
    for prediction in model.predictions(passed):
        dialogue = passed.kept.pop(0)
        for claim in claims(prediction, model.classes):
            if claim.kind in report.kinds:
                report.kinds[claim.kind].claimed += 1
        annotation = decide(
            prediction, model.classes, lowest, annotator=annotator,
            calibrated=lambda claim: calibration.calibrated(claim.kind, claim.confidence),
        )  # fmt: skip
        annotation = _of_tasks(annotation, tasks)
        _count(annotation.labels, len(dialogue.turns), report)
        others = tuple(each for each in dialogue.annotations if each.annotator != annotator)
        report.dialogues += 1
        report.turns += len(dialogue.turns)
        report.long_turns = model.long_turns
        report.seconds = time.perf_counter() - started
        if not annotation.labels.tasks():
            yield replace(dialogue, annotations=others)
            continue
        source = {f"labels by {annotator}": provenance} if provenance else {}
        yield replace(dialogue, annotations=(*others, annotation), metadata={**dialogue.metadata, **source})


class _Passing:
    """Dialogues on their way to the model, kept until their predictions come."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self._dialogues = iter(dialogues)
        self.kept: list[Dialogue] = []

    def __iter__(self) -> Iterator[Dialogue]:
        for dialogue in self._dialogues:
            self.kept.append(dialogue)
            yield dialogue


def _of_tasks(annotation: Annotation, tasks: Sequence[str] | None) -> Annotation:
    """The labels of the tasks alone."""
    if tasks is None:
        return annotation
    labels = annotation.labels
    kept = {task: getattr(labels, task) for task in labels.tasks() if task in tasks}
    judged = {task: turns for task, turns in labels.judged.items() if task in tasks}
    confidence = {kind: values for kind, values in annotation.confidence.items() if task_of(kind) in tasks}
    return Annotation(annotation.annotator, Labels(**kept, judged=judged), confidence)


def _count(labels: Labels, num_turns: int, report: GenerationReport) -> None:
    for kind in report.kinds:
        if kind == "goals":
            count = sum(goal.turns is not None for goal in labels.goals or ())
        elif kind == "success":
            count = sum(goal.success is not None for goal in labels.goals or ())
        elif kind in ABSENCES:
            task = ABSENCES[kind]
            named = () if kind == "no_slot" else set(map(turn_of, getattr(labels, task) or ())) - {None}
            count = len(labels.judged_turns(task, num_turns)) - len(named)
        else:
            count = len(getattr(labels, kind) or ())
        report.kinds[kind].written += count


def _kind_to_json(found: KindReport) -> dict[str, Any]:
    written = {"claimed": found.claimed, "written": found.written, "coverage": found.coverage}
    if found.threshold is None:
        return written
    threshold = asdict(found.threshold)
    if found.threshold.accepted == 0:
        threshold["threshold"] = None
    return {
        **written, **threshold,
        "held_out_coverage": found.threshold.coverage, "held_out_precision": found.threshold.precision,
    }  # fmt: skip
