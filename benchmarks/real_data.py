"""Where real data lie for protocols that run as scripts, as the root's conftest finds them for tests."""

from __future__ import annotations

import os
from pathlib import Path


def real_data(*parts: str) -> Path:
    """A folder or file of TERCET_DATA, or of `../shared/data` beside the checkout where that is not set.

    Raises:
        SystemExit: it is not there.
    """
    path = Path(os.environ.get("TERCET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"), *parts)
    if not path.exists():
        raise SystemExit(f"{path} is not there; set TERCET_DATA, or name the data")
    return path
