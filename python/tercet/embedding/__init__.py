"""Knowledge-graph embedding with TransE: training, evaluation, prediction.

splits = tercet.graph.splits.read_splits("FB15k-237")
result = tercet.embedding.train(splits, TrainingSettings(norm="l1", dim=200), out="model")
tercet.embedding.evaluate(result.model, splits.test, known=splits.known).metrics.both.mrr
"""

from tercet.embedding.model import Evaluation, Prediction, TransE, evaluate
from tercet.embedding.presets import PRESETS, preset
from tercet.embedding.run import Epoch, Reporter, TrainingResult
from tercet.embedding.settings import TrainingSettings
from tercet.embedding.training import train

__all__ = [
    "PRESETS",
    "Epoch",
    "Evaluation",
    "Prediction",
    "Reporter",
    "TrainingResult",
    "TrainingSettings",
    "TransE",
    "evaluate",
    "preset",
    "train",
]
