"""How far a sweep is, on stderr."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from captum_lie.results.cell import Cell


class Bar:
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
def bar_of(total: int) -> Iterator[Bar]:
    with tqdm(total=total, desc="sweep", unit="cell") as bar:
        yield Bar(bar)
