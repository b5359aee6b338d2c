"""The end of trainings on digits as a table."""

from __future__ import annotations

import pandas as pd

from captum_lie.results import DigitsStudy


def digits_table(study: DigitsStudy) -> pd.DataFrame:
    """The end of training by penalty: means over seeds, with standard deviations as ``*_sd``.

    Example:
        >>> from captum_lie.results import DigitsRun, DigitsScore
        >>> score = DigitsScore(1, 0.5, 1e-3, 0.5, (0.25,), (0.1,), 0.2, 0.01, 1.0, 0.1, 0.3)
        >>> study = DigitsStudy("vit", "builtin", (30.0,), (DigitsRun(0.0, 0, (score,)),))
        >>> digits_table(study)[["error", "error_at_30", "seeds"]].values.tolist()
        [[0.5, 0.25, 1.0]]
    """
    last = study.last().drop(columns=["loss", "learning_rate", "lee_stderr", "relative_stderr"])
    grouped = last.drop(columns=["seed", "epoch"]).groupby("penalty", sort=False)
    deviations = grouped.std().add_suffix("_sd")
    seeds = grouped.size().rename("seeds")
    return pd.concat([grouped.mean(), deviations, seeds], axis=1).reset_index()
