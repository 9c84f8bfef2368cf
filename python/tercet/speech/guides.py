"""What training follows beside the digits of a string: the path that the strings' maker knows, and a teacher, a model
that was trained before (Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015).

    w mean over frames of KL(p || q)               p: the teacher's, q: of the model that learns

Blocks that run at few frames learn from it what all blocks would have made of them.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.speech import storage
from tercet.speech.features import HOP, STACK, LogMel
from tercet.speech.strings import Batch


def along_path(log_probs: Tensor, batch: Batch, frames: Tensor, hop: int) -> Tensor:
    """Cross-entropy of `log_probs` [B, T, 11], heard every `hop` samples, along the path that the strings' makers know
    (`Batch.symbols`), the mean over frames: it teaches in few steps what the sum over all paths takes long to find."""
    ends = ((torch.arange(log_probs.shape[1]) * STACK + STACK - 1) * hop) // HOP
    symbols = batch.symbols[:, ends.clamp(max=batch.symbols.shape[1] - 1)]
    symbols = symbols.masked_fill(torch.arange(log_probs.shape[1]) >= frames[:, None], -100)
    return F.nll_loss(log_probs.transpose(1, 2), symbols, ignore_index=-100)


class Teacher:
    """A recogniser that others learn from.

    Args:
        folder: its model directory.

    Raises:
        FileNotFoundError: there is no model. ValueError: its files are broken.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder, self.model = Path(folder), storage.load_model(folder)
        self.config = storage.load_config(folder)

    def check_clips(self, data: str, hold_out: str | None) -> None:
        """Raises ValueError where it has learnt from other clips than those of digest `data`: from some, perhaps, that
        are to be tested on."""
        if self.config.get("data") == data:
            return
        theirs = self.config.get("hold_out")
        got = f"it had hold_out = {theirs!r}, this run has {hold_out!r}" if theirs != hold_out else "its were others"
        raise ValueError(f"{self.folder}: a teacher must have learnt from the same clips: {got}")

    def teach_to_hear(self, features: LogMel) -> None:
        """Normalise features as the teacher's are."""
        features.load_state_dict(self.model.features.state_dict())

    def divergence(self, rows: Tensor, padding: Tensor, log_probs: Tensor) -> Tensor:
        """Of `log_probs` [B, T, 11] from the teacher's on the same features and padding: the mean over frames."""
        with torch.no_grad():
            theirs = self.model(rows, padding).log_probs
        own = F.kl_div(log_probs, theirs, reduction="none", log_target=True).sum(-1)
        return own.masked_fill(padding, 0).sum() / (~padding).sum().clamp(min=1)
