"""The examples in the docstrings of the installed package run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest
import torch

import tercet

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _modules() -> list[ModuleType]:
    """All but the compiled ones, and those whose library is not installed."""
    names = [module.name for module in pkgutil.walk_packages(tercet.__path__, "tercet.")]
    found = []
    for name in names:
        if name.rpartition(".")[2].startswith(("_cpu", "_cuda")):
            continue
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            if "pip install 'tercet[" not in str(error):
                raise
    return found


def _examples() -> list[doctest.DocTest]:
    names = {"torch": torch, "tercet": tercet} | {name: getattr(tercet, name) for name in tercet.__all__}
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in _modules() for test in finder.find(module, extraglobs=names)]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_example(example: doctest.DocTest, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=_FLAGS).run(example, out=said.append)
    assert not failed, "".join(said)
