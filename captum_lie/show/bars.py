"""LEE for each group and model as bars."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def plot_lee(table: pd.DataFrame, *, relative: bool = False) -> Figure:
    """LEE for each group and model with standard errors; untrained controls as open bars.

    Args:
        table: columns ``model``, ``group``, ``lee``, ``stderr``, as ``captum-lie demo`` writes
            them. A model with another's name in the column ``control_of`` is drawn over that one,
            as its control.
        relative: draw ``relative_lee`` and ``relative_stderr`` instead, with a line at 1, where a
            group's direction is nothing special to the model.

    The axis of LEE is logarithmic, since groups and controls differ by orders of magnitude.

    Example:
        >>> columns = ["model", "group", "lee", "stderr", "control_of"]
        >>> rows = [
        ...     ("cnn", "rotation", 0.1, 0.02, None),
        ...     ("twin", "rotation", 0.001, 0.0002, "cnn"),
        ... ]
        >>> figure = plot_lee(pd.DataFrame(rows, columns=columns))
        >>> figure.axes[0].get_yscale()
        'log'
    """
    groups = list(dict.fromkeys(table["group"]))
    controls = controls_of(table)
    models = [m for m in dict.fromkeys(table["model"]) if m not in controls.values()]
    colours = matplotlib.color_sequences["tab10"]
    figure = Figure(figsize=(max(6.0, 1.15 * len(groups) + 1.5), 4.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(models)
    value, error = ("relative_lee", "relative_stderr") if relative else ("lee", "stderr")
    positive = table["lee"][table["lee"] > 0]
    floor = 0.0 if relative else positive.min() / 3 if len(positive) else 1e-12
    for m, model in enumerate(models):
        colour = colours[m % len(colours)]
        place = np.arange(len(groups)) + (m - (len(models) - 1) / 2) * width
        for name, trained in ((model, True), (controls.get(model), False)):
            part = table[table["model"] == name].set_index("group").reindex(groups)
            if part[value].isna().all():
                continue
            lee = part[value].to_numpy(dtype=float)
            axes.bar(
                place,
                lee,
                width * 0.9,
                yerr=_bars(lee, part[error].to_numpy(dtype=float), floor),
                color=colour if trained else "none",
                edgecolor=colour if trained else "black",
                linewidth=1 if trained else 0.9,
                linestyle="-" if trained else (0, (2, 1.5)),
                error_kw={"linewidth": 1, "ecolor": "0.25"},
                label=model if trained else None,
                zorder=2 if trained else 3,
            )
    if relative:
        axes.axhline(1, color="0.3", linewidth=0.8, linestyle=":")
    else:
        axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.set_xticks(range(len(groups)), [g.replace("_", "\n") for g in groups], fontsize=9)
    axes.set_ylabel(f"{'relative ' if relative else ''}LEE (mean ± standard error)")
    axes.grid(axis="y", alpha=0.3, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if controls:
        axes.bar(
            [0], [0], color="none", edgecolor="black", linestyle=(0, (2, 1.5)), label="untrained"
        )
    figure.legend(loc="outside upper center", ncols=len(models) + 1, frameon=False, fontsize=9)
    return figure


def controls_of(table: pd.DataFrame) -> dict[str, str]:
    """The name of each model's control, by its own, from the column ``control_of`` if any."""
    if "control_of" not in table:
        return {}
    known = table.dropna(subset="control_of")
    return dict(zip(known["control_of"], known["model"], strict=True))


def _bars(lee: np.ndarray, stderr: np.ndarray, floor: float) -> np.ndarray:
    """Error bars that stay on a logarithmic axis."""
    stderr = np.nan_to_num(stderr)
    return np.stack([np.minimum(stderr, np.maximum(lee - floor, 0)), stderr])
