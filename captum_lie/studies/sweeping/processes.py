"""Processes that compute the cells of one model each, under a time limit."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from captum_lie.studies.sweeping.grid import Task
from captum_lie.studies.sweeping.job import Job, blank
from captum_lie.studies.sweeping.store import Store

#: Seconds between looks at a process, and until one that was asked to end is made to.
LOOK, GRACE = 0.2, 5.0

#: Sent from outside, to whole groups of processes: this one will hear of it, too.
TOLD = {
    number
    for number in signal.Signals
    if number.name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
}


@dataclass(frozen=True)
class _End:
    """Why a process ended: its exit code, or the limit that it ran into."""

    code: int
    overdue: bool

    @property
    def told(self) -> bool:
        """Whether somebody else asked it to end."""
        return -self.code in TOLD and not self.overdue


def run(job: Job, store: Store, stop: threading.Event, done: Callable[[Task], None]) -> None:
    """Compute the cells of a job in a process of its own.

    What the process leaves uncomputed, because it crashed, was killed or ran out of time, is stored
    as failed, with its cause; where time ran out, later cells are tried in a new process.

    Args:
        stop: when set, the process is ended and its current cell dropped.
        done: called after each cell, computed or failed.
    """
    left = list(job.tasks)
    while left and not stop.is_set():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            remaining, end = _attempt(replace(job, tasks=tuple(left)), log, store, stop, done)
            if not remaining or stop.is_set():
                return
            if end.told and stop.wait(GRACE):
                return
            said = log.read_text(errors="replace")
        first, *left = remaining
        cell = replace(
            blank(first, job.settings),
            status="failed",
            cause=_cause(end, job, said),
            traceback=said[-8000:],
        )
        store.write(cell)
        done(first)


def _attempt(
    job: Job, log: Path, store: Store, stop: threading.Event, done: Callable[[Task], None]
) -> tuple[list[Task], _End]:
    """Run one process until it ends; the tasks that it left, and how it ended."""
    file = log.with_name("job.json")
    file.write_text(job.text())
    before = {task.key: stamp(store, task) for task in job.tasks}
    left = list(job.tasks)
    limit = job.resources.timeout
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "captum_lie.studies.sweeping.job", file],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    begun = time.monotonic()
    overdue = False
    try:
        while True:
            ended = process.poll() is not None
            while left and stamp(store, left[0]) != before[left[0].key]:
                done(left.pop(0))
                begun = time.monotonic()
            overdue = limit is not None and time.monotonic() - begun > limit
            if ended or overdue or stop.is_set():
                break
            stop.wait(LOOK)
    finally:
        _end(process)
    return left, _End(process.returncode, overdue)


def stamp(store: Store, task: Task) -> int | None:
    """When a cell was written; None if it is missing."""
    path = store.path(task.key)
    return path.stat().st_mtime_ns if path.exists() else None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _cause(end: _End, job: Job, said: str) -> str:
    if end.overdue:
        return f"time limit: not done within {job.resources.timeout:g} s"
    if end.code < 0:
        name = signal.Signals(-end.code).name
        hint = " (out of memory?)" if end.code == -signal.SIGKILL else ""
        return f"the process was killed by {name}{hint}"
    last = said.strip().rpartition("\n")[2]
    return f"the process ended with exit code {end.code}" + (f": {last}" if last else "")
