"""Models whose making is seen from outside: they wait for one another, or until stopped."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn


def fine() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 900, 8))


def patient() -> nn.Module:
    """Waits for ever the first time; notes the process that forked it each time."""
    notes = Path(os.environ["NOTES"])
    first = not notes.exists()
    with notes.open("a") as file:
        file.write(f"{os.getppid()}\n")
    while first:
        time.sleep(1)
    return fine()


def one() -> nn.Module:
    return _with_other("one", "other")


def other() -> nn.Module:
    return _with_other("other", "one")


def _with_other(name: str, awaited: str) -> nn.Module:
    """Is made while the other is being made, or not at all."""
    folder = Path(os.environ["NOTES"])
    (folder / name).touch()
    while not (folder / awaited).exists():
        time.sleep(0.1)
    return fine()
