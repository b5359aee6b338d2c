"""How the process of a job is started: forked from one that is warm, where that is safe."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Protocol

from captum_lie.studies.sweeping.job import Job

#: Elsewhere system libraries that were loaded may not survive a fork (macOS), or there is none.
FORKS = sys.platform == "linux"

_PYTHON = (sys.executable, "-X", "faulthandler")

#: Rather than ``-m``: these modules are imported by their package, too.
_FORKING = "from captum_lie.studies.sweeping.forking import main; main()"
_ALONE = "from captum_lie.studies.sweeping.job import main; main()"


class Process(Protocol):
    """What :class:`subprocess.Popen` and :class:`Forked` share."""

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        ...

    def send_signal(self, sig: int) -> None:
        """If it has not ended."""
        ...


class Forked:
    """A process that was forked for a job, seen through the one that forked it."""

    def __init__(self, origin: subprocess.Popen[bytes], told: Connection) -> None:
        self._origin, self._told = origin, told
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, once it has ended; that of its origin, if that is gone."""
        if self._code is None and self._told.poll():
            self._code = self._received()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended."""
        if self._code is None:
            if not self._told.poll(timeout):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0)
            self._code = self._received()
        return self._code

    def send_signal(self, sig: int) -> None:
        """If it has not ended."""
        if self.poll() is None:
            try:
                self._told.send(sig)
            except OSError:
                self._origin.wait()

    def _received(self) -> int:
        try:
            return int(self._told.recv())
        except EOFError:
            return self._origin.wait()


class Starter:
    """Starts the processes of jobs, one after the other; a context manager.

    Example:
        >>> with Starter() as starter:  # nothing is started before the first job
        ...     pass
    """

    def __init__(self) -> None:
        self._origin: subprocess.Popen[bytes] | None = None
        self._told: Connection | None = None

    def __enter__(self) -> Starter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start(self, job: Job, log: Path) -> Process:
        """A process that computes a job, and prints into a file."""
        if not FORKS:
            return _started_alone(job, log)
        origin, told = self._warm()
        told.send((job.text(), str(log)))
        return Forked(origin, told)

    def _warm(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """The process that forks: a new one, if there is none or something ended it."""
        if self._origin is not None and self._told is not None and self._origin.poll() is None:
            return self._origin, self._told
        self._end()
        self._told, theirs = Pipe()
        with theirs:
            self._origin = subprocess.Popen(
                [*_PYTHON, "-c", _FORKING, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return self._origin, self._told

    def _end(self) -> None:
        if self._told is not None and self._origin is not None:
            self._told.close()
            self._origin.kill()  # rather than wait for it to tear everything down
            self._origin.wait()


def _started_alone(job: Job, log: Path) -> subprocess.Popen[bytes]:
    """A process that imports everything anew, and ends when this one does."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_PYTHON, "-c", _ALONE],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    assert process.stdin is not None
    process.stdin.write(job.text().encode() + b"\n")
    process.stdin.flush()
    return process
