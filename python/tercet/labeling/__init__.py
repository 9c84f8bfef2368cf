"""Labels of dialogues: their format, real data sets in it, how far annotators agree, how far a model can be trusted."""

from tercet.labeling.agreement import (
    Agreement,
    AnnotatorAgreement,
    Uncertain,
    agreement,
    consensus,
    krippendorff_alpha,
    least_certain,
)
from tercet.labeling.converters import CONVERTERS
from tercet.labeling.dialogues import (
    FAILURE_POINTS,
    SPEAKERS,
    TASKS,
    Annotation,
    Audio,
    Dialogue,
    Goal,
    Labels,
    Slot,
    Trace,
    Turn,
)
from tercet.labeling.json_lines import dialogue_from_json, dialogue_to_json
from tercet.labeling.judgements import Item, Judgements, answers, judgements
from tercet.labeling.predictions import KINDS, Claim, Classes, Prediction, claims, decide
from tercet.labeling.reading import DialogueReader, write_dialogues
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.summary import Summary
from tercet.labeling.trust import (
    Threshold,
    choose_threshold,
    expected_calibration_error,
    fit_temperature,
    precision_lower_bound,
)

__all__ = [
    "CONVERTERS",
    "FAILURE_POINTS",
    "KINDS",
    "SPEAKERS",
    "TASKS",
    "Agreement",
    "Annotation",
    "AnnotatorAgreement",
    "Audio",
    "Claim",
    "Classes",
    "Dialogue",
    "DialogueReader",
    "Goal",
    "Item",
    "Judgements",
    "Labels",
    "ModelSettings",
    "Prediction",
    "Slot",
    "Summary",
    "Threshold",
    "Trace",
    "TrainingSettings",
    "Turn",
    "Uncertain",
    "agreement",
    "answers",
    "choose_threshold",
    "claims",
    "consensus",
    "decide",
    "dialogue_from_json",
    "dialogue_to_json",
    "expected_calibration_error",
    "fit_temperature",
    "judgements",
    "krippendorff_alpha",
    "least_certain",
    "precision_lower_bound",
    "write_dialogues",
]
