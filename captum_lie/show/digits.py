"""Training on rotated digits as curves: error and LEE by epoch, and what turns do at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_lie.results import DigitsStudy
from captum_lie.show.published import beside_published, plot_published
from captum_lie.show.writing import write_picture

#: What is written, beside each other; the second where digits were turned by any angle.
CURVES, TABLE_1 = "rotated_digits", "table_1"


def plot_digits(study: DigitsStudy) -> Figure:
    """Error, LEE and relative LEE by epoch; error and change of probabilities by angle at the end.

    A colour for each penalty; lines are means over seeds, thin ones each seed.
    """
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, 3)
    table = study.to_dataframe()
    for i, strength in enumerate(dict.fromkeys(run.penalty for run in study.runs)):
        runs = table[table["penalty"] == strength]
        colour = matplotlib.color_sequences["tab10"][i]
        label = f"penalty {strength:g}" if strength else "no penalty"
        for place, column in zip(axes.flat, ("error", "lee", "relative_lee"), strict=False):
            by_epoch = runs.pivot(index="epoch", columns="seed", values=column)
            _curve(place, by_epoch, colour, label)
        last = runs.groupby("seed").tail(1)
        for place, column in zip(axes[1, :2], ("error", "change"), strict=True):
            by_angle = last[[f"{column}_at_{a:g}" for a in study.angles]].T
            _curve(place, by_angle.set_axis(list(study.angles)), colour, label)
        _curve(axes[1, 2], runs.pivot(index="epoch", columns="seed", values="learning_rate"),
               colour, label)  # fmt: skip
    _name(axes[0], "epoch", ("test error", "rotation LEE", "relative rotation LEE"))
    _name(axes[1, :2], "turned by ± degrees", ("error by angle", "change of probabilities"))
    _name(axes[1, 2:], "epoch", ("learning rate",))
    axes[0, 1].set_yscale("log")
    axes[1, 2].set_yscale("log")
    axes[0, 0].legend(frameon=False)
    trained, tested = (_turned(study.settings.get(k)) for k in ("angle", "test_angle"))
    figure.suptitle(f"{study.model}, trained on {trained}, tested on {tested}")
    return figure


def write_digits(study: DigitsStudy, folder: Path) -> list[Path]:
    """The curves as PNG and SVG and the scores as CSV, in a folder that exists.

    Where test digits were turned by any angle, so that errors are of the kind that is published for
    rotated MNIST, also those beside each other.
    """
    written = write_picture(folder / CURVES, plot_digits(study), study.to_dataframe())
    if study.settings.get("test_angle") == 180:
        table = beside_published(study)
        written += write_picture(folder / TABLE_1, plot_published(study), table)
    return written


def _turned(angle: float | int | str | None) -> str:
    return f"digits turned by up to ±{float(angle):g}°" if angle else "upright digits"


def _curve(axes: Axes, values: pd.DataFrame, colour: object, label: str) -> None:
    """Columns as thin lines over the index, and their mean."""
    place = np.asarray(values.index, dtype=float)
    for column in values.columns if values.shape[1] > 1 else ():
        axes.plot(place, values[column], color=colour, linewidth=0.6, alpha=0.5)
    axes.plot(place, values.mean(axis=1), color=colour, marker="o", markersize=3, label=label)


def _name(axes: Iterable[Axes], below: str, titles: Sequence[str]) -> None:
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, loc="left", fontsize=10)
        place.set_xlabel(below)
        place.grid(alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
