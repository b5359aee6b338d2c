"""Figure 9, last panel: how the estimates by probes converge."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from captum_lie.show.figures.style import canvas, label_of
from captum_lie.show.figures.sweep import NothingToDraw, Sweep

#: What one line of the figure shares; ``n`` is the number of images.
LINE = ["model", "images", "n", "group"]


def draw_probes(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Relative standard error of the estimated control against the number of probes.

    The control of the relative LEE is a squared norm of a Jacobian that random probes estimate, and
    cells keep the error that the probes alone make. Of sweeps into one folder with different
    ``--probes`` every cell counts. Thin lines are models and groups, the thick one their mean with
    its standard error; the dotted line falls as one over the root of the number.

    Returns:
        The figure; and a row per model, set of ``n`` images, group and number of probes.
    """
    rows = [
        {"model": cell.label, "images": cell.images, "n": len(record.lee), "group": group,
         "n_probes": int(cell.settings["n_probes"]), "error": float(error)}
        for cell in sweep.cells
        for record in cell.records
        if record.trained and record.lee is not None and "n_probes" in cell.settings
        for group, error in zip(record.lee.groups, record.lee.control_error, strict=True)
        if error > 0
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*LINE, "n_probes", "error"]).drop_duplicates()
    lines = table.groupby(LINE)
    table = table[lines["n_probes"].transform("nunique") > 1].reset_index(drop=True)
    if table.empty:
        raise NothingToDraw(
            "no model with estimated controls was measured with two numbers of probes: sweep again "
            "into the same folder with --relative and another --probes"
        )
    figure, axes = canvas(58)
    place = axes[0, 0]
    for _, line in table.groupby(LINE):
        line = line.sort_values("n_probes")
        place.plot(line["n_probes"], line["error"], color="0.6", linewidth=0.4, alpha=0.5)
    mean = table.groupby("n_probes")["error"].agg(["mean", "sem"])
    place.errorbar(mean.index, mean["mean"], yerr=mean["sem"].fillna(0.0), color="#0072B2",
                   marker="o", linewidth=1.4)  # fmt: skip
    ends = np.array([mean.index.min(), mean.index.max()], dtype=float)
    place.plot(ends, mean["mean"].iloc[0] * np.sqrt(ends[0] / ends), color="0.2", linestyle=":")
    place.set(xscale="log", yscale="log", xlabel="probes", ylabel="relative error of the control")
    place.set_xticks(mean.index, [str(n) for n in mean.index])
    place.xaxis.set_minor_formatter(NullFormatter())
    groups = ", ".join(label_of(group) for group in dict.fromkeys(table["group"]))
    n_models = table["model"].nunique()
    place.set_title(f"{n_models} models; {groups}" if len(groups) < 40 else f"{n_models} models, "
                    f"{table['group'].nunique()} groups")  # fmt: skip
    return figure, table
