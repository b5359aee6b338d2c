"""Figure 4: to which kinds of layers the error belongs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.rows import KINDS, Row
from captum_lie.show.figures.style import CLASS_COLOURS, canvas, label_of
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, head_of, spread

#: The paper's three normalisations of a squared error, and LEE's own decomposition.
NORMALISATIONS = {"sum": "sum", "per_root_dim": "over √dim", "mean": "over dim"}
COLOURS = {"LEE": "0.25", "sum": "#56B4E9", "over √dim": "#0072B2", "over dim": "#CC79A7"}
_SHORT = {
    "convolution": "conv.", "non-linearity": "non-lin.", "normalisation": "norm.",
    "pooling/downsampling": "pooling", "patch embedding": "patches", "functional": "funct.",
}  # fmt: skip


def draw_layers(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 4, left: share of each kind of layer for CNNs, ViTs and mixers; a panel a group.

    A kind's share is the sum over its module calls of ``|self contribution|``, each a mean over
    images, as a share of that of all calls. Bars are means over models, with standard errors.

    Returns:
        The figure; and a row per model, group and kind with ``share`` and ``signed_share``, which
        is the contribution itself over LEE.
    """
    rows = [
        head_of(cell) | {"group": result.group} | one
        for cell, record in sweep.records()
        for result in record.layers
        for one in shares(result.rows, result.self_contributions, float(result.total.mean()))
    ]
    if not rows:
        raise NothingToDraw("LEE was not decomposed: sweep with --layers")
    table = pd.DataFrame(rows)
    groups = list(dict.fromkeys(table["group"]))
    figure, axes = canvas(31.0 * len(groups) + 12, len(groups), sharex=True)
    classes = [name for name in CLASS_COLOURS if name in set(table["class"])]
    for place, group in zip(axes[:, 0], groups, strict=True):
        part = table[table["group"] == group]
        _bars(place, part, "class", {name: CLASS_COLOURS[name] for name in classes})
        place.set_title(label_of(group))
    _finish(figure, axes[:, 0], {
        f"{name} (n = {table.loc[table['class'] == name, 'model'].nunique()})": CLASS_COLOURS[name]
        for name in classes
    })  # fmt: skip
    return figure, table


def draw_sampled(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Figure 4, right: shares by EQ-T and fractional EQ-T of single layers, beside LEE's.

    Bars are means over all models, with standard errors; a row per model, metric, normalisation and
    kind.
    """
    rows = []
    for cell, record in sweep.records():
        lee = next((r for r in record.layers if r.group == "translation_x"), None)
        for sampled in record.sampled:
            head = head_of(cell) | {"metric": sampled.metric}
            leaves = [row for row in sampled.rows if row.is_leaf]
            chosen = [i for i, row in enumerate(sampled.rows) if row.is_leaf]
            for name, title in NORMALISATIONS.items():
                found = shares(leaves, sampled.errors(name)[chosen], float("nan"))
                rows += [head | {"measure": title} | one for one in found]
            if lee is not None:
                found = shares(lee.rows, lee.self_contributions, float(lee.total.mean()))
                rows += [head | {"measure": "LEE"} | one for one in found]
    if not rows:
        raise NothingToDraw(
            "no sampled errors of single layers: sweep with --layers --layer-metrics eq_t,eq_t_frac"
        )
    table = pd.DataFrame(rows)
    metrics = list(dict.fromkeys(table["metric"]))
    figure, axes = canvas(36.0 * len(metrics) + 12, len(metrics), sharex=True)
    for place, metric in zip(axes[:, 0], metrics, strict=True):
        part = table[table["metric"] == metric]
        _bars(
            place, part, "measure", {n: c for n, c in COLOURS.items() if n in set(part["measure"])}
        )
        place.set_title(f"{_TITLES.get(metric, metric)}, n = {part['model'].nunique()}")
    _finish(figure, axes[:, 0], {n: c for n, c in COLOURS.items() if n in set(table["measure"])})
    return figure, table


_TITLES = {"eq_t": "EQ-T", "eq_t_frac": "fractional EQ-T", "eq_r": "EQ-R"}


def shares(rows: Sequence[Row], values: Tensor, total: float) -> list[dict[str, object]]:
    """Each kind's share of the sum over module calls of ``|mean over images|``.

    Args:
        rows: the calls.
        values: ``[R, N]``; NaN where there is none.
        total: what the signed contributions of a kind are divided by.
    """
    means = mean_and_stderr(values)[0].numpy()
    kinds = np.array([row.kind for row in rows])
    whole = np.nansum(np.abs(means))
    if not whole > 0:
        return []
    return [
        {
            "kind": kind,
            "share": float(np.nansum(np.abs(means[kinds == kind])) / whole),
            "signed_share": float(np.nansum(means[kinds == kind]) / total) if total else np.nan,
        }
        for kind in KINDS
        if (kinds == kind).any()
    ]


def _bars(axes: Axes, part: pd.DataFrame, by: str, colours: dict[str, str]) -> None:
    """A bar for each kind of layer and value of ``by``; models without a kind have share 0."""
    width = 0.82 / len(colours)
    for i, (name, colour) in enumerate(colours.items()):
        wide = part[part[by] == name].pivot_table(
            index="model", columns="kind", values="share", fill_value=0.0
        )
        found = [spread(wide[kind]) if kind in wide else (0.0, np.nan, 0) for kind in KINDS]
        axes.bar(
            np.arange(len(KINDS)) + (i - (len(colours) - 1) / 2) * width,
            [mean for mean, _, _ in found],
            width * 0.92,
            yerr=np.nan_to_num([error for _, error, _ in found]),
            color=colour,
            error_kw={"elinewidth": 0.6, "ecolor": "0.3"},
        )
    axes.set_ylabel("share")
    axes.set_xticks(range(len(KINDS)), [_SHORT.get(kind, kind) for kind in KINDS], rotation=40)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


def _finish(figure: Figure, panels: Sequence[Axes], colours: dict[str, str]) -> None:
    for axes in panels:
        axes.set_ylim(bottom=0)
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in colours.items()],
        loc="outside upper center",
        ncols=len(colours),
        columnspacing=1.0,
        handlelength=1.0,
    )
