"""Sweeps in processes of their own, as the tests of clusters start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FACTORIES = Path(__file__).with_name("factories.py")

#: Of a cell that is computed in a moment.
FAST = ("--images", "test=builtin", "--limit", "3", "--groups", "rotation", "--no-relative")


def factory(name: str) -> str:
    return f"{name}={FACTORIES}:{name}"


def started(
    models: str, out: Path, *options: str, notes: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start ``captum-lie sweep``, which speaks into a file: jobs on this machine inherit it."""
    command = ["sweep", "--models", models, *FAST, "--out", str(out), *options]
    with _said(out).open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "captum_lie", *command],
            env=os.environ | ({} if notes is None else {"NOTES": str(notes)}),
            stderr=file,
        )


def swept(models: str, out: Path, *options: str, notes: Path | None = None) -> tuple[int, str]:
    """Run ``captum-lie sweep`` to its end: its exit code, and what it said."""
    return ended(started(models, out, *options, notes=notes), out)


def ended(process: subprocess.Popen[bytes], out: Path) -> tuple[int, str]:
    """Wait for a sweep to end: its exit code, and what it said."""
    return process.wait(timeout=500), _said(out).read_text()


def _said(out: Path) -> Path:
    return out.with_name(out.name + ".said")


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)
