"""A recogniser that hears a stream: digits as they are said, 40 ms at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.speech.decode import collapse
from tercet.speech.digits import BLANK
from tercet.speech.features import FRAME, checked_samples, silence_behind
from tercet.speech.model import DigitRecognizer, check_evaluating


class Stream:
    """One stream of samples through a recogniser; greedy decoding.

    Args:
        model: in evaluation mode.

    Attributes:
        digits: all that was said so far.
        gates: bool [num_layers, 2, frames] of the last call: which blocks ran.

    Raises:
        RuntimeError: the model is in training mode.
    """

    def __init__(self, model: DigitRecognizer) -> None:
        check_evaluating("tercet.speech.Stream", model)
        self.model = model
        self.features = model.features.initial_state(1)
        self.encoder = model.encoder.initial_state(1)
        self.front_end_cache: list[Tensor] | None = None  # what convolutions need before the next frames
        self.back_end_cache: list[Tensor] | None = None
        self.waiting = torch.zeros(0)
        self.last: int | None = None
        self.digits: tuple[int, ...] = ()
        self.gates = torch.zeros(model.settings.num_layers, 2, 0, dtype=torch.bool)

    @torch.inference_mode()
    def hear(self, samples: Tensor) -> tuple[int, ...]:
        """The digits that `samples`, float [n] in -1..1, add; what is over after whole frames of 40 ms waits.

        Raises:
            TypeError: samples are not of a floating dtype. ValueError: they have another shape, or values that are not
                finite or beyond 1e3. The stream then stays as it was.
        """
        samples = checked_samples("tercet.speech.Stream", samples)
        samples = torch.cat([self.waiting, samples]) if len(self.waiting) else samples
        whole = len(samples) // FRAME * FRAME
        self.waiting = samples[whole:].clone()  # the caller may use the samples' memory again
        path = self.log_probs(samples[:whole]).argmax(-1).tolist()
        said = collapse(path, BLANK, self.last)
        self.last = path[-1] if path else self.last
        self.digits += said
        return said

    def finish(self) -> tuple[int, ...]:
        """The digits that the silence behind the end adds: with it a stream has heard what `transcribe` hears."""
        return self.hear(torch.zeros(silence_behind(len(self.waiting))))

    def log_probs(self, samples: Tensor) -> Tensor:
        """Of whole frames: [k FRAME] samples -> [k, 11]."""
        rows, self.features = self.model.features.step(samples[None], self.features)
        frames, self.front_end_cache = self.model.front_end(rows, self.front_end_cache)
        encoded, self.encoder = self.model.encoder.step(frames, self.encoder)
        self.gates = self.encoder.gates[:, :, 0]
        log_probs, self.back_end_cache = self.model.back_end(encoded, self.back_end_cache)
        return log_probs[0]
