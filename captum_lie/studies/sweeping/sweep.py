"""The sweep itself: what is missing is computed, process by process, and written down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from captum_lie.results.cell import Cell
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sweeping.devices import check_device
from captum_lie.studies.sweeping.grid import Grid, grid_of
from captum_lie.studies.sweeping.images import Split, fingerprints
from captum_lie.studies.sweeping.listing import Asked, missing_weights
from captum_lie.studies.sweeping.settings import Resources, SweepSettings
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.tables import write_tables
from captum_lie.studies.sweeping.work import Again, Work


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
        ValueError: images or devices cannot be used, or the disk is full.
    """
    resources = resources or Resources()
    for device in resources.devices:
        check_device(device)
    store = Store(out)
    settings = settings or SweepSettings()
    grid = grid_of(models, splits, settings, fingerprints(splits))
    part = grid if shard is None else grid.shard(shard.index, shard.count)
    work = Work(part, store, resources, again or Again())
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
    lines.append(f"{summary}{missing} to compute: {guess}.")
    asked_for = {task.asked.spec.label: task.asked.spec for task in part.tasks}
    reasons = {k: missing_weights(s) for k, s in asked_for.items() if settings.pretrained}
    lines += [f"Would fail: {label}: {why}" for label, why in reasons.items() if why is not None]
    return "\n".join(lines)


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
