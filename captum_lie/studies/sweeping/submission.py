"""A sweep that a cluster is at work on: the states of its jobs, and waiting for its cells."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm.auto import tqdm

from captum_lie.studies.sweeping.grid import Grid, Task
from captum_lie.studies.sweeping.processes import stamp
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.sweep import Summary, own_cells, signals

if TYPE_CHECKING:
    from submitit import Job

ClusterName = Literal["local", "slurm"]

#: Seconds between looks at a cluster's queue.
LOOK: dict[ClusterName, float] = {"local": 1.0, "slurm": 10.0}


@dataclass(frozen=True)
class Submission:
    """A sweep that a cluster is at work on.

    Attributes:
        cluster: where.
        grid: all cells.
        store: where they go.
        before: of those to be computed, when they were written last, by key; None for missing ones.
        jobs: that were submitted; none if all cells are there, or if jobs of an earlier submission
            are still queued or running.
    """

    cluster: ClusterName
    grid: Grid
    store: Store
    before: Mapping[str, int | None]
    jobs: Sequence[Job[None]] = ()

    @property
    def name(self) -> str:
        """Of the jobs, told apart by the sweep's folder."""
        return job_name(self.store.folder)

    @property
    def logs(self) -> Path:
        """Folder of what the jobs print."""
        return self.store.folder / "jobs"

    def left(self) -> list[Task]:
        """The cells that have not been computed yet."""
        return [
            task
            for task in self.grid.tasks
            if task.key in self.before and stamp(self.store, task) == self.before[task.key]
        ]

    def states(self) -> Counter[str] | None:
        """How many jobs are queued, running and so on; None if the cluster does not tell."""
        if self.cluster == "slurm":
            return queued(self.name)
        return Counter(job.state for job in self.jobs if not job.done())

    def collect(self) -> Summary:
        """Wait until all cells are computed or all jobs have ended, and write the tables.

        SIGINT and SIGTERM end the waiting; on Slurm the jobs go on.
        """
        stop = threading.Event()
        with signals(stop) as caught:
            self._wait(stop)
        if caught.number is not None and self.cluster == "local":
            for job in self.jobs:
                job.cancel()
        cells = own_cells(self.store, self.grid, self.grid)
        left = len(self.left())
        return Summary(cells, len(self.before) - left, caught.number, left)

    def _wait(self, stop: threading.Event) -> None:
        total, idle = len(self.before), 0
        with tqdm(total=total, desc="sweep", unit="cell") as bar:
            while not stop.is_set():
                left, states = len(self.left()), self.states()
                bar.update(total - left - bar.n)
                bar.set_postfix_str(_described(states))
                # A cell may become visible only after its job has left the queue.
                idle = 0 if states is None or states else idle + 1
                if not left or idle == 2:
                    return
                stop.wait(LOOK[self.cluster])


def job_name(folder: Path) -> str:
    """What the jobs of a sweep are called.

    Example:
        >>> job_name(Path("/data/sweep"))
        'captum-lie-bb84597d'
    """
    return f"captum-lie-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]}"


def queued(name: str) -> Counter[str] | None:
    """States of this user's jobs of that name in Slurm's queue; None if it does not answer.

    The queue rather than the accounts (``sacct``), which not every cluster keeps.
    """
    command = ["squeue", "--user", str(os.getuid()), "--name", name, "--array", "--noheader",
               "--format", "%T"]  # fmt: skip
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Counter(answer.stdout.split())


def _described(states: Counter[str] | None) -> str:
    if states is None:
        return "the queue does not answer"
    return ", ".join(f"{n} {state.lower()}" for state, n in sorted(states.items())) or "no jobs"
