"""How figures look at the width of a paper's column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike

#: Millimetres: a column of a paper.
WIDTH = 85.0
INCH = 25.4

STYLE: Any = {
    "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "lines.linewidth": 0.9, "lines.markersize": 3.2, "errorbar.capsize": 0,
    "legend.frameon": False, "grid.linewidth": 0.4, "grid.alpha": 0.4,
    "svg.hashsalt": "captum-lie", "xtick.minor.size": 0, "ytick.minor.size": 1.2,
}  # fmt: skip

#: Colour of each kind of model, in the order of legends.
KIND_COLOURS = {
    "early CNN": "#56B4E9", "modern CNN": "#0072B2", "transformer": "#D55E00",
    "mixer": "#009E73", "other": "0.45",
}  # fmt: skip
#: The paper's three classes of models, by kind.
CLASSES = {"early CNN": "CNN", "modern CNN": "CNN", "transformer": "ViT", "mixer": "Mixer"}
CLASS_COLOURS = {"CNN": "#0072B2", "ViT": "#D55E00", "Mixer": "#009E73", "other": "0.45"}


def canvas(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of a column's width and its axes, ``[rows, columns]``; height in millimetres."""
    figure = Figure(figsize=(WIDTH / INCH, height / INCH), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def kind_of(kind: object) -> str:
    """A kind that has a colour.

    Example:
        >>> kind_of("mixer"), kind_of(""), kind_of(float("nan"))
        ('mixer', 'other', 'other')
    """
    return kind if isinstance(kind, str) and kind in KIND_COLOURS else "other"


def class_of(kind: object) -> str:
    """CNN, ViT, Mixer or other."""
    return CLASSES.get(kind_of(kind), "other")


def label_of(group: str) -> str:
    """A group's name in a picture."""
    return group.replace("_", " ")


def kinds_legend(figure: Figure, rows: pd.DataFrame) -> None:
    """Kinds of models by colour above the figure; open markers for random weights."""
    used = set(rows["kind"].map(kind_of))
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=kind)
        for kind, colour in KIND_COLOURS.items()
        if kind in used
    ]
    if "random" in set(rows["weights"]):
        handles.append(
            Line2D([], [], marker="o", linestyle="", markerfacecolor="none", color="0.2",
                   markeredgewidth=0.7, label="random weights")
        )  # fmt: skip
    figure.legend(
        handles=handles, loc="outside upper center", ncols=4, columnspacing=1.0, handletextpad=0.2
    )


def bars(values: ArrayLike, stderrs: ArrayLike) -> np.ndarray:
    """Standard errors below and above that stay on a logarithmic axis, ``[2, n]``.

    Example:
        >>> bars([1.0, 2.0], [3.0, float("nan")]).tolist()
        [[0.9, 0.0], [3.0, 0.0]]
    """
    reach = np.nan_to_num(np.asarray(stderrs, dtype=float))
    return np.stack([np.minimum(reach, 0.9 * np.abs(np.asarray(values, dtype=float))), reach])


def logarithmic(axis: XAxis | YAxis, values: Iterable[float]) -> None:
    """Make an axis logarithmic where all values are positive; whole decades are labelled."""
    known = [value for value in values if np.isfinite(value)]
    if not known or min(known) <= 0:
        return
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_minor_formatter(NullFormatter())
    low, high = np.floor(np.log10(min(known))), np.ceil(np.log10(max(known)))
    if high - low <= 1:  # else no decade, or a single one, would be in sight
        getattr(axis.axes, f"set_{axis.axis_name}lim")(10**low, 10 ** max(high, low + 1))
