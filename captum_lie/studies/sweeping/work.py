"""A sweep under way in this process: what is missing is computed, model by model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue

from captum_lie.results.cell import Cell
from captum_lie.studies.sweeping.devices import every_device
from captum_lie.studies.sweeping.grid import Grid, Task
from captum_lie.studies.sweeping.job import Job, blank
from captum_lie.studies.sweeping.listing import missing_weights
from captum_lie.studies.sweeping.processes import run
from captum_lie.studies.sweeping.progress import Bar, bar_of
from captum_lie.studies.sweeping.settings import Resources
from captum_lie.studies.sweeping.starting import Starter
from captum_lie.studies.sweeping.store import Store

#: Seconds between looks at cells on which another sweep is at work.
PATIENCE = 1.0


@dataclass(frozen=True)
class Again:
    """Which cells are computed although they are there.

    Attributes:
        everything: all of them.
        failed: those that failed.
    """

    everything: bool = False
    failed: bool = False

    def wanted(self, cell: Cell | None) -> bool:
        """Whether a cell is to be computed, before this sweep has touched it."""
        return cell is None or self.everything or (self.failed and cell.status == "failed")


@dataclass
class Work:
    """A sweep under way: models in a queue, and a thread for each device.

    Attributes:
        grid: the cells.
        store: where they go.
        resources: with what means.
        again: compute cells anew.
        stop: when set, the sweep ends and drops the cells at work.
        touched: keys of the cells that it has computed.
    """

    grid: Grid
    store: Store
    resources: Resources
    again: Again
    stop: threading.Event = field(default_factory=threading.Event)
    touched: set[str] = field(default_factory=set)
    computed: int = 0

    def carry_out(self) -> None:
        """Until every cell is there, by whomever, or this sweep is stopped."""
        wanted = [t for t in self.grid.tasks if self.again.wanted(self.store.read(t.key))]
        devices = self.resources.devices or every_device()
        with bar_of(len(wanted)) as bar:
            if self.grid.settings.pretrained:
                wanted = self._with_weights(wanted, bar)
            while wanted and not self.stop.is_set():
                queue: SimpleQueue[list[Task]] = SimpleQueue()
                for tasks in Grid(tuple(wanted), self.grid.settings).models():
                    queue.put(tasks)
                with ThreadPoolExecutor(len(devices)) as pool:
                    futures = [pool.submit(self._serve, d, queue, bar) for d in devices]
                    try:
                        for future in futures:
                            future.result()
                    except BaseException:  # a bug, or the exit that a signal asks for
                        self.stop.set()
                        raise
                # What is left is another sweep's: wait until it is done with, or given up.
                wanted = [t for t in wanted if t.key not in self.touched and self._missing(t)]
                if wanted:
                    self.stop.wait(PATIENCE)

    def _with_weights(self, tasks: Sequence[Task], bar: Bar) -> list[Task]:
        """The tasks whose weights can be had; the others fail before hours are spent."""
        found = []
        for of_model in Grid(tuple(tasks), self.grid.settings).models():
            reason = missing_weights(of_model[0].asked.spec)
            if reason is None:
                found += of_model
                continue
            with self._fresh(of_model) as fresh:
                for task in fresh:
                    cell = blank(task, self.grid.settings)
                    self.store.write(replace(cell, status="failed", cause=reason))
                    self._done(bar, task)
        return found

    def _missing(self, task: Task) -> bool:
        return self.store.read(task.key) is None or self.again.everything

    def _serve(self, device: str, queue: SimpleQueue[list[Task]], bar: Bar) -> None:
        with Starter() as starter:
            while not self.stop.is_set():
                try:
                    tasks = queue.get_nowait()
                except Empty:
                    return
                with self._fresh(tasks) as fresh:
                    if fresh:
                        label = fresh[0].asked.spec.label
                        done = partial(self._done, bar)
                        bar.running(label, +1)
                        run(self._job(fresh, device), self.store, self.stop, done, starter)
                        bar.running(label, -1)

    @contextmanager
    def _fresh(self, tasks: Sequence[Task]) -> Iterator[list[Task]]:
        """Hold those tasks of some that are still to be computed, and that nobody else is at."""
        with self.store.claimed(tasks) as held:
            yield [t for t in held if self.again.wanted(self.store.read(t.key))]

    def _done(self, bar: Bar, task: Task) -> None:
        self.touched.add(task.key)
        self.computed += 1
        bar.count(self.store.read(task.key))

    def _job(self, tasks: Sequence[Task], device: str) -> Job:
        folder = self.store.folder
        return Job(tuple(tasks), self.grid.settings, self.resources, device, folder)
