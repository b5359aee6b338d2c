"""Beyond the paper: how far LEE foretells the error of rotations by finite angles."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_lie.show.figures.style import CLASS_COLOURS, canvas, logarithmic
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, head_of, spread

#: Bins of the angle, with as many images each.
BINS = 5


def draw_angles(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Group-sample error of rotations over what LEE foretells, ``LEE · t²``, against the angle.

    One while the first order holds; falling where outputs saturate. An image counts with the mean
    square of its sampled angles. Curves are geometric means over a class's models of their ratios
    of means in each bin, with standard errors over models.

    Returns:
        The figure; and a row per model and image: ``angle`` in degrees (root mean square),
        ``error`` and ``foretold``.
    """
    parts = []
    for cell, record in sweep.records():
        lee = record.lee
        for metric in record.metrics or ():
            if metric.metric != "group_sample" or metric.variant != "rotation" or lee is None:
                continue
            if "rotation" not in lee.groups:
                continue
            t = np.asarray(metric.transformations["t"]).reshape(len(metric.index), -1)
            square = (t**2).mean(1)
            own = lee.lee[:, lee.groups.index("rotation")].numpy()[metric.index]
            parts.append(
                pd.DataFrame(
                    {
                        **head_of(cell), "image": metric.index,
                        "angle": np.degrees(np.sqrt(square)), "error": metric.per_example,
                        "foretold": own * square,
                    }
                )
            )  # fmt: skip
    if not parts:
        raise NothingToDraw(
            "no group-sample error of rotations: sweep with --metrics group_sample "
            "--groups rotation"
        )
    table = pd.concat(parts, ignore_index=True)
    edges = np.unique(np.quantile(table["angle"], np.linspace(0, 1, BINS + 1)))
    figure, axes = canvas(58)
    place = axes[0, 0]
    handles: list[Line2D] = []
    plotted = [1.0]
    for name, colour in CLASS_COLOURS.items():
        part = table[table["class"] == name]
        if part.empty:
            continue
        curve = ratios(part, edges)
        bars = [curve["ratio"] - curve["low"], curve["high"] - curve["ratio"]]
        place.errorbar(curve["angle"], curve["ratio"], yerr=bars, color=colour, marker="o")
        plotted += curve["ratio"].tolist()
        handles.append(
            Line2D([], [], color=colour, label=f"{name} (n = {part['model'].nunique()})")
        )
    place.axhline(1, color="0.4", linewidth=0.6, linestyle=":")
    logarithmic(place.yaxis, plotted)
    place.set_xlabel("angle in degrees (root mean square of an image's samples)")
    place.set_ylabel("error / (LEE · t²)")
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure, table


def ratios(part: pd.DataFrame, edges: np.ndarray) -> pd.DataFrame:
    """Ratio of error to what is foretold in each bin of the angle.

    Ratios of means are averaged over models as logarithms; ``low`` and ``high`` are one standard
    error below and above.
    """
    bins = np.clip(np.searchsorted(edges, part["angle"], side="right") - 1, 0, len(edges) - 2)
    sums = part.assign(bin=bins).groupby(["bin", "model"])[["error", "foretold", "angle"]].mean()
    rows = []
    for chosen, models in sums.groupby("bin"):
        mean, error, n = spread(pd.Series(np.log(models["error"] / models["foretold"])))
        reach = float(np.nan_to_num(error))
        low, middle, high = np.exp([mean - reach, mean, mean + reach])
        row = {"angle": models["angle"].mean(), "ratio": middle, "low": low, "high": high, "n": n}
        rows.append({"bin": chosen, **row})
    return pd.DataFrame(rows)
