"""Labels of dialogues: their format, real data sets in it, how far annotators agree, a model that makes them, and how
far it can be trusted."""

from tercet.labeling.agreement import (
    Agreement,
    AnnotatorAgreement,
    Uncertain,
    agreement,
    consensus,
    krippendorff_alpha,
    least_certain,
)
from tercet.labeling.baseline import TfidfRidge
from tercet.labeling.calibrating import Calibration, calibrate
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
from tercet.labeling.evaluating import Predictor, evaluate
from tercet.labeling.exploration import Question, explore
from tercet.labeling.failure_points import Component, failure_point, failure_point_of_assistant
from tercet.labeling.feedback import FeedbackModel, WeakLabels, fit_feedback, weak_labels
from tercet.labeling.generating import GenerationReport, generate, thresholds_of
from tercet.labeling.json_lines import dialogue_from_json, dialogue_to_json
from tercet.labeling.judgements import Item, Judgements, answers, judgements
from tercet.labeling.model import LabelModel
from tercet.labeling.predictions import KINDS, Claim, Classes, Prediction, claims, decide
from tercet.labeling.pretraining import pretrain
from tercet.labeling.reading import DialogueReader, write_dialogues
from tercet.labeling.run import Epoch, Reporter, TrainingResult
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.storage import load_model, save_model
from tercet.labeling.summary import Summary
from tercet.labeling.training import train
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
    "Calibration",
    "Claim",
    "Classes",
    "Component",
    "Dialogue",
    "DialogueReader",
    "Epoch",
    "FeedbackModel",
    "GenerationReport",
    "Goal",
    "Item",
    "Judgements",
    "LabelModel",
    "Labels",
    "ModelSettings",
    "Prediction",
    "Predictor",
    "Question",
    "Reporter",
    "Slot",
    "Summary",
    "TfidfRidge",
    "Threshold",
    "Trace",
    "TrainingResult",
    "TrainingSettings",
    "Turn",
    "Uncertain",
    "WeakLabels",
    "agreement",
    "answers",
    "calibrate",
    "choose_threshold",
    "claims",
    "consensus",
    "decide",
    "dialogue_from_json",
    "dialogue_to_json",
    "evaluate",
    "expected_calibration_error",
    "explore",
    "failure_point",
    "failure_point_of_assistant",
    "fit_feedback",
    "fit_temperature",
    "generate",
    "judgements",
    "krippendorff_alpha",
    "least_certain",
    "load_model",
    "precision_lower_bound",
    "pretrain",
    "save_model",
    "thresholds_of",
    "train",
    "weak_labels",
    "write_dialogues",
]
