"""What moves the parameters of a recogniser."""

from __future__ import annotations

import torch

from tercet.speech.model import DigitRecognizer
from tercet.speech.settings import TrainingSettings


def optimizers(model: DigitRecognizer, settings: TrainingSettings) -> dict[str, torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, its updates as large as AdamW's (Liu et al.: Muon is
    Scalable for LLM Training, 2025); AdamW for all else.

    Raises:
        ImportError: torch is older than 2.9.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"training a recogniser needs torch 2.9 or later, got {torch.__version__}")
    maps = [
        parameter
        for name, parameter in model.encoder.named_parameters()
        if parameter.dim() == 2 and "arbiter" not in name
    ]
    chosen = {id(parameter) for parameter in maps}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    rate, decay = settings.learning_rate, settings.weight_decay
    return {
        "muon": torch.optim.Muon(maps, rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=decay, fused=True),
    }
