"""What one job of a cluster computes of a sweep."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from captum_lie.studies.sweeping.grid import Grid
from captum_lie.studies.sweeping.settings import Resources
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.work import Again, Work

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission


@dataclass
class Part:
    """The cells of one task. Pickled by submitit, called on the cluster, and told to checkpoint.

    Attributes:
        grid: the cells.
        folder: of the sweep.
        resources, again: as for :func:`~captum_lie.studies.sweeping.sweep`.
        cpus: that it may use.
        work: under way, once it is called.
    """

    grid: Grid
    folder: Path
    resources: Resources
    again: Again
    cpus: int | None = None
    work: Work | None = None

    def __call__(self) -> None:
        """Compute what is missing.

        SIGTERM announces that the task will be killed: the cells at work are dropped. On Slurm it
        must not end by itself then, or it is taken for done and not queued again.
        """
        if self.cpus is not None:
            os.environ.setdefault("OMP_NUM_THREADS", str(self.cpus))
        work = self.work = Work(self.grid, Store(self.folder), self.resources, self.again)
        signal.signal(signal.SIGTERM, lambda *_: work.stop.set())
        work.carry_out()
        while work.stop.is_set() and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            time.sleep(1)

    def checkpoint(self) -> DelayedSubmission:
        """Drop the cells at work, and give what is left to do when this is queued again."""
        from submitit.helpers import DelayedSubmission

        touched: set[str] = set()
        if self.work is not None:
            self.work.stop.set()
            touched = self.work.touched
        left = tuple(task for task in self.grid.tasks if task.key not in touched)
        return DelayedSubmission(replace(self, grid=replace(self.grid, tasks=left), work=None))
