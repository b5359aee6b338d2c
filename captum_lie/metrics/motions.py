"""Finite motions of images: what EQ-T, fractional EQ-T and EQ-R have in common, and what not.

A motion is told by a few numbers drawn from [-1, 1). It moves grids of every size by the same share
of their sides: an image and an output that is coarser, or all tensors at a layer's boundaries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.rotation import bandlimit, rotate
from captum_lie.metrics.shifts import integer_shift
from captum_lie.metrics.sinc import (
    DEFAULT_KERNEL,
    SINC_BORDERS,
    SincBorder,
    SincKernel,
    fractional_shift,
)
from captum_lie.results.metrics import Array

Size = tuple[int, ...]
Parameters = Mapping[str, Array]
#: Images ``[N, C, h, w]`` to others, and the mask ``[N, 1, h, w]`` of values that depend on no
#: border.
Act = Callable[[Tensor], tuple[Tensor, Tensor]]


def unchanged(x: Tensor) -> tuple[Tensor, Tensor]:
    """No motion; every value counts."""
    return x, torch.ones(len(x), 1, *x.shape[-2:], dtype=torch.bool, device=x.device)


@dataclass(frozen=True)
class Move:
    """One motion of each example.

    Attributes:
        act: moves images.
        match: takes from an output what a moved one has lost, so that the two can be compared.
    """

    act: Act
    match: Act = unchanged


@dataclass(frozen=True, kw_only=True)
class Motion(ABC):
    """A family of motions.

    Attributes:
        border: what lies outside a grid.
        n_draws: so many numbers from [-1, 1) tell one motion, d.

    Raises:
        ValueError: an unknown border rule.
    """

    border: SincBorder = "zero"
    n_draws: ClassVar[int]

    def __post_init__(self) -> None:
        one_of("border", self.border, SINC_BORDERS)

    def fits(self, grids: Sequence[Size]) -> bool:
        """Whether all these grids can be moved alike."""
        return True

    @abstractmethod
    def plan(self, draws: Array, grids: Sequence[Size]) -> Parameters:
        """Parameters of motions for ``draws [..., d]``, in units of the first grid, each ``[...]``.

        Raises:
            ValueError: the grids do not fit, or nothing would move.
        """

    @abstractmethod
    def move(self, parameters: Parameters, grid: Size) -> Move:
        """The motions of N examples, given their parameters ``[N]`` in units of a grid."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What determines them beside draws and border, for the record."""


@dataclass(frozen=True, kw_only=True)
class IntegerShift(Motion):
    """Shifts by whole pixels of the coarsest grid, which are whole pixels of every other.

    Attributes:
        max_shift: as a share of a grid's sides.
        least: so many pixels of the coarsest grid are within reach, however small it is.

    Example:
        >>> shift = IntegerShift(max_shift=0.25, border="circular")
        >>> plan = shift.plan(np.array([[0.9, 0.0]]), [(8, 8), (4, 4)])
        >>> {name: pixels.tolist() for name, pixels in plan.items()}
        {'dx_px': [2.0], 'dy_px': [0.0]}
        >>> moved, _ = shift.move(plan, (8, 8)).act(torch.arange(4.0).expand(1, 1, 4, 4))
        >>> moved[0, 0, 0].tolist()
        [1.0, 2.0, 3.0, 0.0]
    """

    max_shift: float = 0.125
    least: int = 0
    n_draws: ClassVar[int] = 2

    def settings(self) -> dict[str, object]:
        return {"max_shift": self.max_shift}

    def fits(self, grids: Sequence[Size]) -> bool:
        coarse = _coarsest(grids)
        return all(side % least == 0 for g in grids for side, least in zip(g, coarse, strict=True))

    def plan(self, draws: Array, grids: Sequence[Size]) -> Parameters:
        if not self.fits(grids):
            raise InvalidValueError(
                "Integer shifts need a coarsest grid that divides every other; got "
                f"{' and '.join(map(_spelled, grids))}. Use eq_t_frac, or images of a suitable "
                "size."
            )
        coarse = _coarsest(grids)
        steps = [side // least for side, least in zip(grids[0], coarse, strict=True)]
        reach = [max(self.least, int(self.max_shift * side)) for side in coarse]
        if not any(reach):
            raise InvalidValueError(
                f"max_shift={self.max_shift} of images {_spelled(grids[0])} is less than one step "
                f"of {max(steps)} px, so nothing would move. Raise max_shift or pass larger images."
            )

        def pixels(draw: Array, axis: int) -> Array:
            # Every whole number of steps within reach is equally likely.
            count: Array = np.floor((draw + 1) * (reach[axis] + 0.5)) - reach[axis]
            return count * steps[axis]

        return {"dx_px": pixels(draws[..., 0], 1), "dy_px": pixels(draws[..., 1], 0)}

    def move(self, parameters: Parameters, grid: Size) -> Move:
        def act(x: Tensor) -> tuple[Tensor, Tensor]:
            dx, dy = _scaled(parameters, grid, x)
            return integer_shift(x, np.round(dx), np.round(dy), self.border)

        return Move(act)


@dataclass(frozen=True, kw_only=True)
class FractionalShift(Motion):
    """Shifts by any fraction of a pixel.

    Attributes:
        max_shift: as a share of a grid's sides.
        kernel: reads between pixels.
    """

    max_shift: float = 0.125
    kernel: SincKernel = DEFAULT_KERNEL
    n_draws: ClassVar[int] = 2

    def settings(self) -> dict[str, object]:
        return {"max_shift": self.max_shift} | _of_kernel(self.kernel)

    def plan(self, draws: Array, grids: Sequence[Size]) -> Parameters:
        height, width = grids[0]
        return {
            "dx_px": draws[..., 0] * (self.max_shift * width),
            "dy_px": draws[..., 1] * (self.max_shift * height),
        }

    def move(self, parameters: Parameters, grid: Size) -> Move:
        def act(x: Tensor) -> tuple[Tensor, Tensor]:
            dx, dy = map(torch.from_numpy, _scaled(parameters, grid, x))
            return fractional_shift(x, dx, dy, self.border, self.kernel)

        return Move(act)


@dataclass(frozen=True, kw_only=True)
class Turn(Motion):
    """Rotations about the centre.

    Attributes:
        max_angle: in radians.
        kernel: reads between pixels.
    """

    max_angle: float = pi
    kernel: SincKernel = DEFAULT_KERNEL
    n_draws: ClassVar[int] = 1

    def settings(self) -> dict[str, object]:
        return {"max_angle": self.max_angle} | _of_kernel(self.kernel)

    def plan(self, draws: Array, grids: Sequence[Size]) -> Parameters:
        return {"angle_rad": draws[..., 0] * self.max_angle}

    def move(self, parameters: Parameters, grid: Size) -> Move:
        angle = torch.from_numpy(parameters["angle_rad"])
        return Move(
            lambda x: rotate(x, angle, self.border, self.kernel),
            lambda x: bandlimit(x, angle, self.border, self.kernel),
        )


def _scaled(parameters: Parameters, grid: Size, x: Tensor) -> tuple[Array, Array]:
    """Displacements along columns and rows in pixels of x."""
    height, width = grid
    return (
        parameters["dx_px"] * (x.shape[-1] / width),
        parameters["dy_px"] * (x.shape[-2] / height),
    )


def _coarsest(grids: Sequence[Size]) -> Size:
    return tuple(min(sides) for sides in zip(*grids, strict=True))


def _of_kernel(kernel: SincKernel) -> dict[str, object]:
    return {"window": kernel.window, "half_width": kernel.half_width}


def _spelled(grid: Size) -> str:
    return " × ".join(map(str, grid))
