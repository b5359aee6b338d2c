"""Figure 8: how the error builds up along depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from captum_lie.show.figures.style import (
    CLASS_COLOURS,
    canvas,
    class_of,
    label_of,
    logarithmic,
)
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, spread, weights_of

#: Parts of the depth in each of which a class has one point.
PARTS = 8


def draw_subnetworks(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 8: error of the head networks relative to how their features move, along depth.

    ``‖ẋ - ξ(x)‖ / ‖ξ(x)‖`` at the output of every leaf call that moves with the image, from 0 (the
    first call) to 1 (the last). Thin lines are models; thick ones are the means over a class's
    models of their medians in each eighth of the depth, with standard errors: where features are
    nearly the same everywhere, as within some attention, hardly anything moves and the quotient of
    single calls is large.

    Returns:
        The figure; and a row per model, group and leaf call, mean over images.
    """
    parts = []
    for cell, record in sweep.records():
        for result in record.subnetworks:
            found: pd.DataFrame = result.to_dataframe()
            found = found.loc[found["is_leaf"]].reset_index(drop=True)
            found["depth"] = np.arange(len(found)) / max(len(found) - 1, 1)
            chosen = pd.DataFrame(
                {
                    "module": found["module"],
                    "call": found["call"],
                    "depth": found["depth"],
                    "value": found["relative_to_generator"],
                    "stderr": found["relative_to_generator_stderr"],
                }
            )
            parts.append(
                chosen.dropna(subset=["value"]).assign(
                    model=cell.label, images=cell.images, group=result.group,
                    weights=weights_of(cell), **{"class": class_of(cell.kind)},
                )
            )  # fmt: skip
    if not parts:
        raise NothingToDraw("no head networks were measured: sweep with --layers --subnetworks")
    table = pd.concat(parts, ignore_index=True)
    groups = list(dict.fromkeys(table["group"]))
    figure, axes = canvas(37.0 * len(groups) + 10, len(groups), sharex=True)
    for place, group in zip(axes[:, 0], groups, strict=True):
        part = table[table["group"] == group]
        for (_, name), line in part.groupby(["model", "class"]):
            place.plot(line["depth"], line["value"], color=CLASS_COLOURS[name], alpha=0.22,
                       linewidth=0.45)  # fmt: skip
        lowest: list[float] = []
        for name in CLASS_COLOURS:
            mean = along_depth(part[part["class"] == name])
            lowest += mean["value"].tolist()
            place.errorbar(mean["depth"], mean["value"], yerr=mean["stderr"].fillna(0.0),
                           color=CLASS_COLOURS[name], linewidth=1.4, elinewidth=0.7)  # fmt: skip
        logarithmic(place.yaxis, part["value"])
        if lowest:  # below lie the first calls, whose error is rounding
            place.set_ylim(bottom=min(lowest) / 3)
        place.set_title(label_of(group))
    axes[-1, 0].set_xlabel("depth, as a share of the leaf calls")
    figure.supylabel("error relative to the features' motion", fontsize=7)
    figure.legend(
        handles=[
            Line2D([], [], color=colour, linewidth=1.4, label=f"{name} (n = {n})")
            for name, colour in CLASS_COLOURS.items()
            if (n := table.loc[table["class"] == name, "model"].nunique())
        ],
        loc="outside upper center",
        ncols=4,
    )
    return figure, table


def along_depth(part: pd.DataFrame) -> pd.DataFrame:
    """Mean over models in each part of the depth, of a model's own median there."""
    eighth = (part["depth"] * PARTS).astype(int).clip(upper=PARTS - 1)
    own = part["value"].groupby([part["model"], eighth.rename("part")]).median().unstack("part")
    rows = []
    for eighth_name in own.columns:
        mean, error, _ = spread(own[eighth_name])
        rows.append(
            {"depth": (int(str(eighth_name)) + 0.5) / PARTS, "value": mean, "stderr": error}
        )
    return pd.DataFrame(rows, columns=["depth", "value", "stderr"])
