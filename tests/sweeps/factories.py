"""Models that fail in every way that a sweep must survive, and one that does not."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn


def fine() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 900, 8))


def raises() -> nn.Module:
    raise RuntimeError("no such thing\nas a second line")


def exits() -> nn.Module:
    sys.exit("enough")


def exhausts() -> nn.Module:
    held = []
    while True:
        held.append(torch.ones(2**24))


def sleeps() -> nn.Module:
    while True:
        time.sleep(60)


def dies() -> nn.Module:
    os.kill(os.getpid(), signal.SIGKILL)
    return fine()


def crashes() -> nn.Module:
    os.kill(os.getpid(), signal.SIGSEGV)
    return fine()


class Greedy(nn.Module):
    """Takes a fixed amount of memory for each image of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.model = fine()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise MemoryError("more than two images")
        found: Tensor = self.model(x)
        return found


def greedy() -> nn.Module:
    return Greedy()


def counted() -> nn.Module:
    """Notes each time that it is made, and waits a little, so that it can be interrupted."""
    with Path(os.environ["COUNTED"]).open("a") as file:
        file.write("made\n")
    time.sleep(float(os.environ.get("COUNTED_SECONDS", "0")))
    return fine()


def lingers() -> nn.Module:
    """Notes its process and the one that started it, and waits for ever."""
    Path(os.environ["COUNTED"]).write_text(f"{os.getpid()} {os.getppid()}\n")
    return sleeps()


def meddles() -> nn.Module:
    """Changes what a process shares with all that it computes, and minds if somebody had before."""
    assert torch.get_default_dtype() == torch.float32
    assert "MEDDLED" not in os.environ
    torch.set_default_dtype(torch.float64)
    os.environ["MEDDLED"] = "yes"
    return fine().float()
