"""The cells that a sweep left in its folder, and one of them for each model and set of images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from captum_lie.errors import DamagedFileError, InvalidValueError
from captum_lie.results.cell import Cell
from captum_lie.results.storage import load


def read_cells(folder: Path) -> list[Cell]:
    """All cells of a sweep's folder that can be read, in the order of their keys.

    Raises:
        ValueError: no sweep was written there.
    """
    paths = sorted((folder / "cells").glob("*.safetensors"))
    if not paths:
        raise InvalidValueError(
            f"{folder} holds no cells: give the folder that captum-lie sweep --out wrote."
        )
    found = []
    for path in paths:
        try:
            found.append(load(path, Cell))
        except DamagedFileError:  # the sweep computes it again
            continue
    return found


def one_each(cells: Sequence[Cell]) -> list[Cell]:
    """Of cells that differ in settings alone, the one whose settings most cells share.

    Example:
        >>> cells = [Cell(str(n), m, m, "test", settings={"n_probes": n})
        ...          for m, n in (("a", 8), ("b", 8), ("b", 64))]
        >>> [(cell.label, cell.settings["n_probes"]) for cell in one_each(cells)]
        [('a', 8), ('b', 8)]
    """
    shared = Counter(_settings(cell) for cell in cells)
    ranked = sorted(cells, key=lambda cell: (-shared[_settings(cell)], cell.key))
    best: dict[tuple[str, str], Cell] = {}
    for cell in ranked:
        best.setdefault((cell.label, cell.images), cell)
    return [best[place] for place in sorted(best)]


def _settings(cell: Cell) -> str:
    """Those that say how it was measured, not on which images."""
    how = {k: v for k, v in cell.settings.items() if k not in ("images", "limit")}
    return json.dumps(how, sort_keys=True)
