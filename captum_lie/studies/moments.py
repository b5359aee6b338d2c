"""Moments of LEE over images: of parts, of the whole from those, and the table that follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from captum_lie.core.groups import BASIS
from captum_lie.results import LeeResult


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, means and squares of the images of a :class:`~captum_lie.results.LeeResult`.

    In double precision. Squares are those of deviations from the mean: where images differ little,
    sums of the squared values themselves would lose the digits that matter. Parts are put together
    by the formula of Chan, Golub and LeVeque (1983).

    Attributes:
        groups: names.
        n: number of images.
        mean: of LEE and of its control, ``[G, 2]``; NaN for a control that was not measured.
        scatter: sums over the images of products of their deviations, ``[G, 2, 2]``.
        gram: mean Gram matrix over aff(2), ``[6, 6]``; NaN if it was not measured.

    Example:
        >>> lee, control = torch.rand(2, 5, 1).double()
        >>> whole = LeeResult(("rotation",), lee, control)
        >>> parts = [LeeResult(whole.groups, lee[i], control[i]) for i in (slice(2), slice(2, 5))]
        >>> found = combined([moments_of(part) for part in parts])
        >>> torch.allclose(found.relative_stderr, whole.relative_stderr, rtol=1e-12)
        True
    """

    groups: tuple[str, ...]
    n: int
    mean: Tensor
    scatter: Tensor
    gram: Tensor

    @property
    def stderr(self) -> Tensor:
        """Standard error of the mean LEE over images, ``[G]``; NaN for a single image."""
        return self._stderr(self.scatter[:, 0, 0])

    @property
    def relative(self) -> Tensor:
        """LEE over its control, a ratio of means, ``[G]``; NaN where that is zero or missing."""
        lee, control = self.mean.T
        ratio: Tensor = (lee / control).masked_fill(control == 0, torch.nan)
        return ratio

    @property
    def relative_stderr(self) -> Tensor:
        """Standard error of that ratio, ``[G]``, by the delta method.

        As :attr:`captum_lie.results.LeeResult.relative_stderr`: the residuals ``lee - ratio ·
        control`` have the square ``c · scatter · c`` with ``c = (1, -ratio)``.
        """
        c = torch.stack([torch.ones_like(self.relative), -self.relative], 1)
        squares = torch.einsum("ga,gab,gb->g", c, self.scatter, c)
        return self._stderr(squares) / self.mean[:, 1]

    def to_dataframe(self) -> pd.DataFrame:
        """A row per group: group, lee, stderr, relative_lee, relative_stderr, n."""
        return pd.DataFrame(
            {
                "group": list(self.groups),
                "lee": self.mean[:, 0].numpy(),
                "stderr": self.stderr.numpy(),
                "relative_lee": self.relative.numpy(),
                "relative_stderr": self.relative_stderr.numpy(),
                "n": self.n,
            }
        )

    def vector(self) -> Tensor:
        """All numbers in one row, as processes exchange them."""
        parts = (self.mean, self.scatter, self.gram)
        n = torch.tensor([self.n], dtype=torch.float64)
        return torch.cat([n, *(part.flatten() for part in parts)])

    @staticmethod
    def from_vector(groups: tuple[str, ...], vector: Tensor) -> Moments:
        """The inverse of :meth:`vector`."""
        g, b = len(groups), len(BASIS)
        n, mean, scatter, gram = vector.split([1, 2 * g, 4 * g, b * b])
        return Moments(
            groups, int(n), mean.reshape(g, 2), scatter.reshape(g, 2, 2), gram.reshape(b, b)
        )

    def _stderr(self, squares: Tensor) -> Tensor:
        if self.n < 2:
            return torch.full_like(squares, torch.nan)
        return (squares.clamp(min=0) / (self.n - 1) / self.n).sqrt()


def moments_of(result: LeeResult) -> Moments:
    """Of the images of a result."""
    missing = torch.full_like(result.lee, torch.nan)
    values = torch.stack([result.lee, missing if result.control is None else result.control], 2)
    mean = values.mean(0)
    deviations = values - mean
    gram = torch.full((len(BASIS), len(BASIS)), torch.nan).double()
    return Moments(
        result.groups,
        len(result),
        mean,
        torch.einsum("nga,ngb->gab", deviations, deviations),
        gram if result.gram is None else result.gram,
    )


def nothing(groups: tuple[str, ...]) -> Moments:
    """Of no images at all."""
    g, b = len(groups), len(BASIS)
    return Moments.from_vector(groups, torch.zeros(1 + 6 * g + b * b, dtype=torch.float64))


def combined(parts: Sequence[Moments]) -> Moments:
    """Of all images of several parts, at least one of which has any."""
    whole = sum(part.n for part in parts)
    mean = _sum(part.n * part.mean for part in parts) / whole
    shifts = [part.mean - mean for part in parts]
    between = (part.n * d[:, :, None] * d[:, None] for part, d in zip(parts, shifts, strict=True))
    return Moments(
        parts[0].groups,
        whole,
        mean,
        _sum(part.scatter for part in parts) + _sum(between),
        _sum(part.n * part.gram for part in parts) / whole,
    )


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)
