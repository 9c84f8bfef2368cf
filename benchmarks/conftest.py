"""What all benchmarks share: the size option and the machine's facts in every saved result."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import tercet
from tercet.ops import _native


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tercet-size",
        choices=("small", "full"),
        default="small",
        help="small: every benchmark once on small graphs, for CI; full: the whole protocol (tens of minutes, 20 GB)",
    )


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["tercet"] = {
        "version": tercet.__version__,
        "isa": _native.describe_isa(_native.isa),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "command": " ".join(["python -m pytest", *map(str, config.invocation_params.args)]),
    }
