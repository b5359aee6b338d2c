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
IN_CACHE = 2**19
#: Pairs of fewer numbers wait for others of their shape: alone they take less time than to begin.
SMALL = 2**17


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
        dims, velocities = _velocities(tuple(directions.values()), height, width, x.device)
        densities = _densities(cotangent, x, dims, rule).double()
        moments = densities @ _positions(height, width, x.device)  # [dims, N, 3]
        result[list(directions)] = torch.einsum("dgk,dnk->gn", velocities, moments)
    return result


def _densities(
    cotangent: Tensor, x: Tensor, dims: Sequence[int], rule: tuple[Interpolation, Border]
) -> Tensor:
    """``m`` along some dimensions, ``[len(dims), N, H · W]``, a few channels at a time."""
    at_once = x.shape[1] if x.is_cuda else max(1, IN_CACHE * x.shape[1] // x.numel())
    parts = zip(cotangent.split(at_once, 1), x.split(at_once, 1), strict=True)
    densities = [torch.stack([weighted_slope(g, y, dim, *rule) for dim in dims]) for g, y in parts]
    return reduce(torch.add, densities)


@lru_cache(maxsize=1024)
def _velocities(
    directions: tuple[Direction, ...], height: int, width: int, device: torch.device
) -> tuple[list[int], Tensor]:
    """The dimensions along which anything moves; coefficients of column, row and 1 along each.

    The coefficients are ``[len(dims), G, 3]``.
    """
    matrices = torch.stack([pixel_matrix(d, height, width)[:2] for d in directions], 1)  # [2, G, 3]
    moving = [i for i in (0, 1) if matrices[i].any()]
    return [(-1, -2)[i] for i in moving], matrices[moving].to(device)


@lru_cache(maxsize=256)
def _positions(height: int, width: int, device: torch.device) -> Tensor:
    """Column, row and 1 at each pixel, ``[H · W, 3]``."""
    column, row = torch.broadcast_tensors(*centred_pixels(height, width, device))
    return torch.stack([column, row, torch.ones_like(column)], -1).flatten(0, 1)


class Pairing:
    """``⟨g, ξ(x)⟩`` of one pair. ``value``, ``[G, N]``, is there once its queue has come to it."""

    value: Tensor


class PairingQueue:
    """:func:`pairings` of many pairs: small ones of one shape are taken together, as more examples.

    Args:
        groups: G groups.

    Example:
        >>> from captum_lie import Rotation
        >>> queue, found = PairingQueue([Rotation()]), [Pairing(), Pairing()]
        >>> pairs = [(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)) for _ in found]
        >>> for each, (g, x) in zip(found, pairs):
        ...     queue.put(each, g, x)
        >>> queue.finish()
        >>> alone = [pairings([Rotation()], g, x) for g, x in pairs]
        >>> all(torch.allclose(each.value, value) for each, value in zip(found, alone))
        True
    """

    def __init__(self, groups: Sequence[OneParameterGroup]) -> None:
        self._groups = groups
        self._waiting: dict[object, list[tuple[Pairing, Tensor, Tensor]]] = {}

    def put(self, pairing: Pairing, cotangent: Tensor, x: Tensor) -> None:
        """Find the value of a pairing, now or later; arguments as for :func:`pairings`."""
        if x.numel() >= SMALL:
            pairing.value = pairings(self._groups, cotangent, x)
            return
        kind = x.shape, x.dtype, x.stride(1) == 1  # channels last
        waiting = self._waiting.setdefault(kind, [])
        waiting.append((pairing, cotangent, x))
        if len(waiting) * x.numel() >= IN_CACHE:
            self._work(self._waiting.pop(kind))

    def finish(self) -> None:
        """Find the values that are still missing."""
        while self._waiting:
            self._work(self._waiting.popitem()[1])

    def _work(self, waiting: list[tuple[Pairing, Tensor, Tensor]]) -> None:
        found, cotangents, images = zip(*waiting, strict=True)
        values = pairings(self._groups, torch.cat(cotangents), torch.cat(images))
        for pairing, value in zip(found, values.split(len(images[0]), 1), strict=True):
            pairing.value = value
