"""The spatial groups of the paper, and that of any direction in aff(2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from captum_lie.core.groups.base import OneParameterGroup
from captum_lie.core.groups.coordinates import BASIS, Direction
from captum_lie.core.groups.spatial import SpatialGroup
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError

Axis = Literal["x", "y"]


@dataclass(frozen=True)
class _AlongAxis(SpatialGroup):
    """A group that exists once for each axis."""

    axis: Axis = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("axis", self.axis, ("x", "y"))

    @property
    def name(self) -> str:
        return f"{type(self).__name__.lower()}_{self.axis}"


@dataclass(frozen=True)
class Translation(_AlongAxis):
    """Translation, ``A(t) p = p + t e``. One unit is half the image: (W-1)/2 or (H-1)/2 pixels.

    Example:
        >>> x = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> Translation("x").act(x, 0.5)[0, 0, 0]  # half a unit is one pixel here
        tensor([1., 2., 3., 4., 3.])
    """

    @property
    def direction(self) -> Direction:
        return (1, 0, 0, 0, 0, 0) if self.axis == "x" else (0, 1, 0, 0, 0, 0)


@dataclass(frozen=True)
class Rotation(SpatialGroup):
    """Rotation about the centre, ``v = (Y, -X)``; ``t`` in radians, rigid on any aspect ratio.

    Example:
        >>> x = torch.rand(1, 3, 5, 5)
        >>> torch.allclose(Rotation().act(x, torch.pi / 2), x.rot90(-1, (2, 3)), atol=1e-5)
        True
    """

    @property
    def name(self) -> str:
        return "rotation"

    @property
    def direction(self) -> Direction:
        return (0, 0, 0, 1, -1, 0)


@dataclass(frozen=True)
class Shear(_AlongAxis):
    """Shear, ``A(t) p = (X + tY, Y)`` for ``"x"`` and ``(X, Y + tX)`` for ``"y"``.

    Example:
        Each row moves by as many pixels as it lies below the centre:

        >>> x = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> Shear("x").act(x, 1.0)[0, 0, :, 2]
        tensor([0., 1., 2., 3., 4.])
    """

    @property
    def direction(self) -> Direction:
        return (0, 0, 0, 1, 0, 0) if self.axis == "x" else (0, 0, 0, 0, 1, 0)


class _LinearInT(SpatialGroup):
    """``A(t) = 1 + t A'(0)``: the paper's parametrisation of stretch and scale."""

    def _motion(self, t: Tensor, matrix: Tensor) -> Tensor:
        return t[..., None, None] * matrix


@dataclass(frozen=True)
class Stretch(_LinearInT, _AlongAxis):
    """Stretch of one axis, ``A(t) p = ((1+t) X, Y)`` for ``"x"``, ``(X, (1+t) Y)`` for ``"y"``.

    The identity is at ``t = 0`` (in the paper's released code it is not).

    Example:
        >>> x = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> Stretch("x").act(x, -0.5)[0, 0, 0]  # read half as far from the centre
        tensor([1.0000, 1.5000, 2.0000, 2.5000, 3.0000])
    """

    @property
    def direction(self) -> Direction:
        return (0, 0, 1, 0, 0, 0) if self.axis == "x" else (0, 0, 0, 0, 0, 1)


@dataclass(frozen=True)
class Scale(_LinearInT):
    """Uniform scaling, ``A(t) p = (1 - t) p``: positive ``t`` magnifies the content.

    Example:
        >>> x = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> Scale().act(x, 0.5)[0, 0, 0]
        tensor([1.0000, 1.5000, 2.0000, 2.5000, 3.0000])
    """

    @property
    def name(self) -> str:
        return "scale"

    @property
    def direction(self) -> Direction:
        return (0, 0, -1, 0, 0, -1)


@dataclass(frozen=True)
class HyperbolicRotation(SpatialGroup):
    """Hyperbolic rotation, ``v = (Y, X)``: stretches one diagonal and shrinks the other.

    Example:
        >>> x = torch.rand(1, 3, 6, 8)
        >>> both = Shear("x").generator(x) + Shear("y").generator(x)
        >>> torch.allclose(HyperbolicRotation().generator(x), both)
        True
    """

    @property
    def name(self) -> str:
        return "hyperbolic_rotation"

    @property
    def direction(self) -> Direction:
        return (0, 0, 0, 1, 1, 0)


@dataclass(frozen=True)
class Affine(SpatialGroup):
    """The one-parameter group of any direction in aff(2), ``A(t) = exp(t Σ c_a V_a)``.

    Args:
        coefficients: six numbers in the order of :data:`BASIS`.
        label: name in reports; by default spelled from the coefficients.

    Raises:
        ValueError: not six finite numbers.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.equal(Affine((0, 0, 0, 1, -1, 0)).generator(x), Rotation().generator(x))
        True
    """

    coefficients: Sequence[float] = (1, 0, 0, 0, 0, 0)
    label: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        values = tuple(float(c) for c in self.coefficients)
        if len(values) != len(BASIS) or not all(map(isfinite, values)) or not any(values):
            raise InvalidValueError(
                f"A direction in aff(2) has six finite coefficients, for {', '.join(BASIS)}, "
                f"not all zero; got {self.coefficients!r}."
            )
        object.__setattr__(self, "coefficients", values)

    @property
    def name(self) -> str:
        terms = (f"{c:+.3g} {b}" for c, b in zip(self.direction, BASIS, strict=True) if c)
        return self.label or " ".join(terms)

    @property
    def direction(self) -> Direction:
        a, b, c, d, e, f = self.coefficients
        return (a, b, c, d, e, f)


def basis_fields(
    *, interpolation: Interpolation = "bilinear", border: Border | None = None
) -> list[OneParameterGroup]:
    """The six basis fields of aff(2) as groups, in the order of :data:`BASIS`."""
    unit = torch.eye(len(BASIS)).tolist()
    return [
        Affine(row, name, interpolation=interpolation, border=border)
        for row, name in zip(unit, BASIS, strict=True)
    ]
