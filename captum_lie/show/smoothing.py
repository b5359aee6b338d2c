"""Attribution maps of large images, made legible without changing what they sum to."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError

__all__ = ["legible_sigma", "smooth_map"]

#: Images with a longer side than this are drawn smoothed by default.
LARGEST_RAW = 64  # pixels

#: Standard deviation of the default kernel, as a share of the longer side.
RELATIVE_SIGMA = 1 / 40


def legible_sigma(height: int, width: int) -> float:
    """The kernel's standard deviation in pixels at which a map of this size can be read.

    Zero up to 64 pixels, where single pixels are visible; a 40th of the longer side above.

    Example:
        >>> legible_sigma(32, 32), round(legible_sigma(224, 224), 9)
        (0.0, 5.6)
    """
    longer = max(height, width)
    return 0.0 if longer <= LARGEST_RAW else longer * RELATIVE_SIGMA


def smooth_map(attribution: Tensor, sigma: float) -> Tensor:
    """A map convolved with a normalised Gaussian, reflected at the borders: its sum is kept.

    At the borders the image continues as its mirror image (pixel edges are the mirrors), which
    makes the operator symmetric: since its rows sum to one, so do its columns, and each pixel's
    value is spread without loss.

    Args:
        attribution: ``[..., H, W]``.
        sigma: standard deviation of the kernel in pixels; 0 changes nothing.

    Returns:
        A map of the same shape, in double precision.

    Raises:
        ValueError: a negative or infinite ``sigma``.

    Example:
        >>> spike = torch.zeros(5, 7)
        >>> spike[0, 3] = 2.0
        >>> spread = smooth_map(spike, sigma=1.5)
        >>> round(spread.sum().item(), 12), bool(spread.max() < 1)
        (2.0, True)
    """
    if not 0 <= sigma < float("inf"):
        raise InvalidValueError(f"sigma must be a number of pixels from 0 up; got {sigma}.")
    values = attribution.double()
    if sigma == 0:
        return values
    down, across = (_operator(n, sigma).to(values.device) for n in values.shape[-2:])
    return down @ values @ across.T


def _operator(n: int, sigma: float) -> Tensor:
    """The smoothing of a row of ``n`` pixels as a matrix ``[n, n]``, symmetric up to rounding."""
    reach = min(int(4 * sigma) + 1, 4 * n)  # what lies beyond weighs less than 1e-4
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    kernel = kernel / kernel.sum()
    place = (torch.arange(n)[:, None] + offsets) % (2 * n)
    source = torch.minimum(place, 2 * n - 1 - place)  # 0 1 2 2 1 0 0 1 2 ...
    return torch.zeros(n, n).double().scatter_add_(1, source, kernel.expand(n, -1).contiguous())
