"""Rotations of band-limited images by three shears, each a fractional shift of rows or columns.

After Karras et al., "Alias-free generative adversarial networks" (2021), App. E. The direction is
that of the groups: ``out(p) = x(A(t) p)`` with A of :class:`captum_lie.Rotation`.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from captum_lie.core.resampling import fold
from captum_lie.core.validation import check_images, one_of
from captum_lie.metrics.sinc import (
    DEFAULT_KERNEL,
    SINC_BORDERS,
    SincBorder,
    SincKernel,
    at_least_single,
)


def rotate(
    x: Tensor, angle: Tensor, border: SincBorder, kernel: SincKernel = DEFAULT_KERNEL
) -> tuple[Tensor, Tensor]:
    """Rotate each image rigidly about its centre, ``out(p) = x(A(angle) p)``.

    Quarter turns are exact; the remaining angle, at most 45°, is three shears (Paeth 1986), each a
    fractional shift of every row or column. Frequencies that do not fit the pixel grid before,
    between and after the shears are removed first (:func:`bandlimit`): Karras et al., App. E.3,
    keep the slightly larger set that fits before and after.

    Args:
        x: images ``[N, C, H, W]``, of any aspect ratio.
        angle: in radians, ``[N]``.
        border, kernel: as for :func:`fractional_shift`.

    Returns:
        The rotated images, and the mask ``[N, 1, H, W]`` of pixels that depend on the inside only.

    Example:
        >>> x = torch.rand(1, 1, 6, 6)
        >>> quarter = torch.tensor([pi / 2], dtype=torch.float64)
        >>> turned, _ = rotate(x, quarter, "zero")
        >>> torch.allclose(turned, x.rot90(-1, (2, 3)), atol=1e-6)
        True
    """
    check_images(x)
    one_of("border", border, SINC_BORDERS)
    height, width = x.shape[-2:]
    angle = angle.double().cpu()
    quarters, rest = _quarters(angle)
    reach = 4 * kernel.half_width
    canvas, top, left = _canvas(at_least_single(x), border, reach)
    side = canvas.shape[-1]
    canvas = _quarter_turns(canvas, quarters)
    canvas = _filter(canvas, _bandlimit_kernel(rest, 2 * kernel.half_width))
    # The image's centre may lie half a pixel beside the canvas' centre: o = Q⁻¹e - A(rest) e.
    off = torch.tensor([left + (width - side) / 2, top + (height - side) / 2]).double()
    offset = _matrix(-quarters * pi / 2) @ off - _matrix(rest) @ off
    tangent, sine = torch.tan(rest / 2), torch.sin(rest)
    line = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    first = tangent[:, None] * line + (offset[:, 0] - tangent * offset[:, 1])[:, None]
    canvas = _shift_lines(canvas, first, -1, kernel)
    canvas = _shift_lines(canvas, -sine[:, None] * line + offset[:, 1, None], -2, kernel)
    canvas = _shift_lines(canvas, tangent[:, None] * line, -1, kernel)
    rotated = canvas[..., top : top + height, left : left + width].to(x.dtype)
    return rotated, _inside(angle, rest, height, width, border, reach).to(x.device)


def bandlimit(
    x: Tensor, angle: Tensor, border: SincBorder, kernel: SincKernel = DEFAULT_KERNEL
) -> tuple[Tensor, Tensor]:
    """Remove the frequencies that :func:`rotate` by ``angle`` cannot produce, without rotating.

    Karras et al., App. E.3, compare a rotated output with one that lost the same frequencies.
    The identity for multiples of 90°.

    Args, Returns: as for :func:`rotate`.

    Example:
        A checkerboard is all corner frequency, which a rotation by 45° has no room for:

        >>> board = (torch.arange(16)[:, None] + torch.arange(16)).expand(1, 1, 16, 16) % 2 - 0.5
        >>> kept, _ = bandlimit(board, torch.tensor([pi / 4]), "circular")
        >>> bool(kept.square().mean() < 0.01 * board.square().mean())
        True
    """
    check_images(x)
    one_of("border", border, SINC_BORDERS)
    height, width = x.shape[-2:]
    _, rest = _quarters(angle.double().cpu())
    reach = 2 * kernel.half_width
    rows, columns = torch.arange(-reach, height + reach), torch.arange(-reach, width + reach)
    canvas = _extend(at_least_single(x), rows, columns, border)
    filtered = _filter(canvas, _bandlimit_kernel(-rest, reach)).to(x.dtype)
    inside = _inside(torch.zeros_like(rest), rest, height, width, border, reach).to(x.device)
    return filtered[..., reach:-reach, reach:-reach], inside


def _shift_lines(x: Tensor, shift: Tensor, dim: int, kernel: SincKernel) -> Tensor:
    """Shift every row (dim -1) or column (dim -2) of square periodic images, ``shift [N, S]``."""
    tap, weight = kernel.taps(shift)
    size = x.shape[dim]
    response = torch.zeros(*shift.shape, size, dtype=x.dtype)
    response.scatter_add_(-1, (-tap).remainder(size), weight.to(x.dtype))
    spectrum = torch.fft.rfft(response.to(x.device))[:, None]
    if dim == -2:
        spectrum = spectrum.mT
    shifted: Tensor = torch.fft.irfft(torch.fft.rfft(x, dim=dim) * spectrum, n=size, dim=dim)
    return shifted


def _bandlimit_kernel(angle: Tensor, radius: int) -> Tensor:
    """FIR filters ``[N, 2r+1, 2r+1]`` that keep what the three shears can represent."""
    size = 8 * radius
    frequency = torch.fft.fftfreq(size, dtype=torch.float64) * 2  # 1 is the Nyquist frequency
    v, u = torch.meshgrid(frequency, frequency, indexing="ij")
    tangent, sine = torch.tan(angle / 2)[:, None, None], torch.sin(angle)[:, None, None]
    v1 = v + tangent * u
    u2 = u - sine * v1
    v3 = v1 + tangent * u2
    keep = (torch.stack([v1, u2, v3]).abs() <= 1 + 1e-9).all(0).double()
    response = torch.fft.fftshift(torch.real(torch.fft.ifft2(keep)), dim=(-2, -1))
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    ramp = torch.arange(-radius, radius + 1, dtype=torch.float64) / (radius + 1)
    window = torch.cos(pi / 2 * ramp).square()
    response = response[:, middle, middle] * window * window[:, None]
    kernel: Tensor = response / response.sum((-2, -1), keepdim=True)
    return kernel


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each (periodic) image with its own centred kernel."""
    size = x.shape[-2:]
    radius = kernel.shape[-1] // 2
    padded = torch.zeros(len(kernel), *size, dtype=x.dtype)
    padded[:, : 2 * radius + 1, : 2 * radius + 1] = kernel.to(x.dtype)
    padded = padded.roll((-radius, -radius), (-2, -1)).to(x.device)
    spectrum = torch.fft.rfft2(x) * torch.fft.rfft2(padded)[:, None]
    filtered: Tensor = torch.fft.irfft2(spectrum, s=size)
    return filtered


def _canvas(x: Tensor, border: SincBorder, reach: int) -> tuple[Tensor, int, int]:
    """A square that holds all that any rotation reads, and the image's place in it."""
    height, width = x.shape[-2:]
    least = int(sqrt(height**2 + width**2)) + 2 * reach
    side = -(-least // 16) * 16 + height % 2  # a size that the FFT likes, of the image's parity
    top, left = (side - height) // 2, (side - width) // 2
    rows, columns = torch.arange(-top, side - top), torch.arange(-left, side - left)
    return _extend(x, rows, columns, border), top, left


def _extend(x: Tensor, rows: Tensor, columns: Tensor, border: SincBorder) -> Tensor:
    """Read pixels at any row and column, outside by the border rule."""
    height, width = x.shape[-2:]
    row, column = fold(rows, height, border), fold(columns, width, border)
    extended = x.index_select(-2, row.to(x.device)).index_select(-1, column.to(x.device))
    if border == "zero":
        inside = ((rows == row)[:, None] & (columns == column)).to(x.device)
        extended = extended * inside
    return extended


def _quarters(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Angle as a number of quarter turns and a rest of at most 45° (exactly 0 up to rounding)."""
    quarters = torch.round(angle / (pi / 2))
    rest = angle - quarters * (pi / 2)
    return quarters, torch.where(rest.abs() < 1e-12, 0.0, rest)


def _quarter_turns(x: Tensor, quarters: Tensor) -> Tensor:
    turns = (-quarters.long()) % 4
    return torch.stack(
        [torch.rot90(image, int(k), (-2, -1)) for image, k in zip(x, turns, strict=True)]
    )


def _matrix(angle: Tensor) -> Tensor:
    """A(angle) of :class:`captum_lie.Rotation`, ``[N, 2, 2]``, acting on (column, row)."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)


def _inside(
    angle: Tensor, rest: Tensor, height: int, width: int, border: SincBorder, reach: int
) -> Tensor:
    """Pixels whose sources, ``reach`` pixels around, lie inside: ``[N, 1, H, W]``."""
    if border == "circular":
        return torch.ones(len(angle), 1, height, width, dtype=torch.bool)
    column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    row = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2)[:, None]
    matrix = _matrix(angle)[:, :, :, None, None]
    margin = (reach * (rest != 0).double())[:, None, None] - 1e-9  # rounding of the sources
    source_x = matrix[:, 0, 0] * column + matrix[:, 0, 1] * row
    source_y = matrix[:, 1, 0] * column + matrix[:, 1, 1] * row
    inside = (source_x.abs() <= (width - 1) / 2 - margin) & (
        source_y.abs() <= (height - 1) / 2 - margin
    )
    return inside[:, None]
