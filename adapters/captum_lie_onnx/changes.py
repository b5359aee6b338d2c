"""How many predictions change under shifts and rotations of growing size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_lie import Rotation
from captum_lie.extending.metrics import call, summarise
from captum_lie.extending.tensors import progress
from captum_lie.metrics import MetricTable, integer_shift

#: Pixels, each to the left, right, up and down.
SHIFTS: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
#: Degrees, each to both sides.
ANGLES: tuple[float, ...] = (1, 2, 5, 10, 15, 20, 30)


def change_curves(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    predicted: NDArray[Any],
    batch_size: int = 32,
    show_progress: bool = False,
) -> MetricTable:
    """Share of top-1 predictions that a shift or a rotation of a given size changes.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]``.
        predicted: classes of the unmoved images, ``[N]``.

    Returns:
        ``changed_by_shift`` for each size of :data:`SHIFTS` (circular, mean over four directions)
        and ``changed_by_rotation`` for each of :data:`ANGLES` (reflected border, bilinear, mean
        over both senses); parameter ``size``. Nothing is random.

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> table = change_curves(lambda x: x.mean((2, 3)), images, np.array([0, 0]))
        >>> len(table) == len(SHIFTS) + len(ANGLES)
        True
    """
    cases = [
        ("changed_by_shift", float(size), [_shift(dx * size, dy * size) for dx, dy in _DIRECTIONS])
        for size in SHIFTS
    ] + [
        ("changed_by_rotation", float(size), [_turn(math.radians(s * size)) for s in (1, -1)])
        for size in ANGLES
    ]
    results = []
    for name, size, moves in progress(cases, "shifts and rotations", len(cases), show_progress):
        changed = [
            torch.cat([call(model, move(x)).argmax(1) for x in images.split(batch_size)]).numpy()
            != predicted
            for move in moves
        ]
        shifts = name == "changed_by_shift"
        results.append(
            summarise(
                name,
                np.mean(changed, axis=0),
                variant=f"{size:g} {'px' if shifts else '°'}",
                unit="share of predictions that change",
                border="circular" if shifts else "reflect",
                rate=True,
                parameters={"size": size},
            )
        )
    return MetricTable(results)


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def _shift(dx: int, dy: int) -> Callable[[Tensor], Tensor]:
    def move(x: Tensor) -> Tensor:
        ones = np.ones(len(x), dtype=np.int64)
        return integer_shift(x, dx * ones, dy * ones, "circular", 0)[0]

    return move


def _turn(angle: float) -> Callable[[Tensor], Tensor]:
    return lambda x: Rotation().act(x, angle)
