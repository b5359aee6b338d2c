"""Theorem 1: the translation error of subsampling, in closed form from the aliased frequencies."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from captum_lie.core.resampling import harmonic_frequencies
from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError


def aliasing_error(x: Tensor, stride: int, axis: Literal["x", "y"] = "x") -> Tensor:
    """LEE of keeping every ``stride``-th pixel along both axes, under band-limited translation.

    A harmonic of frequency n (cycles per image) is seen after subsampling as its alias a(n), which
    moves n/a(n) times too fast: its share of the Lie derivative is
    ``2πi (n - a(n)) X_n exp(2πi a(n) q)``, and harmonics that share an alias interfere
    (Gruver et al., arXiv 2210.02984, Theorem 1). Images without frequencies beyond the new Nyquist
    limit have no error.

    Both images are periodic and span the same torus, so that moving the input by s pixels moves the
    output by s / stride pixels. Units are those of LEE for ``Translation``: mean square over output
    values, per unit of (W-1)/2 or (H-1)/2 input pixels.

    Args:
        x: images ``[N, C, H, W]``; ``stride`` must divide H and W.
        stride: the subsampling factor.
        axis: direction of the translation.

    Returns:
        One error per image, ``[N]``.

    Raises:
        ValueError: wrong rank, or a stride that does not divide the size.

    Example:
        >>> wave = torch.cos(2 * torch.pi * 3 * torch.arange(8) / 8).expand(1, 1, 8, 8)
        >>> aliasing_error(wave, 1).item()
        0.0
        >>> aliasing_error(wave, 2).item() > 1
        True
    """
    check_images(x)
    one_of("axis", axis, ("x", "y"))
    height, width = x.shape[-2:]
    if stride < 1 or height % stride or width % stride:
        raise InvalidValueError(
            f"stride must be a positive divisor of the image size; got {stride} for "
            f"{height} × {width}. Crop the images first."
        )
    dim = -1 if axis == "x" else -2
    size = x.shape[dim]
    spectrum = torch.fft.fft2(x, norm="forward")
    frequency = harmonic_frequencies(size, x.device)
    alias = harmonic_frequencies(size // stride, x.device).repeat(stride)
    excess = (frequency - alias) if dim == -1 else (frequency - alias)[:, None]
    spectrum = spectrum * (torch.pi * 1j * (size - 1) / size * excess)
    # Harmonics that become one another's alias add up: fold the spectrum.
    folded = spectrum.unflatten(-1, (stride, -1)).sum(-2).unflatten(-2, (stride, -1)).sum(-3)
    energy: Tensor = folded.abs().square().sum((-2, -1)).mean(1)
    return energy.to(x.dtype)
