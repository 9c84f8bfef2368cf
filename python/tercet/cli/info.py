"""`tercet info`: what this installation can run, and why not the rest."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import tercet
from tercet.cli.common import Json, print_json
from tercet.ops import _native

_OPENMP_FILE = re.compile(r"(/.*/(?:lib(?:gomp|omp|iomp5)|vcomp)[^/]*)$")


def command(as_json: Json = False) -> None:
    """Versions, the instruction set in use, threads, OpenMP and CUDA."""
    facts = describe()
    if as_json:
        print_json(facts)
    else:
        _print_table(facts)


def describe() -> dict[str, Any]:
    """What this installation can run; plain values only, so that it can be written as JSON.

    Returns:
        version, python, platform; torch (version, cuda); cpu (isa, name, built, available, capability); threads (torch,
        cores); openmp (version, files, one_runtime); cuda (built, loaded, reason, devices, unverified_kernels,
        unverified_run).

    Example:
        >>> describe()["cpu"]["isa"] in describe()["cpu"]["available"]
        True
    """
    files = openmp_files()
    return {
        "version": tercet.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": {"version": str(torch.__version__), "cuda": torch.version.cuda},
        "cpu": {
            "isa": _native.isa,
            "name": _native.describe_isa(_native.isa),
            "built": _native.built_isas(),
            "available": _native.available_isas(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "threads": {"torch": torch.get_num_threads(), "cores": _cores()},
        "openmp": {
            "version": int(_native.cpu.openmp),
            "files": files,
            "one_runtime": None if files is None else len(files) == 1,
        },
        "cuda": _describe_cuda(),
    }


def openmp_files(maps: str | Path = "/proc/self/maps") -> list[str] | None:
    """The OpenMP runtimes loaded in this process; None where the system does not tell.

    Two of them in one process compete for the cores, so there should be one: torch's.
    """
    try:
        lines = Path(maps).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return sorted({found[1] for line in lines if (found := _OPENMP_FILE.search(line))})


def _cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _describe_cuda() -> dict[str, Any]:
    built = _native.cuda_built()
    reason = _native.cuda_reason()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if reason is None and not devices:
        reason = "torch finds no CUDA device" if torch.version.cuda else "this torch was built without CUDA"
    return {
        "built": built,
        "loaded": _native.cuda() is not None,
        "reason": reason,
        "devices": devices,
        "unverified_kernels": list(_native.UNVERIFIED_CUDA_KERNELS),
        "unverified_run": _native.runs_unverified(),
    }


def _print_table(facts: dict[str, Any]) -> None:
    cpu, cuda, openmp = facts["cpu"], facts["cuda"], facts["openmp"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("tercet", facts["version"])
    table.add_row("Python", f"{facts['python']} on {facts['platform']}")
    table.add_row("torch", f"{facts['torch']['version']}, CUDA {facts['torch']['cuda'] or 'not in this build'}")
    table.add_row(
        "instruction set", f"{cpu['name']}; built {', '.join(cpu['built'])}; available {', '.join(cpu['available'])}"
    )
    table.add_row("threads", f"{facts['threads']['torch']} of {facts['threads']['cores']} cores")
    table.add_row("OpenMP", _openmp_line(openmp))
    table.add_row("CUDA module", ("built" if cuda["built"] else "not built") + (", loaded" if cuda["loaded"] else ""))
    table.add_row("CUDA devices", ", ".join(cuda["devices"]) or "none")
    if cuda["reason"] is not None:
        table.add_row("CUDA kernels", f"do not run: {cuda['reason']}")
    if cuda["unverified_kernels"]:
        state = "run (TERCET_UNVERIFIED=1)" if cuda["unverified_run"] else "the torch reference runs in their place"
        table.add_row("not verified", f"{', '.join(cuda['unverified_kernels'])}: {state}")
    Console(soft_wrap=True, markup=False, highlight=False).print(table)


def _openmp_line(openmp: dict[str, Any]) -> str:
    if not openmp["version"]:
        return "not built in: kernels use one thread"
    if openmp["files"] is None:
        return f"{openmp['version']}"
    warning = "" if openmp["one_runtime"] else " (there should be one: import torch before other libraries)"
    return f"{openmp['version']}, {', '.join(openmp['files'])}{warning}"
