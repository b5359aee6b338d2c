"""Figure 7: how equivariance carries over from one set of images to another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_lie.show.figures.style import (
    KIND_COLOURS,
    bars,
    canvas,
    kind_of,
    kinds_legend,
    logarithmic,
)
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, tidy


def draw_gap(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 7: translation LEE on each set of images against that on the first.

    The first is the one that is asked for, or else ``test``, or else the first by name.

    Returns:
        The figure; and a row per model and other set. ``gap`` is the other's LEE minus the first's;
        its standard error takes the sets as independent.
    """
    lee = sweep.lee(tidy(sweep.measured), "translation_x")
    names = sorted(set(lee["images"]))
    if len(names) < 2:
        raise NothingToDraw(
            "one set of images alone: sweep with --images test=...,train=... under --groups "
            "translation_x"
        )
    asked = sweep.options.images
    first = asked if asked in names else "test" if "test" in names else names[0]
    place = {(row["label"], row["images"]): row for row in lee.to_dict("records")}
    rows = []
    for (label, images), other in place.items():
        base = place.get((label, first))
        if images != first and base is not None:
            rows.append(
                {
                    "label": label, "family": other["family"], "kind": other["kind"],
                    "weights": other["weights"], "first": first, "other": images,
                    "lee_first": base["value"], "stderr_first": base["stderr"],
                    "lee_other": other["value"], "stderr_other": other["stderr"],
                    "gap": other["value"] - base["value"],
                    "gap_stderr": float(np.hypot(other["stderr"], base["stderr"])),
                }
            )  # fmt: skip
    if not rows:
        raise NothingToDraw(f"no model was measured on {first} and another set of --images")
    table = pd.DataFrame(rows)
    others = list(dict.fromkeys(table["other"]))
    figure, axes = canvas(66.0 * len(others) + 12, len(others))
    for panel, name in zip(axes[:, 0], others, strict=True):
        part = table[table["other"] == name]
        for _, row in part.iterrows():
            colour = KIND_COLOURS[kind_of(row["kind"])]
            panel.errorbar(
                row["lee_first"], row["lee_other"],
                xerr=bars([row["lee_first"]], [row["stderr_first"]]),
                yerr=bars([row["lee_other"]], [row["stderr_other"]]),
                fmt="o", color=colour, elinewidth=0.35, markeredgewidth=0.6,
                markerfacecolor=colour if row["weights"] == "trained" else "none",
            )  # fmt: skip
        values = part[["lee_first", "lee_other"]].to_numpy(dtype=float)
        for axis in (panel.xaxis, panel.yaxis):
            logarithmic(axis, values.ravel())
        panel.axline(values.min(axis=None) * np.ones(2), values.max(axis=None) * np.ones(2),
                     color="0.5", linewidth=0.6, linestyle=":")  # fmt: skip
        panel.set_xlabel(f"{sweep.options.lee}, translation, on {first}")
        panel.set_ylabel(f"on {name}")
        above = int((part["gap"] > 0).sum())
        panel.set_title(f"larger on {name} for {above} of {len(part)} models")
    kinds_legend(figure, table)
    return figure, table
