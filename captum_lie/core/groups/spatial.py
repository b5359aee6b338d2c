"""Groups that move pixels: the action and generator of any direction in aff(2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.core.groups.base import OneParameterGroup, parameter_of
from captum_lie.core.groups.coordinates import (
    Direction,
    centred_pixels,
    pixel_matrix,
    pixel_rows,
)
from captum_lie.core.resampling import (
    BORDERS,
    INTERPOLATIONS,
    Border,
    Interpolation,
    default_border,
    fourier_shift,
    resample,
    slope,
)
from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class SpatialGroup(OneParameterGroup):
    """A group that moves pixels along one direction of aff(2).

    Args:
        interpolation: ``"bilinear"`` (default), ``"central"`` or ``"fourier"``
            (see :mod:`captum_lie.core.resampling`).
        border: ``"reflect"`` or ``"circular"``; by default ``"reflect"``, and ``"circular"`` for
            ``"fourier"``, which is periodic by its nature.

    Example:
        A ramp under translation by one pixel per half image: the rules differ at the border only.

        >>> from captum_lie import Translation
        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> Translation("x").generator(ramp)[0, 0, 0]
        tensor([ 2.,  2.,  2.,  2., -2.])
        >>> Translation("x", interpolation="central").generator(ramp)[0, 0, 0]
        tensor([0., 2., 2., 2., 0.])
    """

    interpolation: Interpolation = "bilinear"
    border: Border | None = None

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        if self.border is not None:
            one_of("border", self.border, BORDERS)
        if self.interpolation == "fourier" and self.border == "reflect":
            raise InvalidValueError(
                "interpolation='fourier' is periodic and cannot reflect at the border. "
                "Use border='circular', or another interpolation."
            )

    @property
    @abstractmethod
    def direction(self) -> Direction:
        """Coefficients in the basis :data:`BASIS` of aff(2)."""

    @property
    def rule(self) -> tuple[Interpolation, Border]:
        """Interpolation and border rule in force."""
        return self.interpolation, self.border or default_border(self.interpolation)

    def act(self, x: Tensor, t: float | Tensor) -> Tensor:
        check_images(x)
        height, width = x.shape[-2:]
        t = parameter_of(t, x)
        motion = self._motion(t, pixel_matrix(self.direction, height, width).to(x.device))
        offset_x, offset_y = motion[..., 0, 2], motion[..., 1, 2]
        if self.interpolation == "fourier" and not any(self.direction[2:]):
            return fourier_shift(x, offset_x, offset_y)
        column, row = centred_pixels(height, width, x.device)
        linear = motion[..., None, None, :2, :2]
        dx = linear[..., 0, 0] * column + linear[..., 0, 1] * row + offset_x[..., None, None]
        dy = linear[..., 1, 0] * column + linear[..., 1, 1] * row + offset_y[..., None, None]
        return resample(x, dx, dy, *self.rule)

    def generator(self, x: Tensor) -> Tensor:
        check_images(x)
        velocity = self.velocity(x.shape[-2], x.shape[-1], x.device)
        return directional_derivative(x, velocity, lambda x, dim: slope(x, dim, *self.rule))

    def velocity(self, height: int, width: int, device: torch.device = _CPU) -> dict[int, Tensor]:
        """The velocity field ``v`` at the pixel centres, in pixels per unit of ``t``.

        Returns:
            ``[H, W]`` or what broadcasts to it, in double precision, by the dimension along which
            it points: -1 for columns, -2 for rows. Left out is one along which nothing moves.

        Example:
            >>> from captum_lie import Rotation, Translation
            >>> Translation("x").velocity(3, 5)
            {-1: tensor([[2., 2., 2., 2., 2.],
                    [2., 2., 2., 2., 2.],
                    [2., 2., 2., 2., 2.]], dtype=torch.float64)}
            >>> list(Rotation().velocity(3, 5))
            [-1, -2]
        """
        column, row = centred_pixels(height, width, device)
        rows = pixel_rows(self.direction, height, width)
        return {
            dim: along_x * column + along_y * row + offset
            for dim, (along_x, along_y, offset) in zip((-1, -2), rows, strict=True)
            if along_x or along_y or offset
        }

    def _motion(self, t: Tensor, matrix: Tensor) -> Tensor:
        """``A(t) - 1`` as a homogeneous matrix in pixels; by default that of the exponential."""
        identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
        exponents = (t[..., None, None] * matrix).reshape(-1, 3, 3)
        # Twice: of one matrix alone PyTorch's series has a wrong coefficient (its issue 196592).
        powers = torch.matrix_exp(exponents.repeat(2, 1, 1))[: len(exponents)]
        return powers.reshape(*t.shape, 3, 3) - identity


def directional_derivative(
    x: Tensor, velocity: Mapping[int, Tensor], slope_of: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """``v · ∇x``: how fast images change that move along a velocity field.

    Args:
        x: images ``[..., H, W]``.
        velocity: see :meth:`SpatialGroup.velocity`.
        slope_of: ``(x, dim) -> slope``, shaped like ``x``: per pixel, along a dimension.

    Returns:
        Shaped like ``x``.

    Example:
        >>> from captum_lie import Rotation
        >>> x, group = torch.rand(1, 3, 5, 5), Rotation()
        >>> tangent = directional_derivative(x, group.velocity(5, 5), lambda x, dim: slope(
        ...     x, dim, "bilinear", "reflect"))
        >>> torch.equal(tangent, group.generator(x))
        True
    """
    tangent = torch.zeros_like(x)
    for dim, along in velocity.items():
        tangent = tangent + along.to(x.dtype) * slope_of(x, dim)
    return tangent
