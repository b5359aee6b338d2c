"""Time and peak memory of alternatives, side by side in one process."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Cost:
    """Median seconds, peak memory above the start in MiB, and system time beside user time."""

    seconds: float
    memory: float
    system: float


def compare(alternatives: dict[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """Run the alternatives in turn, ``repeats`` times after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    user, system = dict.fromkeys(alternatives, 0.0), dict.fromkeys(alternatives, 0.0)
    memory: dict[str, float] = {}
    for name, run in alternatives.items():  # warm-up, and memory
        memory[name] = _peak_memory(run)
    for _ in range(repeats):
        for name, run in alternatives.items():
            _synchronize()
            before, start = os.times(), time.perf_counter()
            run()
            _synchronize()
            times[name].append(time.perf_counter() - start)
            after = os.times()
            user[name] += after.user - before.user
            system[name] += after.system - before.system
    return {
        name: Cost(statistics.median(spent), memory[name], system[name] / max(user[name], 0.01))
        for name, spent in times.items()
    }


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_memory(run: Callable[[], object]) -> float:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - start) / 2**20
    _return_freed_memory()
    stop = threading.Event()
    start = _resident()
    peak = start

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        stop.set()
        watcher.join()
    return (peak - start) / 2**20


def _return_freed_memory() -> None:
    """What the allocator keeps would hide what a run takes."""
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
