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
        hold_out: of the run that learns from it.

    Raises:
        FileNotFoundError, ValueError: there is no model, its files are broken, or another speaker was held out of its
            training: it may have heard the one who is to be tested on.
    """

    def __init__(self, folder: str | PathLike[str], hold_out: str | None) -> None:
        self.folder = Path(folder)
        config = storage.load_config(self.folder)
        theirs = config.get("hold_out")
        if theirs != hold_out:
            got = f"{theirs!r} was held out of its training, {hold_out!r} of this"
            raise ValueError(f"{self.folder}: a teacher must not have heard what is tested on: {got}")
        self.model = storage.load_model(self.folder)
        self.digest: str = config["weights"]

    def teach_to_hear(self, features: LogMel) -> None:
        """Normalise features as the teacher's are."""
        features.load_state_dict(self.model.features.state_dict())

    def check_hears(self, features: LogMel) -> None:
        """Raises ValueError where features are not normalised as the teacher's."""
        own = self.model.features
        if not (torch.equal(features.mean, own.mean) and torch.equal(features.deviation, own.deviation)):
            raise ValueError(
                f"{self.folder}: a teacher must have learnt from the same clips with the same seed as the start, or"
                " their features differ"
            )

    def divergence(self, rows: Tensor, padding: Tensor, log_probs: Tensor) -> Tensor:
        """Of `log_probs` [B, T, 11] from the teacher's on the same features and padding: the mean over frames."""
        with torch.no_grad():
            theirs = self.model(rows, padding).log_probs
        own = F.kl_div(log_probs, theirs, reduction="none", log_target=True).sum(-1)
        return own.masked_fill(padding, 0).sum() / (~padding).sum().clamp(min=1)
