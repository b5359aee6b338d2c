"""What figures are drawn from: a sweep's cells, and tidy tables of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from captum_lie.errors import InvalidValueError
from captum_lie.results.cell import COLUMNS, Cell
from captum_lie.results.cells import one_each
from captum_lie.results.record import ModelRecord
from captum_lie.show.figures.slices_file import Slice
from captum_lie.show.figures.style import class_of


class NothingToDraw(InvalidValueError):
    """The sweep does not hold what a figure shows; the message says which option would give it."""


@dataclass(frozen=True)
class FigureOptions:
    """How figures are drawn.

    Attributes:
        relative: LEE over its control instead of LEE.
        images: name of the set of images to show; see :attr:`Sweep.shown`.
        slices: pairs of models of figure 6.
        seed: of bootstrap intervals.
    """

    relative: bool = False
    images: str | None = None
    slices: tuple[Slice, ...] = ()
    seed: int = 0

    @property
    def lee(self) -> str:
        """What the vertical axis is called."""
        return "relative LEE" if self.relative else "LEE"


@dataclass(frozen=True)
class Sweep:
    """A sweep's cells, read for drawing.

    Attributes:
        cells: all, whatever their settings.
        options: how it is drawn.
    """

    cells: Sequence[Cell]
    options: FigureOptions = field(default_factory=FigureOptions)

    @cached_property
    def measured(self) -> list[Cell]:
        """One cell for each model and set of images; failed ones are left out."""
        return one_each([cell for cell in self.cells if cell.status == "ok"])

    @cached_property
    def shown(self) -> list[Cell]:
        """One cell a model: on the set of images that is asked for.

        By default that on which its accuracy is known, then one called ``test``, then the first.
        """
        name = self.options.images
        if name is not None and all(cell.images != name for cell in self.measured):
            known = ", ".join(sorted({cell.images for cell in self.measured}))
            raise InvalidValueError(f"No set of images is called {name!r}: there are {known}.")
        best: dict[str, Cell] = {}
        for cell in sorted(self.measured, key=_preference):
            if name is None or cell.images == name:
                best.setdefault(cell.label, cell)
        return [best[label] for label in sorted(best)]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The long form of the shown cells; see :func:`tidy`."""
        return tidy(self.shown)

    def records(self) -> Iterator[tuple[Cell, ModelRecord]]:
        """Of the shown cells, the model's own record."""
        for cell in self.shown:
            for record in cell.records:
                if record.trained:
                    yield cell, record

    def lee(self, table: pd.DataFrame, group: str) -> pd.DataFrame:
        """LEE, or relative LEE, of a group: a row per model with ``value`` and ``stderr``."""
        rows = table[(table["metric"] == "lee") & (table["group"] == group)]
        if self.options.relative:
            rows = rows.assign(value=rows["relative"], stderr=rows["relative_stderr"])
        return rows.dropna(subset=["value"])


def tidy(cells: Sequence[Cell]) -> pd.DataFrame:
    """Long form of cells: :data:`~captum_lie.results.cell.COLUMNS` and ``weights``.

    ``weights`` is ``"random"`` where random ones were asked for, else ``"trained"``.
    """
    rows = [row | {"weights": weights_of(cell)} for cell in cells for row in cell.rows()]
    return pd.DataFrame(rows, columns=[*COLUMNS, "weights"])


def weights_of(cell: Cell) -> str:
    """Whether a cell's model had trained or random weights."""
    random = cell.model.endswith("@random") or cell.settings.get("pretrained") is False
    return "random" if random else "trained"


def head_of(cell: Cell) -> dict[str, object]:
    """How the rows of a model begin in the tables behind figures."""
    return {
        "model": cell.label,
        "images": cell.images,
        "class": class_of(cell.kind),
        "weights": weights_of(cell),
    }


def against_accuracy(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows with ``accuracy`` and ``accuracy_stderr`` of their model on their images beside them.

    Raises:
        NothingToDraw: no accuracy is known.
    """
    place = ["label", "images"]
    known = table[table["metric"] == "accuracy"].set_index(place)
    if known.empty:
        raise NothingToDraw("no accuracy is known: sweep over --images whose classes are labelled")
    joined = rows.join(
        known[["value", "stderr"]].rename(
            columns={"value": "accuracy", "stderr": "accuracy_stderr"}
        ),
        on=place,
    )
    columns = ["panel", *place, "family", "kind", "weights", "accuracy", "accuracy_stderr",
               "value", "stderr", "n"]  # fmt: skip
    return joined[columns].dropna(subset=["accuracy"]).reset_index(drop=True)


def spread(values: pd.Series) -> tuple[float, float, int]:
    """Mean over models, its standard error (NaN for one model), and their number."""
    known = values.dropna().to_numpy(dtype=float)
    n = len(known)
    error = float(known.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return (float(known.mean()) if n else float("nan")), error, n


def _preference(cell: Cell) -> tuple[bool, bool, str]:
    known = any(record.correct is not None for record in cell.records)
    return not known, cell.images != "test", cell.images
