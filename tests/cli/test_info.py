"""`tercet info`: the facts, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import tercet
from tercet.cli import app, info
from tercet.ops import _native

MAPS = """\
7f00 r--p 00000000 fe:00 12 /usr/lib/torch/lib/libgomp.so.1
7f01 r-xp 00001000 fe:00 12 /usr/lib/torch/lib/libgomp.so.1
7f02 r-xp 00001000 fe:00 13 {second}
7f03 rw-p 00000000 00:00 0 [heap]
7f04 r-xp 00001000 fe:00 14 /usr/lib/libgomparser.txt.d/readme
"""


def test_json_is_the_description() -> None:
    done = CliRunner().invoke(app, ["info", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == info.describe()


def test_facts() -> None:
    facts = info.describe()
    assert facts["version"] == tercet.__version__
    assert facts["torch"] == {"version": torch.__version__, "cuda": torch.version.cuda}
    assert facts["cpu"]["isa"] == _native.isa == facts["cpu"]["available"][-1] or "TERCET_ISA" in os.environ
    assert set(facts["cpu"]["available"]) <= set(facts["cpu"]["built"])
    assert facts["threads"]["torch"] == torch.get_num_threads()
    assert facts["cuda"]["unverified_kernels"] == list(_native.UNVERIFIED_CUDA_KERNELS)
    assert facts["cuda"]["loaded"] == (_native.cuda_reason() is None)
    assert len(facts["cuda"]["devices"]) == torch.cuda.device_count()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what a process maps")
def test_kernels_share_one_openmp_runtime_with_torch() -> None:
    # In a process of its own: other tests import libraries that bring a runtime along (scikit-learn, through PyKEEN).
    program = "import sys; sys.argv = ['tercet', 'info', '--json']; from tercet.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    openmp = json.loads(done.stdout)["openmp"]
    assert openmp["version"] > 0
    assert openmp["one_runtime"] is True, openmp["files"]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("/usr/lib/libm.so.6", ["/usr/lib/torch/lib/libgomp.so.1"]),
        ("/opt/libiomp5.so", ["/opt/libiomp5.so", "/usr/lib/torch/lib/libgomp.so.1"]),
        ("/opt/a b/libomp-1f2e.so.5", ["/opt/a b/libomp-1f2e.so.5", "/usr/lib/torch/lib/libgomp.so.1"]),
        ("/usr/lib/libgomp.so.1.0.0", ["/usr/lib/libgomp.so.1.0.0", "/usr/lib/torch/lib/libgomp.so.1"]),
    ],
)
def test_openmp_runtimes_are_read_from_the_process_map(tmp_path: Path, second: str, found: list[str]) -> None:
    maps = tmp_path / "maps"
    maps.write_text(MAPS.format(second=second), encoding="utf-8")
    assert info.openmp_files(maps) == found


def test_a_system_without_process_maps_says_nothing(tmp_path: Path) -> None:
    assert info.openmp_files(tmp_path / "absent") is None


def _cuda(monkeypatch, built: bool, reason: str | None, devices: list[str]) -> None:
    monkeypatch.setattr(_native, "cuda_built", lambda: built)
    monkeypatch.setattr(_native, "cuda_reason", lambda: reason)
    monkeypatch.setattr(_native, "cuda", lambda: None if reason else object())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: devices[index])
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.mark.parametrize(
    ("built", "reason", "devices", "lines"),
    [
        (False, "not built", [], ["CUDA module      not built", "do not run: not built"]),
        (
            True,
            "built, but did not load: x",
            [],
            ["CUDA module      built\n", "do not run: built, but did not load: x"],
        ),
        (True, None, [], ["built, loaded", "do not run: torch finds no CUDA device", "CUDA devices     none"]),
        (True, None, ["H200", "A100"], ["built, loaded", "CUDA devices     H200, A100"]),
    ],
)
def test_people_read_why_cuda_does_not_run(monkeypatch, built, reason, devices, lines) -> None:
    _cuda(monkeypatch, built, reason, devices)
    done = CliRunner().invoke(app, ["info"])
    assert done.exit_code == 0
    text = "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n"
    assert [line for line in lines if line not in text] == []
    assert ("do not run" in text) == (reason is not None or not devices)


@pytest.mark.parametrize(
    ("asked", "line"),
    [("0", "follow: the torch reference runs in their place"), ("1", "follow: run (TERCET_UNVERIFIED=1)")],
)
def test_unverified_kernels_are_named(monkeypatch, asked: str, line: str) -> None:
    monkeypatch.setattr(_native, "UNVERIFIED_CUDA_KERNELS", ("follow",))
    monkeypatch.setenv("TERCET_UNVERIFIED", asked)
    assert line in CliRunner().invoke(app, ["info"]).stdout


@pytest.mark.parametrize(
    ("openmp", "line"),
    [
        ({"version": 0, "files": [], "one_runtime": False}, "not built in: kernels use one thread"),
        ({"version": 201511, "files": None, "one_runtime": None}, "201511"),
        ({"version": 201511, "files": ["/a/libgomp.so.1"], "one_runtime": True}, "201511, /a/libgomp.so.1"),
        (
            {"version": 201511, "files": ["/a/libgomp.so.1", "/b/libomp.so"], "one_runtime": False},
            "201511, /a/libgomp.so.1, /b/libomp.so (there should be one: import torch before other libraries)",
        ),
    ],
)
def test_two_openmp_runtimes_are_a_warning(openmp, line) -> None:
    assert info._openmp_line(openmp) == line
