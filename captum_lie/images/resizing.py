"""Images that are tensors already at the size that a model takes."""

from __future__ import annotations

from torch import Tensor, nn


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Images at another size, by bicubic interpolation within [0, 1].

    Args:
        images: ``[N, C, H, W]``.
        size: ``(height, width)``; None for what they have.

    Example:
        >>> import torch
        >>> resized(torch.rand(2, 3, 8, 8), (4, 6)).shape
        torch.Size([2, 3, 4, 6])
    """
    if size is None or size == tuple(images.shape[-2:]):
        return images
    return nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
