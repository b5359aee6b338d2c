"""The module tree as an icicle: boxes below boxes, interactive or as a static picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.show.maps import SIGNED

#: Of the static picture: a character's width and a line's height in points, and its panels' inches.
CHARACTER, LINE, WIDTH, LEVEL = 4.0, 8.0, 10.0, 0.42


@dataclass(frozen=True)
class Box:
    """One resolved module call in the tree.

    Attributes:
        row: its place in the result's table.
        label: the last part of the module's name, with the call's number after the first.
        left, width: along the tree, in units of the sum of all absolute self contributions.
        level: resolved calls around it.
        contribution: its own with all within it, mean over the examples.
    """

    row: int
    label: str
    left: float
    width: float
    level: int
    contribution: float


def boxes(result: LayerwiseResult) -> list[Box]:
    """The tree's boxes in the order of the calls; children lie in their parent, side by side.

    A box is as wide as the absolute self contributions within it add up to.
    """
    table = result.to_dataframe()
    rows = result.rows
    resolved = [i for i, row in enumerate(rows) if row.resolved]
    width = table["self_contribution"].abs().fillna(0).to_numpy().copy()
    for i in reversed(resolved):
        if rows[i].parent >= 0:
            width[rows[i].parent] += width[i]
    found: dict[int, Box] = {}
    free: dict[int, float] = {}  # where each box's next child begins
    for i in resolved:
        parent = rows[i].parent
        left = free.get(parent, 0.0)
        free[parent], free[i] = left + width[i], left
        name = rows[i].module.rsplit(".", 1)[-1] or rows[i].type
        call = f" #{rows[i].call + 1}" if rows[i].call else ""
        level = found[parent].level + 1 if parent >= 0 else 0
        found[i] = Box(i, name + call, left, width[i], level, float(table["contribution"][i]))
    return list(found.values())


def icicle(result: LayerwiseResult, *, title: str | None = None) -> go.Figure:
    """The module tree as an interactive icicle.

    Each box's width adds up the absolute self contributions within it; its colour is its own
    (inclusive) contribution, red where it adds to the error and blue where it compensates.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> from captum_lie.layerwise import LayerwiseEquivarianceError
        >>> result = LayerwiseEquivarianceError(load_model("cnn")).attribute(load_images(2)[0])
        >>> icicle(result).data[0].labels[0]
        'Sequential'
    """
    table = result.to_dataframe()
    rows = result.rows
    tree = boxes(result)
    largest = _largest(tree)
    text = [
        f"{box.contribution:.3g} in all, {table['self_contribution'][box.row]:.3g} itself<br>"
        f"{rows[box.row].type}<br>"
        f"{table['input_layout'][box.row]} → {table['output_layout'][box.row]}"
        for box in tree
    ]
    figure = go.Figure(
        go.Icicle(
            ids=[str(box.row) for box in tree],
            labels=[box.label for box in tree],
            parents=["" if rows[b.row].parent < 0 else str(rows[b.row].parent) for b in tree],
            values=[box.width for box in tree],
            branchvalues="total",
            text=text,
            customdata=[rows[box.row].module or "(model)" for box in tree],
            textinfo="label",
            hovertemplate="<b>%{customdata}</b><br>%{text}<extra></extra>",
            marker={
                "colors": [box.contribution for box in tree],
                "colorscale": "RdBu",
                "reversescale": True,
                "cmid": 0,
                "cmin": -largest,
                "cmax": largest,
                "showscale": True,
                "colorbar": {"title": "contribution", "thickness": 12},
            },
            tiling={"orientation": "v"},
            sort=False,
        )
    )
    figure.update_layout(
        title=title or f"{result.group} ({result.measure})",
        margin={"t": 50, "l": 10, "r": 10, "b": 10},
        height=480,
    )
    return figure


def plot_icicle(*results: LayerwiseResult, titles: Sequence[str] | None = None) -> Figure:
    """The same as a static picture, for notebooks and papers.

    Args:
        results: one panel each, with colours of its own.
        titles: of the panels; by default the group and measure.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> from captum_lie.layerwise import LayerwiseEquivarianceError
        >>> result = LayerwiseEquivarianceError(load_model("cnn")).attribute(load_images(2)[0])
        >>> plot_icicle(result, titles=["cnn"]).axes[0].get_title(loc="left")
        'cnn'
    """
    trees = [boxes(result) for result in results]
    depths = [max(box.level for box in tree) + 1 for tree in trees]
    height = sum(LEVEL * depth + 0.4 for depth in depths)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels: Any = figure.subplots(len(results), 1, squeeze=False, height_ratios=depths)[:, 0]
    for i, (axes, result, tree) in enumerate(zip(panels, results, trees, strict=True)):
        _draw(axes, tree)
        name = titles[i] if titles else f"{result.group} ({result.measure})"
        axes.set_title(name, fontsize=10, loc="left")
        colours = ScalarMappable(Normalize(-_largest(tree), _largest(tree)), SIGNED)
        bar = figure.colorbar(colours, ax=axes, label="contribution", aspect=12, pad=0.01)
        bar.ax.tick_params(labelsize=7)
    return figure


def _draw(axes: Axes, tree: Sequence[Box]) -> None:
    colours = ScalarMappable(Normalize(-_largest(tree), _largest(tree)), SIGNED)
    points = 0.85 * WIDTH * 72 / (tree[0].width or 1.0)  # for a unit of width
    for box in tree:
        colour = colours.to_rgba(np.asarray(box.contribution))
        axes.bar(
            box.left, 0.96, box.width, box.level, align="edge", color=colour, edgecolor="white"
        )
        across, room = CHARACTER * len(box.label), box.width * points
        fits_across = across < room
        if fits_across or (room > LINE and across < 70 * LEVEL):
            dark = sum(w * float(c) for w, c in zip((0.3, 0.59, 0.11), colour[:3], strict=True))
            axes.text(
                box.left + box.width / 2,
                box.level + 0.48,
                box.label,
                rotation=0 if fits_across else 90,
                ha="center",
                va="center",
                fontsize=6.5,
                color="black" if dark > 0.5 else "white",
            )
    axes.set_xlim(0, tree[0].width or 1.0)
    axes.set_ylim(max(box.level for box in tree) + 1, 0)
    axes.set_axis_off()


def _largest(tree: Sequence[Box]) -> float:
    return float(np.nanmax([abs(box.contribution) for box in tree])) or 1.0
