"""Directions in the Lie algebra aff(2), and the coordinates of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

Direction = tuple[float, float, float, float, float, float]
PixelRow = tuple[float, float, float]

#: Names of the six fields that span aff(2), in the order of every direction and Gram matrix.
BASIS: tuple[str, ...] = ("∂x", "∂y", "X∂x", "Y∂x", "X∂y", "Y∂y")


def pixel_matrix(direction: Direction, height: int, width: int) -> Tensor:
    """The direction's velocity field as a homogeneous matrix ``[3, 3]`` in centred pixels.

    ``(v_column, v_row, 0) = M (column, row, 1)``, with columns and rows counted from the image's
    centre. Isotropic coordinates make the linear part the same matrix in pixels as in [-1, 1]².
    """
    rows = pixel_rows(direction, height, width)
    return torch.tensor([*rows, (0, 0, 0)], dtype=torch.float64)


def pixel_rows(direction: Direction, height: int, width: int) -> tuple[PixelRow, PixelRow]:
    """The rows of :func:`pixel_matrix` for ``v_column`` and ``v_row``, as plain numbers.

    A tensor made while torch.func differentiates need not give its numbers away (torch 2.6).
    """
    dx, dy, xx, yx, xy, yy = direction
    return (xx, yx, dx * (width - 1) / 2), (xy, yy, dy * (height - 1) / 2)


def centred_pixels(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of columns ``[W]`` and rows ``[H, 1]``, in pixels from the image's centre."""
    column = torch.arange(width, device=device, dtype=torch.float64) - (width - 1) / 2
    row = torch.arange(height, device=device, dtype=torch.float64) - (height - 1) / 2
    return column, row[:, None]
