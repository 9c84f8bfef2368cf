"""A streaming recogniser of spoken digits whose blocks run only where the speech needs them.

clips = tercet.speech.read_clips("fsdd_8k.npz")
result = tercet.speech.train(clips, TrainingSettings(target_compute=0.4), hold_out="theo", out="model")
strings = strings_to_test(clips, "theo")
tercet.speech.evaluate(result.model, strings).word_error_rate
"""

from tercet.speech.digits import Clips, read_clips
from tercet.speech.evaluating import Evaluation, Latency, evaluate, measure_latency
from tercet.speech.model import DigitRecognizer
from tercet.speech.run import Epoch, Reporter, TrainingResult
from tercet.speech.settings import ModelSettings, TrainingSettings
from tercet.speech.streaming import Stream
from tercet.speech.strings import DigitString, StringMaker, strings_to_test
from tercet.speech.training import train, warm_up

__all__ = [
    "Clips",
    "DigitRecognizer",
    "DigitString",
    "Epoch",
    "Evaluation",
    "Latency",
    "ModelSettings",
    "Reporter",
    "Stream",
    "StringMaker",
    "TrainingResult",
    "TrainingSettings",
    "evaluate",
    "measure_latency",
    "read_clips",
    "strings_to_test",
    "train",
    "warm_up",
]
