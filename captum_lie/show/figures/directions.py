"""Beyond the paper: the affine motion under which models are worst, by family."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_lie.core.gram import principal_directions
from captum_lie.show.figures.style import canvas, kind_of
from captum_lie.show.figures.sweep import NothingToDraw, Sweep, weights_of

_SHORT = {"translation along x": "transl. x", "translation along y": "transl. y",
          "hyperbolic rotation": "hyp. rot.", "stretch of x against y": "x against y"}  # fmt: skip


def draw_directions(sweep: Sweep) -> tuple[Figure, pd.DataFrame]:
    """Shares of the named motions in the worst affine direction, means over a family's models.

    Shares are squared coefficients of the first eigenvector of the Gram matrix of Lie derivatives
    over aff(2), in the basis of translations, rotation, scale and hyperbolic rotations.

    Returns:
        The figure; and a row per model and named motion, with LEE along the direction, ``worst``.
    """
    rows = []
    for cell, record in sweep.records():
        gram = None if record.lee is None else record.lee.gram
        if gram is None or not gram.isfinite().all():
            continue
        found = principal_directions(gram)
        rows += [
            {"model": cell.label, "images": cell.images, "kind": kind_of(cell.kind),
             "family": cell.family or "no family", "weights": weights_of(cell),
             "worst": float(found.eigenvalues[0]), "motion": motion, "share": share}
            for motion, share in found.shares().items()
        ]  # fmt: skip
    if not rows:
        raise NothingToDraw("no Gram matrices over aff(2): sweep with --groups all")
    table = pd.DataFrame(rows)
    motions = list(dict.fromkeys(table["motion"]))
    means = table.pivot_table(index=["kind", "family"], columns="motion", values="share",
                              aggfunc="mean")[motions]  # fmt: skip
    errors = table.groupby(["kind", "family", "motion"])["share"].sem().unstack()[motions]
    counts = table.groupby(["kind", "family"])["model"].nunique()
    figure, axes = canvas(24 + 7.0 * len(means))
    place = axes[0, 0]
    place.imshow(means.to_numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    shown, missed = means.to_numpy(dtype=float), errors.to_numpy(dtype=float)
    for i in range(len(means)):
        for j in range(len(motions)):
            mean, error = shown[i, j], missed[i, j]
            text = f"{100 * mean:.0f}" + (f"\n± {100 * error:.0f}" if np.isfinite(error) else "")
            place.text(j, i, text, ha="center", va="center", fontsize=6,
                       color="white" if mean > 0.6 else "0.15")  # fmt: skip
    place.set_xticks(range(len(motions)), [_SHORT.get(m, m) for m in motions], rotation=40)
    for label in place.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    place.set_yticks(range(len(means)), [f"{family} ({counts[kind, family]})"
                                         for kind, family in means.index])  # fmt: skip
    place.spines[:].set_visible(False)
    place.tick_params(length=0)
    figure.suptitle("shares of the worst affine direction, % ± standard error", fontsize=7)
    return figure, table
