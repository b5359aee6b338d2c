"""What every one-parameter group of image transformations is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError


class OneParameterGroup(ABC):
    """A one-parameter group acting on images ``[N, C, H, W]``.

    Example:
        A group of one's own needs a name, its action and its generator:

        >>> class Contrast(OneParameterGroup):
        ...     name = "contrast"
        ...
        ...     def act(self, x, t):
        ...         return x + t * self.generator(x)
        ...
        ...     def generator(self, x):
        ...         return x - x.mean((1, 2, 3), keepdim=True)
        >>> from captum_lie import lie_derivative
        >>> x = torch.rand(2, 3, 4, 4)
        >>> change = lie_derivative(lambda x: x.mean((2, 3)).sum(1), x, Contrast())
        >>> bool(change.abs().max() < 1e-5)  # the mean stays
        True
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name under which the group is reported, for example ``"rotation"``."""

    @abstractmethod
    def act(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Transform images by the finite parameter ``t``.

        Args:
            x: images, ``[N, C, H, W]``, floating point.
            t: one parameter for all images, or a tensor ``[N]`` with one for each.

        Returns:
            The transformed images, shaped like ``x``; ``act(x, 0)`` is ``x``.

        Raises:
            TypeError: ``x`` is not a floating point tensor.
            ValueError: ``x`` is not four-dimensional, or ``t`` fits neither form.
        """

    @abstractmethod
    def generator(self, x: Tensor) -> Tensor:
        """The tangent ``ξ(x) = d/dt act(x, t)`` at ``t = 0``, shaped like ``x``."""


def parameter_of(t: float | Tensor, x: Tensor) -> Tensor:
    """The group parameter in double precision: a scalar, or one for each image."""
    t = torch.as_tensor(t, device=x.device, dtype=torch.float64)
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        raise InvalidValueError(
            f"t must be a number or a tensor with one parameter per image, here [{len(x)}]; "
            f"got shape {tuple(t.shape)}."
        )
    return t
