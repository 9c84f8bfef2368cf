"""Options that commands share."""

from __future__ import annotations

import json

import pytest
import torch

from tercet.cli import common


def test_threads_are_set_and_the_device_returned() -> None:
    assert common.set_up("cpu", 1) == torch.device("cpu")
    assert torch.get_num_threads() == 1


def test_no_threads_leaves_torch_alone() -> None:
    before = torch.get_num_threads()
    common.set_up("cpu", None)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "mps", "meta"])
def test_an_unknown_device_is_refused(device: str) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=rf"--device must be cpu, cuda or cuda:N, got '{device}'"):
        common.set_up(device, before + 1)
    assert torch.get_num_threads() == before


def test_cuda_without_a_device_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda: torch finds no CUDA device here; use --device cpu"):
        common.set_up("cuda", None)


def test_a_device_beyond_the_last_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert common.set_up("cuda:1", None) == torch.device("cuda:1")
    with pytest.raises(ValueError, match="--device cuda:2: torch finds 2 CUDA devices, counted from 0"):
        common.set_up("cuda:2", None)


def test_json_is_one_object_in_utf8(capsys) -> None:
    common.print_json({"name": "Łódź", "value": 1})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "Łódź", "value": 1}
    assert "Łódź" in out
    assert out.endswith("}\n")
