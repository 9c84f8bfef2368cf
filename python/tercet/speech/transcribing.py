"""What is said in a whole recording, and what it took to hear it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.speech.decode import beam_search, greedy
from tercet.speech.digits import BLANK
from tercet.speech.features import checked_samples, silence_behind
from tercet.speech.model import DigitRecognizer, check_evaluating


@dataclass(frozen=True)
class Transcript:
    """What was heard.

    Attributes:
        digits: in order.
        gates: bool [num_layers, 2, T]: which blocks ran at which frame (attention, feed-forward).
        compute_share: multiply-adds over those with every gate on.
        path: int64 [T], the likeliest symbol of each frame; 10 is the blank.
    """

    digits: tuple[int, ...]
    gates: Tensor
    compute_share: float
    path: Tensor


@torch.inference_mode()
def transcribe(model: DigitRecognizer, samples: Tensor, *, beam: int | None = None) -> Transcript:
    """What is said in `samples`; silence of 120 ms and up to a frame is set behind them.

    Args:
        model: in evaluation mode.
        samples: float [n] in -1..1 at 8 kHz, n >= 0.
        beam: width of prefix beam search; None: greedy.

    Raises:
        TypeError: samples are not of a floating dtype. ValueError: they have another shape, or values that are not
            finite or beyond 1e3. RuntimeError: the model is in training mode.
    """
    check_evaluating("tercet.speech.transcribe", model)
    samples = checked_samples("tercet.speech.transcribe", samples)
    rows = model.features(F.pad(samples[None], (0, silence_behind(len(samples)))))
    log_probs, cost, total = model(rows, torch.zeros(rows.shape[:2], dtype=torch.bool))
    frames = log_probs[0].numpy()
    digits = greedy(frames, BLANK) if beam is None else beam_search(frames, BLANK, beam)[0]
    return Transcript(digits, cost.gates[:, :, 0], total.share, log_probs[0].argmax(-1))
