"""Time and peak memory of alternatives, side by side in one process."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Cost:
    """Median seconds, and peak memory above the start in MiB."""

    seconds: float
    memory: float


def compare(alternatives: dict[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """Run the alternatives in turn, ``repeats`` times after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    memory: dict[str, float] = {}
    for name, run in alternatives.items():  # warm-up, and memory
        memory[name] = _peak_memory(run)
    for _ in range(repeats):
        for name, run in alternatives.items():
            _synchronize()
            start = time.perf_counter()
            run()
            _synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: Cost(statistics.median(times[name]), memory[name]) for name in alternatives}


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


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
