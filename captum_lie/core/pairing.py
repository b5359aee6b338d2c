"""Inner products ``⟨g, ξ(x)⟩`` with the generators of many groups at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce

import torch
from torch import Tensor

from captum_lie.core.groups import (
    Direction,
    OneParameterGroup,
    SpatialGroup,
    centred_pixels,
    pixel_matrix,
)
from captum_lie.core.resampling import Border, Interpolation, weighted_slope

#: Numbers to work on at once on a CPU. Larger intermediate results leave the cache, and their
#: memory is mapped anew each time: three times as slow, or worse.
IN_CACHE = 2**18


def pairings(groups: Sequence[OneParameterGroup], cotangent: Tensor, x: Tensor) -> Tensor:
    """``⟨g, ξ(x)⟩`` for each group and example, in double precision.

    A velocity ``v`` that is linear in the position pairs to ``Σ_p v(p) · m(p)`` with the map
    ``m = Σ_channels g ∇x``. Spatial groups of one rule share its two components and three moments
    of each, so that a further group costs next to nothing.

    Args:
        groups: G groups.
        cotangent: ``g``, ``[N, C, H, W]``.
        x: images, shaped like the cotangent.

    Returns:
        ``[G, N]``.

    Example:
        >>> from captum_lie import get_groups
        >>> groups, x = get_groups(["rotation", "scale"]), torch.rand(1, 3, 8, 8)
        >>> g = torch.rand(1, 3, 8, 8)
        >>> direct = torch.stack([(g * group.generator(x)).sum() for group in groups])
        >>> torch.allclose(pairings(groups, g, x)[:, 0], direct.double())
        True
    """
    height, width = x.shape[-2:]
    result = torch.zeros(len(groups), len(x), dtype=torch.float64, device=x.device)
    members: dict[tuple[Interpolation, Border], dict[int, Direction]] = {}
    for i, group in enumerate(groups):
        if isinstance(group, SpatialGroup):
            members.setdefault(group.rule, {})[i] = group.direction
        else:
            product = cotangent * group.generator(x)
            result[i] = product.flatten(1).sum(1, dtype=torch.float64)
    for rule, directions in members.items():
        velocities = _velocities(tuple(directions.values()), height, width)
        for dim, velocity in zip((-1, -2), velocities, strict=True):
            if velocity is not None:
                density = _density(cotangent, x, dim, rule).flatten(1).double()
                moments = density @ _positions(height, width, x.device)
                result[list(directions)] += velocity.to(x.device) @ moments.T
    return result


def _density(cotangent: Tensor, x: Tensor, dim: int, rule: tuple[Interpolation, Border]) -> Tensor:
    """``m`` along one dimension, ``[N, H, W]``, a few channels at a time."""
    at_once = x.shape[1] if x.is_cuda else max(1, IN_CACHE * x.shape[1] // x.numel())
    parts = zip(cotangent.split(at_once, 1), x.split(at_once, 1), strict=True)
    return reduce(torch.add, (weighted_slope(g, y, dim, *rule) for g, y in parts))


@lru_cache(maxsize=1024)
def _velocities(directions: tuple[Direction, ...], height: int, width: int) -> list[Tensor | None]:
    """Along columns and along rows: coefficients of column, row and 1, ``[G, 3]``; None if zero."""
    matrices = torch.stack([pixel_matrix(d, height, width)[:2] for d in directions])
    return [part if part.any() else None for part in matrices.unbind(1)]


@lru_cache(maxsize=256)
def _positions(height: int, width: int, device: torch.device) -> Tensor:
    """Column, row and 1 at each pixel, ``[H · W, 3]``."""
    column, row = torch.broadcast_tensors(*centred_pixels(height, width, device))
    return torch.stack([column, row, torch.ones_like(column)], -1).flatten(0, 1)
