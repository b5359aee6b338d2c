"""Interpolation rules: how an image is read between its pixels, and the derivative that follows.

Every rule is an interpolant; its slope at the pixel centres is the rule's derivative. Sampling and
derivative therefore always belong together:

========== ================================ ============================================
rule       between the pixels               slope at a pixel centre
========== ================================ ============================================
bilinear   linear                           ``x[p+1] - x[p]`` (the cell that floor() picks)
central    cubic convolution (Keys, a=-1/2) ``(x[p+1] - x[p-1]) / 2``
fourier    trigonometric polynomial         the band-limited derivative
========== ================================ ============================================

Coordinates here are pixels. Displacements are given relative to the pixel centres, so that no
displacement means exactly no displacement: rounding can never pick the other neighbour.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "central", "fourier"]
Border = Literal["reflect", "circular"]

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
BORDERS: tuple[Border, ...] = get_args(Border)


def default_border(interpolation: Interpolation) -> Border:
    """What lies outside where nothing is said: a reflection, or repetition for ``fourier``."""
    return "circular" if interpolation == "fourier" else "reflect"


def slope(x: Tensor, dim: int, interpolation: Interpolation, border: Border) -> Tensor:
    """Slope of the interpolant at the pixel centres along one dimension, per pixel.

    Args:
        x: images, ``[..., H, W]``, floating point.
        dim: -1 for d/d(column), -2 for d/d(row).
        interpolation: the rule.
        border: what lies outside; ``fourier`` is always circular.

    Returns:
        Shaped like ``x``.

    Example:
        >>> slope(torch.tensor([[0.0, 1.0, 4.0]]), -1, "bilinear", "circular")
        tensor([[ 1.,  3., -4.]])
    """
    if interpolation == "fourier":
        return _fourier_slope(x, dim)
    last = x.shape[dim] - 1
    if last == 0:
        return torch.zeros_like(x)
    # Slices are read many times faster than indices.
    following = torch.cat([x.narrow(dim, 1, last), _beyond(x, dim, border)], dim)
    if interpolation == "bilinear":
        return following - x
    before = x.narrow(dim, 1 if border == "reflect" else last, 1)
    preceding = torch.cat([before, x.narrow(dim, 0, last)], dim)
    return (following - preceding) / 2


def weighted_slope(
    weight: Tensor, x: Tensor, dim: int, interpolation: Interpolation, border: Border
) -> Tensor:
    """``Σ_channels weight · slope(x)``, in at least single precision. Not differentiable.

    Args:
        weight, x: ``[N, C, H, W]``.

    Returns:
        ``[N, H · W]``.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    if interpolation == "bilinear" and x.shape[dim] > 1:
        slopes = _differences(x, dim, border)
    else:
        slopes = slope(x, dim, interpolation, border).flatten(2)
    return slopes.mul_(weight.flatten(2)).sum(1, dtype=precision)


def _differences(x: Tensor, dim: int, border: Border) -> Tensor:
    """:func:`slope` under ``bilinear``, ``[N, C, H · W]``: all pixels in one run, as they lie."""
    height, width = x.shape[-2:]
    pixels, step, last = x.flatten(2), 1 if dim == -1 else width, x.shape[dim] - 1
    inside = pixels.shape[2] - step
    slopes = torch.empty_like(pixels)
    torch.sub(
        pixels.narrow(2, step, inside), pixels.narrow(2, 0, inside), out=slopes.narrow(2, 0, inside)
    )
    at_the_end = slopes.unflatten(2, (height, width)).narrow(dim, last, 1)
    torch.sub(_beyond(x, dim, border), x.narrow(dim, last, 1), out=at_the_end)
    return slopes


def _beyond(x: Tensor, dim: int, border: Border) -> Tensor:
    """What follows the last pixel."""
    return x.narrow(dim, x.shape[dim] - 2 if border == "reflect" else 0, 1)


def resample(
    x: Tensor,
    dx: Tensor,
    dy: Tensor,
    interpolation: Interpolation,
    border: Border,
) -> Tensor:
    """Read images beside their pixel centres: ``out(p) = x(p + d(p))``. Differentiable in ``d``.

    Args:
        x: images, ``[N, C, H, W]``.
        dx: displacement along columns in pixels, ``[H, W]`` or ``[N, H, W]``.
        dy: displacement along rows in pixels, shaped like ``dx``.
        interpolation: the rule.
        border: what lies outside; ``fourier`` is always circular.

    Returns:
        The displaced images, shaped like ``x``.
    """
    if interpolation == "fourier":
        return _fourier_resample(x, dx, dy)
    n, channels, height, width = x.shape
    rows = torch.arange(height, device=x.device)[:, None]
    columns = torch.arange(width, device=x.device)
    # One index reads all channels of a pixel: they lie side by side here.
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    first = height * width * torch.arange(n, device=x.device)[:, None, None]
    across = [
        (fold(column, width, border), weight.unsqueeze(-1))
        for column, weight in _taps(columns, dx, interpolation, x.dtype)
    ]
    result = x.new_zeros(n, height, width, channels)
    for row, row_weight in _taps(rows, dy, interpolation, x.dtype):
        start = first + fold(row, height, border) * width
        line = torch.zeros_like(result)
        for column, weight in across:
            values = pixels.index_select(0, (start + column).flatten()).view_as(result)
            line = line + weight * values
        result = result + row_weight.unsqueeze(-1) * line
    return result.permute(0, 3, 1, 2).contiguous()


def fourier_shift(x: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """:func:`resample` under ``fourier`` for one displacement per image (scalars or ``[N]``)."""
    height, width = x.shape[-2:]
    shift_x = _harmonics(dx.reshape(-1), width)[:, None, None, :]
    shift_y = _harmonics(dy.reshape(-1), height)[:, None, :, None]
    spectrum = torch.fft.fft2(x) * (shift_y * shift_x).to(_complex(x.dtype))
    return torch.real(torch.fft.ifft2(spectrum))


def _taps(
    pixels: Tensor, displacement: Tensor, interpolation: Interpolation, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]]:
    """Neighbours that the interpolant reads along one axis, with their weights."""
    cell = displacement.floor()
    u = (displacement - cell).to(dtype)
    first = pixels + cell.long()
    if interpolation == "bilinear":
        return [(first, 1 - u), (first + 1, u)]
    return [
        (first - 1, ((-u + 2) * u - 1) * u / 2),
        (first, ((3 * u - 5) * u) * u / 2 + 1),
        (first + 1, ((-3 * u + 4) * u + 1) * u / 2),
        (first + 2, (u - 1) * u * u / 2),
    ]


def fold(index: Tensor, size: int, border: str) -> Tensor:
    """Pixel indices outside ``0 .. size-1`` by what they mean under a border rule.

    ``"circular"`` wraps, ``"reflect"`` mirrors about the edge pixel's centre, and any other rule,
    under which nothing is read there, gives the edge pixel.

    Example:
        >>> index = torch.arange(-2, 5)
        >>> fold(index, 3, "reflect").tolist(), fold(index, 3, "zero").tolist()
        ([2, 1, 0, 1, 2, 1, 0], [0, 0, 0, 1, 2, 2, 2])
    """
    if border == "circular":
        return index.remainder(size)
    if border == "reflect" and size > 1:
        return (size - 1) - (index.remainder(2 * (size - 1)) - (size - 1)).abs()
    return index.clamp(0, size - 1)


def harmonic_frequencies(size: int, device: torch.device) -> Tensor:
    """Integer frequencies in FFT order, with 0 in place of the Nyquist frequency of even sizes.

    The Nyquist wave has no phase: read as a cosine, its slope at every pixel centre is zero.
    """
    frequencies: Tensor = torch.fft.fftfreq(
        size, 1 / size, device=device, dtype=torch.float64
    ).round()
    if size % 2 == 0:
        frequencies[size // 2] = 0
    return frequencies


def _fourier_slope(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    factor = 2j * torch.pi / size * harmonic_frequencies(size, x.device)
    factor = factor.to(_complex(x.dtype)).reshape(-1, *[1] * (-dim - 1))
    return torch.real(torch.fft.ifft(torch.fft.fft(x, dim=dim) * factor, dim=dim))


def _harmonics(position: Tensor, size: int) -> Tensor:
    """Value of each harmonic of a period of ``size`` pixels at ``position``: ``[..., size]``."""
    frequencies = harmonic_frequencies(size, position.device)
    waves: Tensor = torch.exp(2j * torch.pi / size * position[..., None].double() * frequencies)
    if size % 2 == 0:
        nyquist = torch.cos(torch.pi * position.double()).to(waves.dtype)
        waves = torch.cat(
            [waves[..., : size // 2], nyquist[..., None], waves[..., size // 2 + 1 :]], dim=-1
        )
    return waves


def _fourier_resample(x: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Evaluate the trigonometric polynomial at any points, one row of points at a time."""
    height, width = x.shape[-2:]
    dtype = _complex(x.dtype)
    spectrum = torch.fft.fft2(x) / (height * width)
    columns = torch.arange(width, device=x.device, dtype=torch.float64)
    points = "w" if dx.ndim == 2 else "nw"
    rows = []
    for row in range(height):
        along_x = _harmonics(columns + dx[..., row, :], width).to(dtype)
        along_y = _harmonics(row + dy[..., row, :], height).to(dtype)
        inner = torch.einsum(f"nclk,{points}k->ncwl", spectrum, along_x)
        rows.append((inner * along_y.unsqueeze(-3)).sum(-1).real)
    return torch.stack(rows, dim=-2)


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype == torch.float64 else torch.complex64
