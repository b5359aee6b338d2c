"""The sweep itself: what is missing is computed, process by process, and written down."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from tqdm.auto import tqdm

from captum_lie.results.cell import Cell
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sweeping.grid import Grid, Task, grid_of
from captum_lie.studies.sweeping.images import Split, fingerprints
from captum_lie.studies.sweeping.job import Job, blank
from captum_lie.studies.sweeping.listing import Asked, missing_weights
from captum_lie.studies.sweeping.processes import run
from captum_lie.studies.sweeping.settings import Resources, SweepSettings
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.tables import write_tables

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


@dataclass(frozen=True)
class Summary:
    """What came of a sweep.

    Attributes:
        cells: of the whole grid that there are now, this sweep's or not.
        computed: by this sweep.
        missing: cells that there are not, because it was interrupted or a cluster's jobs ended.
        interrupted: by a signal; the cells at work were dropped.
    """

    cells: tuple[Cell, ...]
    computed: int = 0
    interrupted: int | None = None
    missing: int = 0

    @property
    def failed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.status == "failed"]


def sweep(
    models: Sequence[Asked],
    splits: Sequence[Split],
    out: Path,
    settings: SweepSettings | None = None,
    *,
    resources: Resources | None = None,
    again: Again | None = None,
    shard: Shard | None = None,
) -> Summary:
    """Measure models on sets of images, resuming what is there, and write the tables.

    Args:
        models: from :func:`~captum_lie.studies.sweeping.expand`.
        splits: from :func:`~captum_lie.studies.sweeping.parse_splits`.
        out: folder of cells and tables.
        settings: what to measure.
        resources: with what means.
        again: compute cells anew.
        shard: of the models, those of this part alone.

    Returns:
        The cells; failures are among them.

    Raises:
        OSError: images, checkpoints or the folder cannot be read or written.
        ValueError: images cannot be used, or the disk is full.
    """
    store = Store(out)
    settings = settings or SweepSettings()
    grid = grid_of(models, splits, settings, fingerprints(splits))
    part = grid if shard is None else grid.shard(shard.index, shard.count)
    work = Work(part, store, resources or Resources(), again or Again())
    with signals(work.stop) as caught:
        work.carry_out()
    own = own_cells(store, grid, part)
    return Summary(own, work.computed, caught.number, len(part.tasks) - len(own))


def own_cells(store: Store, grid: Grid, part: Grid) -> tuple[Cell, ...]:
    """Write the tables of a grid, and give the cells that there are of a part of it."""
    keys = {task.key for task in part.tasks}
    return tuple(cell for cell in write_tables(store, grid) if cell.key in keys)


def preview(
    models: Sequence[Asked],
    splits: Sequence[Split],
    out: Path,
    settings: SweepSettings,
    shard: Shard | None = None,
) -> str:
    """What :func:`sweep` would do: a line for each cell, and an estimate from cells of the past."""
    grid = grid_of(models, splits, settings, fingerprints(splits))
    part = grid if shard is None else grid.shard(shard.index, shard.count)
    cells = Store(out).everything() if (out / "cells").is_dir() else []
    known = {cell.key: cell for cell in cells}
    lines = []
    for task in part.tasks:
        asked, cell = task.asked, known.get(task.key)
        what = "missing" if cell is None else cell.status
        lines.append("\t".join((what, asked.spec.label, asked.spec.name, asked.family, asked.kind,
                                task.split.name)))  # fmt: skip
    missing = sum(task.key not in known for task in part.tasks)
    times = [cell.seconds for cell in cells if cell.status == "ok"]
    guess = "no cell has been measured yet, so their time is unknown"
    if times:
        minutes = missing * sum(times) / len(times) / 60
        guess = f"about {minutes:.1f} min, at {sum(times) / len(times):.1f} s a cell as before"
    count = len({task.asked.spec.label for task in part.tasks})
    summary = f"{len(part.tasks)} cells ({count} models x {len(splits)} sets of images), "
    return "\n".join([*lines, f"{summary}{missing} to compute: {guess}."])


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
        devices = self.resources.devices or _devices()
        with _bar(len(wanted)) as bar:
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

    @property
    def _pretrained(self) -> bool:
        return self.grid.settings.pretrained

    def _missing(self, task: Task) -> bool:
        return self.store.read(task.key) is None or self.again.everything

    def _serve(self, device: str, queue: SimpleQueue[list[Task]], bar: _Bar) -> None:
        while not self.stop.is_set():
            try:
                tasks = queue.get_nowait()
            except Empty:
                return
            with self.store.claimed(tasks) as held:
                fresh = [t for t in held if self.again.wanted(self.store.read(t.key))]
                if not fresh:
                    continue

                def done(task: Task) -> None:
                    self.touched.add(task.key)
                    self.computed += 1
                    bar.count(self.store.read(task.key))

                reason = missing_weights(fresh[0].asked.spec) if self._pretrained else None
                if reason is not None:
                    for task in fresh:
                        cell = blank(task, self.grid.settings)
                        self.store.write(replace(cell, status="failed", cause=reason))
                        done(task)
                    continue
                bar.running(fresh[0].asked.spec.label, +1)
                job = Job(
                    tuple(fresh), self.grid.settings, self.resources, device, self.store.folder
                )
                run(job, self.store, self.stop, done)
                bar.running(fresh[0].asked.spec.label, -1)

    def _job(self, tasks: list[Task], device: str) -> Job:
        folder = self.store.folder
        return Job(tuple(tasks), self.grid.settings, self.resources, device, folder)


class _Bar:
    """Progress: cells done and failed, models running, time left."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar, self.statuses = bar, Counter[str]()
        self.labels: list[str] = []
        self.lock = threading.Lock()

    def count(self, cell: Cell | None) -> None:
        with self.lock:
            self.statuses["failed" if cell is None else cell.status] += 1
            self._show()
            self.bar.update()

    def running(self, label: str, change: int) -> None:
        with self.lock:
            (self.labels.append if change > 0 else self.labels.remove)(label)
            self._show()

    def _show(self) -> None:
        running = ", ".join(self.labels)
        self.bar.set_postfix(failed=self.statuses["failed"], running=running, refresh=True)


@contextmanager
def _bar(total: int) -> Iterator[_Bar]:
    with tqdm(total=total, desc="sweep", unit="cell") as bar:
        yield _Bar(bar)


def _devices() -> tuple[str, ...]:
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


@dataclass
class _Caught:
    number: int | None = None


@contextmanager
def signals(stop: threading.Event) -> Iterator[_Caught]:
    """SIGINT and SIGTERM stop the sweep; a second one does what it always does."""
    caught = _Caught()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        caught.number = number
        stop.set()
        for n, handler in before.items():
            signal.signal(n, handler)

    for n in before:
        signal.signal(n, note)
    try:
        yield caught
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
