"""Finite motions of all grids at a call's boundaries at once, by the same share of the extent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from captum_lie.metrics.shifts import integer_shift
from captum_lie.metrics.sinc import SincBorder, SincKernel, bandlimit, fractional_shift, rotate
from captum_lie.results.metrics import Array

Size = tuple[int, ...]
Act = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MotionOptions:
    """See :meth:`captum_lie.layerwise.LayerwiseSampledError.evaluate`."""

    max_shift: float
    max_angle: float
    border: SincBorder
    kernel: SincKernel


@dataclass(frozen=True)
class Move:
    """One motion of each example.

    Attributes:
        act: images ``[N, C, h, w]`` to moved ones and the mask of values that depend on no border.
        match: what an output must lose before it can be compared with a moved one, likewise.
    """

    act: Act
    match: Act


class Motion(Protocol):
    """A family of motions, with parameters drawn uniformly from ``[-1, 1)²``."""

    def fits(self, grids: Sequence[Size]) -> bool:
        """Whether all these grids can be moved alike."""

    def move(self, draws: Array, grids: Sequence[Size]) -> Move:
        """The motions for ``draws [N, 2]``."""


def unchanged(x: Tensor) -> tuple[Tensor, Tensor]:
    """No motion; every value counts."""
    return x, torch.ones(len(x), 1, *x.shape[-2:], dtype=torch.bool, device=x.device)


class IntegerShift:
    """Shifts by whole pixels of the coarsest grid, which are whole pixels of every other."""

    def __init__(self, options: MotionOptions) -> None:
        self.options = options

    def fits(self, grids: Sequence[Size]) -> bool:
        coarse = _coarsest(grids)
        return all(side % least == 0 for g in grids for side, least in zip(g, coarse, strict=True))

    def move(self, draws: Array, grids: Sequence[Size]) -> Move:
        coarse = _coarsest(grids)
        # Every whole number of pixels within reach is equally likely.
        reach = [max(1, int(self.options.max_shift * side)) for side in coarse]
        rows, columns = (np.floor((draws[:, i] + 1) * (reach[i] + 0.5)) - reach[i] for i in (0, 1))

        def act(x: Tensor) -> tuple[Tensor, Tensor]:
            dy, dx = rows * (x.shape[-2] // coarse[0]), columns * (x.shape[-1] // coarse[1])
            return integer_shift(x, dx, dy, self.options.border)

        return Move(act, unchanged)


class FractionalShift:
    """Shifts by any fraction of a pixel."""

    def __init__(self, options: MotionOptions) -> None:
        self.options = options

    def fits(self, grids: Sequence[Size]) -> bool:
        return True

    def move(self, draws: Array, grids: Sequence[Size]) -> Move:
        shares = torch.from_numpy(draws * self.options.max_shift)

        def act(x: Tensor) -> tuple[Tensor, Tensor]:
            dy, dx = shares[:, 0] * x.shape[-2], shares[:, 1] * x.shape[-1]
            return fractional_shift(x, dx, dy, self.options.border, self.options.kernel)

        return Move(act, unchanged)


class Turn:
    """Rotations about the centre."""

    def __init__(self, options: MotionOptions) -> None:
        self.options = options

    def fits(self, grids: Sequence[Size]) -> bool:
        return True

    def move(self, draws: Array, grids: Sequence[Size]) -> Move:
        angle = torch.from_numpy(draws[:, 0] * self.options.max_angle)
        border, kernel = self.options.border, self.options.kernel
        return Move(
            lambda x: rotate(x, angle, border, kernel),
            lambda x: bandlimit(x, angle, border, kernel),
        )


#: By the name of the metric.
MOTIONS: dict[str, Callable[[MotionOptions], Motion]] = {
    "eq_t": IntegerShift,
    "eq_t_frac": FractionalShift,
    "eq_r": Turn,
}


def _coarsest(grids: Sequence[Size]) -> Size:
    return tuple(min(sides) for sides in zip(*grids, strict=True)) if grids else (1, 1)
