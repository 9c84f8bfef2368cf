"""What tests and benchmarks share: hypothesis profiles and the folder of real data.

`HYPOTHESIS_PROFILE=nightly python -m pytest` looks harder; hypothesis itself defines `ci` and picks it where CI is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def data_folder() -> Path | None:
    """TERCET_DATA, or `../shared/data` beside the checkout where that exists."""
    named = os.environ.get("TERCET_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parent.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; its absence skips the test."""
    folder = data_folder()
    if folder is None:
        named = os.environ.get("TERCET_DATA")
        pytest.skip(f"TERCET_DATA={named} is no folder" if named else "TERCET_DATA is not set: no real data here")
    return folder


@pytest.fixture(scope="session")
def metaqa(data: Path) -> Path:
    """MetaQA: kb.txt and 1-hop, 2-hop, 3-hop with dev.txt and test.txt."""
    folder = data / "kgqa" / "metaqa"
    if not (folder / "kb.txt").is_file():
        pytest.skip(f"{folder}/kb.txt is absent: no MetaQA here")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Of tests whose batches are so small that more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
