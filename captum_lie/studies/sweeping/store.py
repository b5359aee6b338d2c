"""The folder of a sweep: its cells, and who is at work on them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from captum_lie.errors import DamagedFileError, InvalidValueError
from captum_lie.results import load, save
from captum_lie.results.cell import Cell
from captum_lie.studies.sweeping.grid import Task

#: Bytes that must be free on the disk when a sweep begins.
ROOM = 64 * 2**20


class Store:
    """Cells in files, each written whole or not at all.

    Args:
        folder: made if missing.
        room: bytes that must be free.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: the disk is full.
    """

    def __init__(self, folder: Path, *, room: int = ROOM) -> None:
        self.folder = folder
        self.cells, self.locks = folder / "cells", folder / "locks"
        for each in (self.cells, self.locks):
            each.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.cells) as file:
            file.write(b"\0")
        free = shutil.disk_usage(folder).free
        if free < room:
            raise InvalidValueError(
                f"Only {free / 2**20:.0f} MiB are free at {folder}, and a sweep wants "
                f"{room / 2**20:.0f}: make room, or choose another folder with --out."
            )

    def path(self, key: str) -> Path:
        return self.cells / f"{key}.safetensors"

    def write(self, cell: Cell) -> None:
        """Store a cell."""
        save(cell, self.path(cell.key))

    def read(self, key: str) -> Cell | None:
        """The cell of that key; None if it is missing or damaged."""
        try:
            return load(self.path(key), Cell)
        except (FileNotFoundError, DamagedFileError):
            return None

    def everything(self) -> list[Cell]:
        """All cells, in the order of their keys."""
        cells = (self.read(path.stem) for path in sorted(self.cells.glob("*.safetensors")))
        return [cell for cell in cells if cell is not None]

    @contextmanager
    def claimed(self, tasks: Sequence[Task]) -> Iterator[list[Task]]:
        """Hold the locks of those tasks that nobody else is at work on, and give them.

        The system frees a lock when its process ends, however it ends.
        """
        locks: list[FileLock] = []
        held: list[Task] = []
        try:
            for task in tasks:
                lock = FileLock(self.locks / task.key, thread_local=False)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                locks.append(lock)
                held.append(task)
            yield held
        finally:
            for lock in locks:
                lock.release()
