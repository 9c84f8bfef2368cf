"""Labels of dialogues: their format, real data sets in it, how far annotators agree, a model that makes them, and how
far it can be trusted."""

from tercet.labeling.annotation.agreement import (
    Agreement,
    AnnotatorAgreement,
    Uncertain,
    agreement,
    consensus,
    krippendorff_alpha,
    least_certain,
)
from tercet.labeling.annotation.judgements import Item, Judgements, answers, judgements
from tercet.labeling.data.converters import CONVERTERS
from tercet.labeling.data.dialogues import (
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
from tercet.labeling.data.json_lines import dialogue_from_json, dialogue_to_json
from tercet.labeling.data.reading import DialogueReader, write_dialogues
from tercet.labeling.data.summary import Summary
from tercet.labeling.evaluation.baseline import TfidfRidge
from tercet.labeling.evaluation.evaluating import Predictor, evaluate
from tercet.labeling.failure_points import Component, failure_point, failure_point_of_assistant
from tercet.labeling.feedback.exploration import Question, explore
from tercet.labeling.feedback.signals import FeedbackModel, WeakLabels, fit_feedback, weak_labels
from tercet.labeling.generating import GenerationReport, generate, thresholds_of
from tercet.labeling.model.label_model import LabelModel
from tercet.labeling.model.predictions import KINDS, Claim, Classes, Prediction, claims, decide
from tercet.labeling.model.storage import load_model, save_model
from tercet.labeling.settings import ModelSettings, TrainingSettings
from tercet.labeling.training.pretraining import pretrain
from tercet.labeling.training.run import Epoch, Reporter, TrainingResult
from tercet.labeling.training.train import train
from tercet.labeling.trust.calibrating import Calibration, calibrate
from tercet.labeling.trust.thresholds import (
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
