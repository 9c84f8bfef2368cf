"""What settings of runs and models check alike."""

from __future__ import annotations

from collections.abc import Iterable


def check_counts(settings: object, op: str, names: Iterable[str], least: int = 1) -> None:
    """Raises ValueError, in the name of `op`, where one of these attributes is no integer of at least `least`."""
    wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{op}: {name} must be {wanted}, got {value!r}")
