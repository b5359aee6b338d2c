"""Rank correlation with a bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Fewer models than this give no interval worth the name.
FEWEST = 4


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ of n pairs, with a 95 % percentile interval over resampled pairs."""

    rho: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n < FEWEST:
            return f"n = {self.n}: too few for ρ"
        if not np.isfinite(self.rho):
            return f"ρ undefined (all alike), n = {self.n}"
        return f"ρ = {self.rho:.2f} [{self.low:.2f}, {self.high:.2f}], n = {self.n}"


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, ties by mean ranks; NaN where one side is constant.

    Example:
        >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 5.0])), 3)
        0.5
    """
    ranks = [pd.Series(v).rank().to_numpy(dtype=float) for v in (x, y)]
    centred = [r - r.mean() for r in ranks]
    size = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / size) if size > 0 else float("nan")


def rank_correlation(
    x: np.ndarray, y: np.ndarray, *, n_resamples: int = 2000, seed: int = 0
) -> RankCorrelation:
    """Spearman's ρ and its percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Pairs with a missing value are left out, and so are resamples that are constant.

    Args:
        x, y: ``[n]``.
        n_resamples, seed: of the bootstrap.

    Example:
        >>> x = np.arange(8.0)
        >>> found = rank_correlation(x, x**2)
        >>> (found.rho, found.low, found.high, found.n)
        (1.0, 1.0, 1.0, 8)
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y, n = x[known], y[known], int(known.sum())
    if n < FEWEST:
        return RankCorrelation(spearman(x, y) if n > 1 else np.nan, np.nan, np.nan, n)
    drawn = np.random.default_rng(seed).integers(n, size=(n_resamples, n))
    found = np.array([spearman(x[chosen], y[chosen]) for chosen in drawn])
    found = found[np.isfinite(found)]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
    return RankCorrelation(spearman(x, y), float(low), float(high), n)
