"""Batch normalisation with fixed statistics as the affine map that it is."""

from __future__ import annotations

from torch import Tensor


def fixed_statistics(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel, ``w / √(σ² + ε)`` and ``b - μ w / √(σ² + ε)``.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> fixed_statistics(2 * one, 4 * one, None, None, 0.0)
        (tensor([0.5000]), tensor([-1.]))
    """
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias
