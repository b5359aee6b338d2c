"""Exact integer shifts, one for each image, under a border rule that is always named."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.resampling import fold
from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError
from captum_lie.results.metrics import Array

ShiftBorder = Literal["circular", "reflect", "zero", "crop"]
SHIFT_BORDERS: tuple[ShiftBorder, ...] = get_args(ShiftBorder)


def integer_shift(
    x: Tensor,
    dx: Array,
    dy: Array,
    border: ShiftBorder,
    max_shift_pixels: int = 0,
    *,
    max_shift: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Move each image by whole pixels, ``out(p) = x(p + d)``; no value is interpolated.

    Args:
        x: images ``[N, C, H, W]``.
        dx, dy: integers ``[N]``, displacement along columns and rows in pixels.
        border: ``"circular"`` wraps; ``"reflect"`` mirrors about the edge pixel; ``"zero"`` fills
            with zeros; ``"crop"`` cuts a window of ``H - 2 m`` by ``W - 2 m`` pixels out of the
            image, with ``m = max_shift_pixels``, so that only real pixels are seen (Zhang 2019).
        max_shift_pixels: margin of ``"crop"``, at least every displacement.
        max_shift: its former name.

    Returns:
        The shifted images, and the mask ``[N, 1, H', W']`` of pixels that come from inside ``x``.

    Raises:
        ValueError: unknown border rule, or a window that leaves the image.

    Example:
        >>> x = torch.arange(4.0).expand(1, 1, 1, 4)
        >>> shifted, inside = integer_shift(x, np.array([1]), np.array([0]), "reflect")
        >>> shifted.flatten().tolist(), inside.flatten().tolist()
        ([1.0, 2.0, 3.0, 2.0], [True, True, True, False])
    """
    check_images(x)
    one_of("border", border, SHIFT_BORDERS)
    reach = in_pixels(max_shift_pixels, max_shift)
    rows, inside_rows = _indices(dy, x.shape[-2], border, reach)
    columns, inside_columns = _indices(dx, x.shape[-1], border, reach)
    shifted = torch.stack(
        [
            _read(_read(image, row, -2), column, -1)
            for image, row, column in zip(x, rows.tolist(), columns.tolist(), strict=True)
        ]
    )
    inside = (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(x.device)
    if border == "zero":
        shifted = shifted * inside
    return shifted, inside


def in_pixels(max_shift_pixels: int, max_shift: int | None) -> int:
    """The largest shift in pixels, by its name or by its former one."""
    if max_shift is None:
        return max_shift_pixels
    warnings.warn(
        "max_shift= in pixels is max_shift_pixels= now (max_shift= of eq_t and its like is a share "
        "of the image); the former name goes with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )
    return max_shift


def _read(x: Tensor, index: list[int], dim: int) -> Tensor:
    """``index_select``, by slices: shifted indices come in few runs, and slices are faster."""
    parts, start = [], 0
    while start < len(index):
        end, step = start + 1, 0
        if end < len(index) and abs(index[end] - index[start]) <= 1:
            step = index[end] - index[start]
            while end < len(index) and index[end] - index[end - 1] == step:
                end += 1
        length, first = end - start, min(index[start], index[end - 1])
        if step:
            part = x.narrow(dim, first, length)
            parts.append(part if step > 0 else part.flip(dim))
        else:
            parts.append(x.narrow(dim, first, 1).repeat_interleave(length, dim))
        start = end
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _indices(shift: Array, size: int, border: ShiftBorder, reach: int) -> tuple[Tensor, Tensor]:
    """Which pixel is read at each place along one axis, and whether it lies inside."""
    margin = reach if border == "crop" else 0
    if border == "crop" and (size <= 2 * margin or np.abs(shift).max(initial=0) > margin):
        raise InvalidValueError(
            f"Cropping with shifts up to {max(margin, int(np.abs(shift).max(initial=0)))} px needs "
            f"images larger than twice that and max_shift_pixels={margin}; this side has {size} "
            "px. Pass larger images, or a smaller max_shift_pixels."
        )
    place = torch.arange(margin, size - margin)
    index = place + torch.from_numpy(shift.astype(np.int64))[:, None]
    inside = torch.ones_like(index, dtype=torch.bool)
    if border in ("reflect", "zero"):
        inside = (index >= 0) & (index < size)
    return fold(index, size, border), inside
