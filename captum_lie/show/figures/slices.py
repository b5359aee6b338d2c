"""Figure 6: LEE of models that differ in one respect."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_lie.show.figures.slices_file import read_slices
from captum_lie.show.figures.style import KIND_COLOURS, bars, canvas, kind_of, logarithmic
from captum_lie.show.figures.sweep import NothingToDraw, Sweep


def draw_slices(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 6: translation LEE after over before, a marker a pair, by what differs.

    A quotient, since the levels of pairs may lie many powers of ten apart; they stand beside it.
    Open markers are models with random weights.

    Returns:
        The figure; and a row per pair. ``ratio`` is after over before; its standard error takes the
        two as independent, which overstates it where both saw the same images.
    """
    lee = sweep.lee(sweep.table, "translation_x")
    by_name = {name: row for row in lee.to_dict("records")
               for name in (str(row["model"]).rpartition(":")[2], row["label"])}  # fmt: skip
    rows = []
    for one in sweep.options.slices or read_slices():
        for before, after in one.pairs:
            first, second = by_name.get(before), by_name.get(after)
            if first and second and first["images"] == second["images"]:
                rows.append({"slice": one.name, **_pair(first, second)})
    if not rows:
        raise NothingToDraw(
            "no pair of the slices was measured under translation_x on the same images: sweep "
            "over both --models of a pair, or name the sweep's own with --slices FILE"
        )
    table = pd.DataFrame(rows)
    names = list(dict.fromkeys(table["slice"]))
    counts = [int((table["slice"] == name).sum()) for name in names]
    figure, axes = canvas(
        14.0 + 7.5 * len(table) + 6 * len(names),
        len(names),
        sharex=True,
        height_ratios=[1 + count for count in counts],
    )
    for place, name in zip(axes[:, 0], names, strict=True):
        part = table[table["slice"] == name].reset_index(drop=True)
        for i, row in part.iterrows():
            colour = KIND_COLOURS[kind_of(row["kind"])]
            place.errorbar(
                row["ratio"], i, xerr=bars([row["ratio"]], [row["ratio_stderr"]]), fmt="o",
                color=colour, elinewidth=0.7,
                markerfacecolor="white" if row["weights"] == "random" else colour,
            )  # fmt: skip
            place.annotate(
                f"{row['lee_before']:.2g} → {row['lee_after']:.2g}", (1.02, i),
                xycoords=("axes fraction", "data"), va="center", fontsize=6, color="0.3",
            )  # fmt: skip
        place.axvline(1, color="0.5", linewidth=0.6, linestyle=":")
        place.set_yticks(
            range(len(part)),
            [f"{_short(r.before)}\n→ {_short(r.after)}" for r in part.itertuples()],
        )
        place.set_ylim(len(part) - 0.4, -0.6)
        place.set_title(name)
        place.grid(axis="y")
    logarithmic(axes[-1, 0].xaxis, [0.5, 2.0, *table["ratio"]])
    axes[-1, 0].set_xlabel(f"translation {sweep.options.lee}, after / before")
    return figure, table


def _short(label: object) -> str:
    """A label as the axis has room for it."""
    return str(label).rpartition(":")[2].replace("@random", " (random)")


def _pair(before: dict[Hashable, Any], after: dict[Hashable, Any]) -> dict[str, Any]:
    a, b = float(before["value"]), float(after["value"])
    da, db = float(before["stderr"]), float(after["stderr"])
    ratio = b / a if a else float("nan")
    return {
        "before": before["label"], "after": after["label"], "images": before["images"],
        "kind": after["kind"], "weights": after["weights"],
        "lee_before": a, "stderr_before": da, "lee_after": b, "stderr_after": db, "ratio": ratio,
        "ratio_stderr": abs(ratio) * float(np.hypot(da / a, db / b)) if a and b else float("nan"),
    }  # fmt: skip
