"""Windowed-sinc resampling: fractional shifts of band-limited images.

After Karras et al., "Alias-free generative adversarial networks" (2021), App. E: images are samples
of a band-limited signal; moving them means evaluating that signal elsewhere, with the ideal sinc
cut short by a window. The direction is that of the groups: ``out(p) = x(p + d)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Literal, get_args

import torch
from torch import Tensor

from captum_lie.core.resampling import fold
from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError

SincBorder = Literal["circular", "reflect", "zero"]
SINC_BORDERS: tuple[SincBorder, ...] = get_args(SincBorder)
Window = Literal["lanczos", "kaiser"]


@dataclass(frozen=True)
class SincKernel:
    """A windowed sinc that reads ``2 half_width`` pixels along each axis.

    Args:
        half_width: in pixels. The default of 3, with Lanczos' window, is that of Karras et al.:
            short, so that little of the image is lost at the border, but it dampens fine detail.
        window: ``"lanczos"``, or ``"kaiser"`` for precision: ``SincKernel(8, "kaiser")`` moves
            everything up to half the Nyquist frequency with an error below 1e-4.

    Raises:
        ValueError: half_width below 1, or an unknown window.

    Example:
        Half way between two pixels, the six that are read weigh symmetrically:

        >>> pixels, weights = SincKernel(3).taps(torch.tensor(0.5))
        >>> pixels.tolist()
        [-2, -1, 0, 1, 2, 3]
        >>> torch.allclose(weights, weights.flip(0)), round(weights.sum().item(), 6)
        (True, 1.0)
    """

    half_width: int = 3
    window: Window = "lanczos"

    def __post_init__(self) -> None:
        one_of("window", self.window, get_args(Window))
        if self.half_width < 1:
            raise InvalidValueError(f"half_width must be at least 1 pixel; got {self.half_width}.")

    def taps(self, displacement: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels read, relative to each place, and their weights (of sum 1): two ``[..., 2a]``."""
        a = self.half_width
        cell = displacement.floor()
        offset = torch.arange(1 - a, a + 1, dtype=displacement.dtype, device=displacement.device)
        distance = offset - (displacement - cell)[..., None]
        if self.window == "lanczos":
            window = torch.sinc(distance / a)
        else:
            # As steep a window as still passes half the Nyquist frequency, down to -90 dB.
            beta = min(9.0, sqrt(max(0.0, (a * pi / 2) ** 2 - pi**2)))
            profile = (1 - (distance / a) ** 2).clamp(min=0).sqrt()
            window = torch.special.i0(beta * profile) / torch.special.i0(distance.new_tensor(beta))
        weight = torch.where(distance.abs() < a, torch.sinc(distance) * window, 0.0)
        return (cell[..., None] + offset).long(), weight / weight.sum(-1, keepdim=True)


DEFAULT_KERNEL = SincKernel()


def fractional_shift(
    x: Tensor, dx: Tensor, dy: Tensor, border: SincBorder, kernel: SincKernel = DEFAULT_KERNEL
) -> tuple[Tensor, Tensor]:
    """Move each image by a fraction of a pixel, ``out(p) = x(p + d)`` (Karras et al., App. E.2).

    A shift along an axis is one matrix per image, border rule included.

    Args:
        x: images ``[N, C, H, W]``.
        dx, dy: displacement along columns and rows in pixels, ``[N]``.
        border: what lies outside: ``"circular"``, ``"reflect"`` or ``"zero"``.
        kernel: the windowed sinc.

    Returns:
        The shifted images, and the mask ``[N, 1, H, W]`` of pixels that depend on the inside only.

    Example:
        >>> wave = torch.cos(2 * pi * torch.arange(32.0) / 8).expand(1, 1, 32, 32)
        >>> half, zero = torch.tensor([0.5]), torch.tensor([0.0])
        >>> moved, _ = fractional_shift(wave, half, zero, "circular", SincKernel(8, "kaiser"))
        >>> exact = torch.cos(2 * pi * (torch.arange(32.0) + 0.5) / 8)
        >>> bool((moved[0, 0, 0] - exact).abs().max() < 1e-4)
        True
    """
    check_images(x)
    one_of("border", border, SINC_BORDERS)
    working = at_least_single(x)
    along_y, rows = _shift_matrix(dy.double().cpu(), x.shape[-2], border, kernel)
    along_x, columns = _shift_matrix(dx.double().cpu(), x.shape[-1], border, kernel)
    moved = along_y.to(working)[:, None] @ working @ along_x.to(working)[:, None].mT
    return moved.to(x.dtype), (rows[:, None, :, None] & columns[:, None, None, :]).to(x.device)


def at_least_single(x: Tensor) -> Tensor:
    """Half precision has no Fourier transform on the CPU."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _shift_matrix(
    shift: Tensor, size: int, border: SincBorder, kernel: SincKernel
) -> tuple[Tensor, Tensor]:
    """The shift along one axis as matrices ``[N, size, size]``, and which rows stay inside."""
    tap, weight = kernel.taps(shift)
    index = torch.arange(size)[:, None] + tap[:, None]
    weight = weight[:, None].expand(index.shape)
    outside = (index < 0) | (index >= size)
    inside = ~(outside & (weight.abs() > 1e-12)).any(-1)
    if border == "circular":
        inside = torch.ones_like(inside)
    if border == "zero":
        weight = torch.where(outside, 0.0, weight)
    matrix = torch.zeros(*index.shape[:-1], size, dtype=weight.dtype)
    return matrix.scatter_add_(-1, fold(index, size, border), weight), inside
