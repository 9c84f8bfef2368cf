"""The compiled modules: which CPU build runs, whether the CUDA module can, and why not.

Nothing else imports them. torch is imported first, so that both share one OpenMP runtime.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from types import ModuleType

import torch

# CUDA kernels that have not passed their tests on a GPU; the reference runs in their place unless TERCET_UNVERIFIED=1.
UNVERIFIED_CUDA_KERNELS = (
    "follow", "merge", "transe_score", "transe_scores", "rank_counts", "batch_gradients", "apply_gradients",
    "arbiter_logits", "kept_attention",
)  # fmt: skip

_LEVELS = {"v2": "x86-64-v2", "v3": "x86-64-v3 (AVX2)", "v4": "x86-64-v4 (AVX-512)", "base": "baseline"}
_INSTALL_HINT = "reinstall tercet with `pip install .` from its source tree (a C++20 compiler is needed)"


def built_isas() -> list[str]:
    """The instruction-set levels that were built, lowest first."""
    return [isa for isa in ("base", "v2", "v3", "v4") if importlib.util.find_spec(f"tercet.ops._cpu_{isa}") is not None]


def available_isas() -> list[str]:
    """The levels that were built and that this machine can run, lowest first."""
    highest = {"AVX512": 4, "AVX2": 3}.get(torch.backends.cpu.get_cpu_capability(), 2)
    return [isa for isa in built_isas() if isa == "base" or int(isa[1]) <= highest]


def load_cpu(isa: str) -> ModuleType:
    """The CPU module of one level."""
    return importlib.import_module(f"tercet.ops._cpu_{isa}")


def _choose_isa() -> str:
    available = available_isas()
    if not available:
        raise ImportError(f"tercet: no compiled CPU module was found; {_INSTALL_HINT}")
    wanted = os.environ.get("TERCET_ISA")
    if wanted is None:
        return available[-1]
    if wanted not in available:
        raise ImportError(f"TERCET_ISA={wanted} is not available here; choose one of {', '.join(available)}")
    return wanted


def describe_isa(isa: str) -> str:
    """The level's name for people, e.g. `x86-64-v3 (AVX2)`."""
    return _LEVELS[isa]


isa = _choose_isa()
cpu = load_cpu(isa)

_cuda: ModuleType | None = None
_cuda_reason: str | None = None
_warned: set[str] = set()


def cuda() -> ModuleType | None:
    """The CUDA module, loaded on first use; None where it is not built or does not load (`cuda_reason` says why)."""
    global _cuda, _cuda_reason
    if _cuda is None and _cuda_reason is None:
        try:
            _cuda = importlib.import_module("tercet.ops._cuda")
        except ImportError as error:
            missing = "not built (nvcc was not found, or TERCET_CUDA=OFF)"
            _cuda_reason = f"built, but did not load: {error}" if cuda_built() else missing
    return _cuda


def cuda_built() -> bool:
    """Whether the CUDA module is part of this installation."""
    return importlib.util.find_spec("tercet.ops._cuda") is not None


def cuda_reason() -> str | None:
    """Why `cuda()` is None; None where it loaded."""
    cuda()
    return _cuda_reason


def runs_unverified() -> bool:
    """Whether CUDA kernels that have not passed their tests on a GPU run nevertheless."""
    return os.environ.get("TERCET_UNVERIFIED") == "1"


def cuda_kernel(name: str) -> ModuleType | None:
    """The CUDA module if kernel `name` may run, else None: then the caller runs the reference."""
    module = cuda()
    if module is None:
        _warn_once(name, f"tercet.{name}: the CUDA module is {_cuda_reason}; the slower torch reference runs instead")
    elif name in UNVERIFIED_CUDA_KERNELS and not runs_unverified():
        _warn_once(
            name,
            f"tercet.{name}: its CUDA kernel has not been verified on a GPU; the slower torch reference runs instead"
            " (TERCET_UNVERIFIED=1 runs the kernel)",
        )
        return None
    return module


def _warn_once(name: str, message: str) -> None:
    if name not in _warned:
        _warned.add(name)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


DTYPE_CODES = {torch.float32: 0, torch.float64: 1}


def threads(num_threads: int) -> int:
    """The number of CPU threads that an op was given; 0 stands for torch's setting."""
    return num_threads or torch.get_num_threads()


def pointer(tensor: torch.Tensor | None) -> int:
    """The address of a contiguous tensor's data; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def sets_of(offsets: torch.Tensor | None, entities: torch.Tensor | None) -> tuple[int, int, int]:
    """Sets as native code takes them; zeros for none."""
    return pointer(offsets), pointer(entities), 0 if offsets is None else offsets.numel() - 1
