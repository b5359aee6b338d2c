"""Figures 1, 5 and 9: equivariance errors against accuracy, a panel for each error."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_lie.show.figures.statistics import rank_correlation
from captum_lie.show.figures.style import (
    KIND_COLOURS,
    bars,
    canvas,
    kind_of,
    kinds_legend,
    label_of,
    logarithmic,
)
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, against_accuracy


def draw_accuracy(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 1: LEE under translation against accuracy, by kind; below, by family.

    Returns:
        The figure; and a row per model with its rank correlation over the trained models.
    """
    rows = against_accuracy(_lee(sweep, ("translation_x",)), sweep.table)
    families = _families(rows)
    figure, axes = canvas(
        62 + 4.0 * len(families) + 8, 2, height_ratios=[52, 4 * len(families) + 6]
    )
    table = _panel(axes[0, 0], rows, sweep, ylabel=f"{sweep.options.lee}, translation")
    _by_family(axes[1, 0], rows, families)
    axes[1, 0].set_xlabel(f"{sweep.options.lee}, translation")
    kinds_legend(figure, rows)
    return figure, table


def draw_metrics(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 5: translation, rotation and shear beside consistency and group-sample error."""
    lee = _lee(sweep, ("translation_x", "rotation", "shear_x"))
    table = sweep.table
    others = [
        _metric(table, "consistency", "unshifted", "consistency: changes"),
        _metric(table, "group_sample", "translation_x", "group sample, translation x"),
        _metric(table, "group_sample", "rotation", "group sample, rotation"),
    ]
    if all(other.empty for other in others):
        raise NothingToDraw(
            "neither consistency nor group-sample error was measured: sweep with "
            "--metrics consistency,group_sample"
        )
    return _panels(sweep, pd.concat([lee, *(o for o in others if not o.empty)]))


def draw_groups(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 9: hyperbolic rotation, brightness and stretch against accuracy."""
    return _panels(sweep, _lee(sweep, ("hyperbolic_rotation", "brightness", "stretch_x")))


def _lee(sweep: Sweep, groups: tuple[str, ...]) -> pd.DataFrame:
    parts = [sweep.lee(sweep.table, g).assign(panel=f"{sweep.options.lee}, {label_of(g)}")
             for g in groups]  # fmt: skip
    rows = pd.concat(parts)
    if rows.empty:
        what = " with --relative" if sweep.options.relative else ""
        raise NothingToDraw(f"no {sweep.options.lee} of {', '.join(groups)}: sweep{what} with "
                            f"--groups {','.join(groups)}")  # fmt: skip
    return rows


def _metric(table: pd.DataFrame, metric: str, group: str, panel: str) -> pd.DataFrame:
    rows = table[(table["metric"] == metric) & (table["group"] == group)]
    return rows.dropna(subset=["value"]).assign(panel=panel)


def _panels(sweep: Sweep, rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    rows = against_accuracy(rows, sweep.table)
    panels = list(dict.fromkeys(rows["panel"]))
    n_rows = -(-len(panels) // 2)
    figure, axes = canvas(37.0 * n_rows + 12, n_rows, 2)
    tables = [
        _panel(place, rows[rows["panel"] == panel], sweep, title=panel)
        for place, panel in zip(axes.flat, panels, strict=False)
    ]
    for unused in list(axes.flat)[len(panels) :]:
        unused.set_axis_off()
    kinds_legend(figure, rows)
    return figure, pd.concat(tables, ignore_index=True)


def _panel(
    axes: Axes, rows: pd.DataFrame, sweep: Sweep, *, title: str = "", ylabel: str = ""
) -> pd.DataFrame:
    """Draw one panel, and give its rows with the rank correlation over trained models."""
    for kind, weights, part in _styles(rows):
        points(axes, part, KIND_COLOURS[kind], filled=weights == "trained")
    logarithmic(axes.yaxis, rows["value"])
    axes.set_xlabel("accuracy")
    axes.set_ylabel(ylabel)
    trained = rows[rows["weights"] == "trained"]
    found = rank_correlation(
        trained["accuracy"].to_numpy(dtype=float),
        trained["value"].to_numpy(dtype=float),
        seed=sweep.options.seed,
    )
    if title:  # two panels a row leave little room
        axes.set_title(f"{title}\n{found}", x=-0.22, fontsize=6)
    else:
        axes.set_title(str(found))
    return rows.assign(rho=found.rho, rho_low=found.low, rho_high=found.high, rho_n=found.n)


def points(axes: Axes, part: pd.DataFrame, colour: str, *, filled: bool) -> None:
    """Models with their standard errors both ways."""
    axes.errorbar(
        part["accuracy"],
        part["value"],
        xerr=part["accuracy_stderr"].astype(float).fillna(0.0),
        yerr=bars(part["value"], part["stderr"]),
        fmt="o",
        color=colour,
        ecolor=colour,
        elinewidth=0.35,
        markerfacecolor=colour if filled else "none",
        markeredgewidth=0.6,
        zorder=3 if filled else 2,
    )


def _styles(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    kinds = rows["kind"].map(kind_of)
    return [
        (kind, weights, rows[(kinds == kind) & (rows["weights"] == weights)])
        for kind in KIND_COLOURS
        for weights in ("random", "trained")
        if ((kinds == kind) & (rows["weights"] == weights)).any()
    ]


def _families(rows: pd.DataFrame) -> list[str]:
    """Families in the order of their mean error, the smallest last."""
    means: Any = rows.groupby(_family(rows))["value"].mean()
    return [str(name) for name in means.sort_values(ascending=False).index]


def _family(rows: pd.DataFrame) -> pd.Series:
    return rows["family"].replace("", "no family").fillna("no family")


def _by_family(axes: Axes, rows: pd.DataFrame, families: list[str]) -> None:
    place = _family(rows).map({name: i for i, name in enumerate(families)})
    for kind, weights, part in _styles(rows):
        colour = KIND_COLOURS[kind]
        axes.errorbar(
            part["value"],
            place[part.index],
            xerr=bars(part["value"], part["stderr"]),
            fmt="o",
            color=colour,
            elinewidth=0.35,
            markerfacecolor=colour if weights == "trained" else "none",
            markeredgewidth=0.6,
        )
    axes.set_yticks(range(len(families)), families)
    axes.grid(axis="y")
    logarithmic(axes.xaxis, rows["value"])
    axes.set_ylim(-0.6, len(families) - 0.4)
