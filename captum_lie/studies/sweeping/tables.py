"""``sweep.csv`` and ``models.csv`` of a sweep's folder, from its cells."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from captum_lie.results.cell import COLUMNS, Cell
from captum_lie.results.files import write_atomically
from captum_lie.studies.sweeping.grid import Grid
from captum_lie.studies.sweeping.store import Store


def write_tables(store: Store, grid: Grid) -> list[Cell]:
    """Write both tables from the cells that there are, those of the grid first.

    Cells of earlier sweeps follow, unless the grid holds the same model on the same images. Written
    anew as long as others add cells meanwhile.
    """
    while True:
        known = _listing(store)
        cells = chosen(store.everything(), grid)
        write_atomically(store.folder / "sweep.csv", table_of(cells).to_csv(index=False))
        write_atomically(store.folder / "models.csv", models_of(cells).to_csv(index=False))
        if _listing(store) == known:
            return cells


def chosen(cells: Sequence[Cell], grid: Grid) -> list[Cell]:
    """The cells of the grid in its order, then those of models and images that it does not hold."""
    by_key = {cell.key: cell for cell in cells}
    own = [by_key[task.key] for task in grid.tasks if task.key in by_key]
    held = {(task.asked.spec.label, task.split.name) for task in grid.tasks}
    others = [cell for cell in cells if (cell.label, cell.images) not in held]
    return own + sorted(others, key=lambda cell: (cell.label, cell.images, cell.key))


def table_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """All numbers in long form, with :data:`captum_lie.results.cell.COLUMNS`."""
    return pd.DataFrame([row for cell in cells for row in cell.rows()], columns=list(COLUMNS))


def models_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """A row per model with timm's columns, so that it joins timm's results files.

    ``top1`` in per cent, on the first set of images whose labels matched.
    """
    rows: dict[str, dict[str, object]] = {}
    for cell in cells:
        if not cell.records:
            continue
        accuracy = cell.records[0].accuracy
        top1 = None if accuracy is None else round(100 * accuracy, 3)
        row = rows.setdefault(
            cell.label,
            {
                "model": cell.model.removeprefix("timm:"),
                "img_size": cell.facts.img_size,
                "top1": None,
                "param_count": cell.facts.param_count,
                "crop_pct": cell.facts.crop_pct,
                "interpolation": cell.facts.interpolation,
                "label": cell.label,
                "family": cell.family,
                "kind": cell.kind,
            },
        )
        row["top1"] = top1 if row["top1"] is None else row["top1"]
    columns = ["model", "img_size", "top1", "param_count", "crop_pct", "interpolation", "label",
               "family", "kind"]  # fmt: skip
    return pd.DataFrame(list(rows.values()), columns=columns)


def _listing(store: Store) -> list[tuple[str, int]]:
    return sorted((p.name, p.stat().st_mtime_ns) for p in store.cells.glob("*.safetensors"))
