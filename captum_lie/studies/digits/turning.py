"""Digits at angles: how they are turned, and by how much."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_lie.groups import Rotation

#: How digits are turned, and what penalty and LEE are about. This rule is differentiable at t = 0,
#: so that its generator is the derivative of turns to either side: of strokes a pixel or two wide
#: the one-sided slope of bilinear interpolation is another one.
ROTATION = Rotation(interpolation="central")

#: Images that are turned at a time, to save memory.
AT_ONCE = 1024


def turned(images: Tensor, degrees: Tensor) -> Tensor:
    """Images turned about their centres, each by its own angle, black beyond their borders.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        degrees: ``[N]``, or ``[1]`` for all of them.

    Example:
        >>> x = torch.rand(1, 1, 8, 8)
        >>> torch.allclose(turned(x, torch.tensor([90.0])), x.rot90(-1, (2, 3)), atol=1e-5)
        True
    """
    height, width = images.shape[-2:]
    # A corner is at most √2 half sides from the centre, and no turn reads beyond the frame.
    frame = -(-max(height, width) // 4) + 1
    angles = torch.deg2rad(degrees.double()).expand(len(images))
    parts = [
        ROTATION.act(F.pad(x, (frame,) * 4), t)[..., frame : frame + height, frame : frame + width]
        for x, t in zip(images.split(AT_ONCE), angles.split(AT_ONCE), strict=True)
    ]
    return torch.cat(parts).clamp(0, 1)


def uniform_degrees(count: int, largest: float, generator: torch.Generator) -> Tensor:
    """Angles uniform in ± ``largest``, ``[count]``."""
    return (torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1) * largest
