"""Norms of a derivative, per output value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor

#: Derivatives ``[T, N, ...]`` to the norm of each, ``[T, N]``.
Norm = Callable[[Tensor], Tensor]
NormName = Literal["l2", "l1"]


def mean_square(derivative: Tensor) -> Tensor:
    """Mean square over the outputs of derivatives ``[T, N, ...]``: ``[T, N]`` (Eq. 4)."""
    return derivative.square().reshape(*derivative.shape[:2], -1).mean(2)


def mean_absolute(derivative: Tensor) -> Tensor:
    """Mean absolute value over the outputs of derivatives ``[T, N, ...]``: ``[T, N]``."""
    return derivative.abs().reshape(*derivative.shape[:2], -1).mean(2)


NORMS: Mapping[str, Norm] = MappingProxyType({"l2": mean_square, "l1": mean_absolute})
