"""The group of values rather than places."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from captum_lie.core.groups.base import OneParameterGroup, parameter_of
from captum_lie.core.validation import check_images


@dataclass(frozen=True)
class Brightness(OneParameterGroup):
    """Brightness, ``x ↦ (1 + t) x``; its generator is ``ξ(x) = x``.

    Example:
        >>> import torch
        >>> Brightness().act(torch.full((1, 1, 1, 2), 0.5), 0.5)
        tensor([[[[0.7500, 0.7500]]]])
    """

    @property
    def name(self) -> str:
        return "brightness"

    def act(self, x: Tensor, t: float | Tensor) -> Tensor:
        check_images(x)
        t = parameter_of(t, x)
        return x * (1 + t.to(x.dtype).reshape(-1, 1, 1, 1))

    def generator(self, x: Tensor) -> Tensor:
        check_images(x)
        return x.clone()
