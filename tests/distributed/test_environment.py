"""What processes read from the variables that torchrun sets."""

from __future__ import annotations

import pytest
import torch
from torch import distributed as dist

from captum_lie.cli.inputs import choose_device
from captum_lie.errors import InvalidValueError
from captum_lie.studies import distributed


@pytest.mark.parametrize("size", [None, "1"])
def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch, size: str | None) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with distributed.process_group():
        assert not dist.is_initialized()
        assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_processes_that_cannot_meet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with (
        pytest.raises(InvalidValueError, match="MASTER_ADDR, MASTER_PORT is not set"),
        distributed.process_group(),
    ):
        pass


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device(None) == torch.device("cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert distributed.local_device() == "cuda:3"
    monkeypatch.delenv("LOCAL_RANK")
    assert distributed.local_device() == "cuda"
