"""Question answering over a knowledge graph, learnt from questions and answers alone.

graph = tercet.KnowledgeGraph.load("kb.safetensors")
result = tercet.answering.train(graph, read_questions("train.txt"), hops=2, out="model")
tercet.answering.Answerer.load("model", graph).ask("who directed [Heat]")
"""

from tercet.answering.answerer import Answer, Answerer, Reply, evaluate
from tercet.answering.data import Question, parse_question, read_questions
from tercet.answering.evaluating import Evaluation
from tercet.answering.explain import Path, Step
from tercet.answering.model import AnswerModel
from tercet.answering.run import Epoch, Reporter, TrainingResult, TrainingSettings
from tercet.answering.training import train

__all__ = [
    "Answer",
    "AnswerModel",
    "Answerer",
    "Epoch",
    "Evaluation",
    "Path",
    "Question",
    "Reply",
    "Reporter",
    "Step",
    "TrainingResult",
    "TrainingSettings",
    "evaluate",
    "parse_question",
    "read_questions",
    "train",
]
