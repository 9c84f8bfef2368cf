"""Training steps in plain torch; see ops/translation_training.py for what they compute."""

from __future__ import annotations

_MASK = 2**64 - 1


def mix_int(value: int) -> int:
    """Spreads the bits of an integer over 64 bits (Vigna's SplitMix64 finalizer), as csrc/mix.h does."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
