"""A process that imports everything once and forks for each job.

Imports take seconds, a fork takes milliseconds, and what it gives is still a process of its own,
with its own memory, limits and end. This one computes nothing, so that no thread and no GPU is lost
in a fork.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib.metadata import entry_points
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from captum_lie.studies.models import ENTRY_POINTS
from captum_lie.studies.sweeping.job import Job, carry_out_limited

#: Sent from outside to whole groups of processes: the sweep hears of it, too, and says what to do.
TOLD = {
    number
    for number in signal.Signals
    if number.name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
}


def main() -> None:
    """Start a process for each job that the sweep sends, one after the other, and say how it ended.

    Messages are a job's text and log, or the number of a signal for its process.
    """
    sweep = Connection(int(sys.argv[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    for adapter in entry_points(group=ENTRY_POINTS):
        with suppress(Exception):  # whatever an import may raise: it is said when a model needs it
            adapter.load()
    with suppress(EOFError):  # the sweep is gone
        while True:
            told = sweep.recv()
            if isinstance(told, tuple):  # else a signal for a process that has ended
                process = get_context("fork").Process(target=_compute, args=(sweep, *told))
                process.start()
                sweep.send(_followed(process, sweep))


def _followed(process: BaseProcess, sweep: Connection) -> int | None:
    """The exit code of a process, to which the sweep may send signals."""
    try:
        while process.sentinel not in wait([process.sentinel, sweep]):
            os.kill(process.pid or 0, sweep.recv())
    except EOFError:
        process.kill()
        raise
    process.join()
    return process.exitcode


def _compute(sweep: Connection, job: str, log: str) -> None:
    sweep.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
    with Path(log).open("wb") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    carry_out_limited(Job.parse(job))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
