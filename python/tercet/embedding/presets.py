"""Settings chosen on the validation split of public graphs."""

from __future__ import annotations

from tercet.embedding.settings import TrainingSettings

PRESETS = {
    "fb15k-237": TrainingSettings(dim=400, margin=9.0, learning_rate=2e-3, epochs=40),
    "wn18rr": TrainingSettings(dim=500, margin=5.0, num_negatives=1024, learning_rate=4e-3, epochs=80),
}


def preset(name: str) -> TrainingSettings:
    """The settings of that name. ValueError names those there are."""
    if name not in PRESETS:
        raise ValueError(f"tercet.embedding.preset: name must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
