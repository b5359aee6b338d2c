"""Processes that compute the cells of one model each, under a time limit."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captum_lie.studies.sweeping.forking import TOLD
from captum_lie.studies.sweeping.grid import Task
from captum_lie.studies.sweeping.job import Job, blank
from captum_lie.studies.sweeping.starting import Process, Starter
from captum_lie.studies.sweeping.store import Store

#: Seconds between looks at a process, and until one that was asked to end is made to.
LOOK, GRACE = 0.2, 5.0


@dataclass(frozen=True)
class _End:
    """Why a process ended: its exit code, or the limit that it ran into."""

    code: int
    overdue: bool

    @property
    def told(self) -> bool:
        """Whether somebody else asked it to end."""
        return -self.code in TOLD and not self.overdue


def run(
    job: Job, store: Store, stop: threading.Event, done: Callable[[Task], None], starter: Starter
) -> None:
    """Compute the cells of a job in a process of its own.

    What the process leaves uncomputed, because it crashed, was killed or ran out of time, is stored
    as failed, with its cause; where time ran out, later cells are tried in a new process.

    Args:
        stop: when set, the process is ended and its current cell dropped.
        done: called after each cell, computed or failed.
        starter: of processes.
    """
    left = list(job.tasks)
    while left and not stop.is_set():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            log.touch()
            process = starter.start(replace(job, tasks=tuple(left)), log)
            left, end = _watched(process, left, store, stop, done, job.resources.timeout)
            if not left or stop.is_set():
                return
            if end.told and stop.wait(GRACE):
                return
            said = log.read_text(errors="replace")
        first, *left = left
        cell = replace(
            blank(first, job.settings),
            status="failed",
            cause=_cause(end, job, said),
            traceback=said[-8000:],
        )
        store.write(cell)
        done(first)


def _watched(
    process: Process,
    tasks: Sequence[Task],
    store: Store,
    stop: threading.Event,
    done: Callable[[Task], None],
    limit: float | None,
) -> tuple[list[Task], _End]:
    """Watch a process until it ends; the tasks that it left, and how it ended."""
    before = {task.key: stamp(store, task) for task in tasks}
    left = list(tasks)
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
        code = _ended(process)
    return left, _End(code, overdue)


def stamp(store: Store, task: Task) -> int | None:
    """When a cell was written; None if it is missing."""
    path = store.path(task.key)
    return path.stat().st_mtime_ns if path.exists() else None


def _ended(process: Process) -> int:
    """The exit code of a process, which is made to end if it has not."""
    code = process.poll()
    if code is None:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()
    return code


def _cause(end: _End, job: Job, said: str) -> str:
    if end.overdue:
        return f"time limit: not done within {job.resources.timeout:g} s"
    if end.code < 0:
        name = signal.Signals(-end.code).name
        hint = " (out of memory?)" if end.code == -signal.SIGKILL else ""
        return f"the process was killed by {name}{hint}"
    last = said.strip().rpartition("\n")[2]
    return f"the process ended with exit code {end.code}" + (f": {last}" if last else "")
