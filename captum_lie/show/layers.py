"""Pictures of layers along depth: of a decomposition, and of sampled errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import color_sequences
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.drawing import paints
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.rows import KINDS
from captum_lie.results.sampled import SampledResult

COLOURS = dict(zip(KINDS, color_sequences["tab10"], strict=False))
#: Bars that are named in the depth plot, the longest name, and a character's share of a panel.
NAMED, LONGEST, CHARACTER = 8, 20, 0.017


@paints("LayerwiseResult")
def plot_depth(
    *results: LayerwiseResult, titles: Sequence[str] | None = None, label: str = "contribution"
) -> Figure:
    """Self contributions in the order of the calls, coloured by kind (the paper's Figure 4).

    Args:
        results: one panel each.
        titles: of the panels; by default the group and measure.
        label: of the vertical axis.

    The largest bars carry the name of their module. Error bars are standard errors of the mean
    over examples.
    """
    figure = Figure(figsize=(10, 2.9 * len(results) + 0.7), layout="constrained")
    panels: Any = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    used: set[str] = set()
    for i, (axes, result) in enumerate(zip(panels, results, strict=True)):
        table = result.to_dataframe().dropna(subset="self_contribution")
        table = table[(table["is_leaf"]) | (table["self_contribution"].abs() > 0)]
        values = table["self_contribution"].to_numpy()
        place = np.arange(len(values))
        shown = result.self_contributions[table.index.to_list()]
        stderr = mean_and_stderr(shown)[1].nan_to_num().numpy()
        axes.bar(
            place,
            values,
            width=0.9,
            color=[COLOURS[kind] for kind in table["kind"]],
            yerr=stderr,
            error_kw={"linewidth": 0.6, "ecolor": "0.4"},
        )
        used |= set(table["kind"])
        needed = [0, 0]  # characters of the names below and above the bars
        for rank in np.argsort(-np.abs(values))[:NAMED]:
            if abs(values[rank]) > 0.03 * np.abs(values).max():
                up = int(values[rank] >= 0)
                name = _shortened(table["module"].iloc[rank])
                needed[up] = max(needed[up], len(name))
                end = values[rank] + (stderr[rank] if up else -stderr[rank])
                axes.annotate(
                    name,
                    (place[rank], end),
                    xytext=(0, 3 if up else -3),
                    textcoords="offset points",
                    rotation=90,
                    ha="center",
                    va="bottom" if up else "top",
                    fontsize=6,
                )
        axes.axhline(0, color="0.3", linewidth=0.6)
        axes.margins(x=0.01)
        low, high = (values - stderr).min(initial=0), (values + stderr).max(initial=0)
        below, above = (CHARACTER * n + 0.05 for n in needed)  # shares of the panel's height
        span = (high - low or 1.0) / (1 - below - above)
        axes.set_ylim(low - below * span, high + above * span)
        axes.set_title(
            titles[i] if titles else f"{result.group} ({result.measure})", fontsize=10, loc="left"
        )
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("module calls, in the order in which they run")
    handles = [Patch(color=COLOURS[kind], label=kind) for kind in KINDS if kind in used]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8
    )
    return figure


def _shortened(name: str) -> str:
    """The end of a module's name, whole parts if they fit."""
    parts = name.split(".")[-3:]
    while len(parts) > 1 and len(".".join(parts)) > LONGEST:
        parts = parts[1:]
    return ".".join(parts)[-LONGEST:] or "(model)"


@paints("SampledResult")
def plot_sampled(result: SampledResult, *, normalisation: str = "mean") -> Figure:
    """Errors of the leaves along depth, coloured by kind (the paper's Figure 4, right)."""
    leaves = torch.tensor([row.is_leaf for row in result.rows])[:, None]
    values = result.errors(normalisation).masked_fill(~leaves, torch.nan)
    shown = LayerwiseResult(
        rows=result.rows,
        group=result.metric,
        measure=normalisation,
        total=torch.full_like(values[0], torch.nan),
        contributions=values,
        self_contributions=values,
        stderr=None,
        method="sampled",
    )
    title = f"{result.metric} of each layer alone"
    return plot_depth(shown, titles=[title], label=normalisation.replace("_", " "))
