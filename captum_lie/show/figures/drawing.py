"""All figures by name, drawn in one style and written in three forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from captum_lie.core.validation import one_of
from captum_lie.show.figures.angles import draw_angles
from captum_lie.show.figures.directions import draw_directions
from captum_lie.show.figures.gap import draw_gap
from captum_lie.show.figures.layers import draw_layers, draw_sampled
from captum_lie.show.figures.probes import draw_probes
from captum_lie.show.figures.scatter import draw_accuracy, draw_groups, draw_metrics
from captum_lie.show.figures.slices import draw_slices
from captum_lie.show.figures.style import STYLE
from captum_lie.show.figures.subnetworks import draw_subnetworks
from captum_lie.show.figures.sweep import NothingToDraw, Sweep
from captum_lie.show.writing import write_picture

#: Figures by what ``--which`` calls them; each is drawn under one or more names of files.
FIGURES: dict[str, dict[str, Callable[[Sweep], tuple[Figure, pd.DataFrame]]]] = {
    "1": {"fig1_accuracy": draw_accuracy},
    "4": {"fig4_layers": draw_layers, "fig4_sampled": draw_sampled},
    "5": {"fig5_metrics": draw_metrics},
    "6": {"fig6_slices": draw_slices},
    "7": {"fig7_gap": draw_gap},
    "8": {"fig8_subnetworks": draw_subnetworks},
    "9": {"fig9_groups": draw_groups, "fig9_probes": draw_probes},
    "directions": {"worst_directions": draw_directions},
    "angles": {"finite_angles": draw_angles},
}
BY_DEFAULT = tuple(FIGURES)

#: Of the PNG files: 85 mm are about 1000 pixels.
DPI = 300


@dataclass(frozen=True)
class Drawn:
    """What came of one figure: it and its table, or why it was left out."""

    name: str
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    missing: str = ""


def draw_figures(sweep: Sweep, which: Sequence[str] = BY_DEFAULT) -> Iterator[Drawn]:
    """Draw figures one after the other; those without data say what is missing.

    Args:
        which: keys of :data:`FIGURES`.

    Raises:
        ValueError: no such figure.

    Example:
        >>> [(drawn.name, drawn.missing) for drawn in draw_figures(Sweep([]), ["8"])]
        [('fig8_subnetworks', 'no head networks were measured: sweep with --layers --subnetworks')]
    """
    for number in which:
        one_of("figure", number, tuple(FIGURES))
    for number in which:
        for name, function in FIGURES[number].items():
            with matplotlib.rc_context(STYLE):
                try:
                    figure, table = function(sweep)
                except NothingToDraw as error:
                    yield Drawn(name, missing=str(error))
                    continue
            yield Drawn(name, figure, table)


def write_figure(drawn: Drawn, folder: Path) -> list[Path]:
    """Write a figure as PNG and SVG and its table as CSV, each whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    assert drawn.figure is not None
    assert drawn.table is not None
    with matplotlib.rc_context(STYLE):
        return write_picture(folder / drawn.name, drawn.figure, drawn.table, dpi=DPI)
