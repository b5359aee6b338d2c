"""One-parameter groups of image transformations: finite action and generator.

A group element acts as ``(T_t x)(p) = x(A(t) p)`` with p in [-1, 1]² and pixel centres at the ends
(``align_corners=True``). With the velocity field ``v(p) = A'(0) p`` its generator is
``ξ(x) = d/dt T_t x |₀ = v(p) · ∇x(p)`` (Gruver et al., arXiv 2210.02984, Eq. 1 to 3).

Every spatial group is one direction in the Lie algebra aff(2), spanned by the six vector fields
:data:`BASIS` = ∂x, ∂y, X∂x, Y∂x, X∂y, Y∂y. On non-square images the two mixed fields Y∂x and X∂y
use isotropic coordinates (the longer side spans [-1, 1]), so that a rotation is rigid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from captum_lie._validation import check_images, one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.resampling import (
    BORDERS,
    INTERPOLATIONS,
    Border,
    Interpolation,
    default_border,
    fourier_shift,
    resample,
    slope,
)

Axis = Literal["x", "y"]
Direction = tuple[float, float, float, float, float, float]

#: Names of the six fields that span aff(2), in the order of every direction and Gram matrix.
BASIS: tuple[str, ...] = ("∂x", "∂y", "X∂x", "Y∂x", "X∂y", "Y∂y")


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


@dataclass(frozen=True, kw_only=True)
class SpatialGroup(OneParameterGroup):
    """A group that moves pixels along one direction of aff(2).

    Args:
        interpolation: ``"bilinear"`` (default), ``"central"`` or ``"fourier"``
            (see :mod:`captum_lie.resampling`).
        border: ``"reflect"`` or ``"circular"``; by default ``"reflect"``, and ``"circular"`` for
            ``"fourier"``, which is periodic by its nature.

    Example:
        A ramp under translation by one pixel per half image: the rules differ at the border only.

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
        t = _parameter(t, x)
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
        height, width = x.shape[-2:]
        matrix = pixel_matrix(self.direction, height, width).to(x.device)
        column, row = centred_pixels(height, width, x.device)
        tangent = torch.zeros_like(x)
        for dim, (along_x, along_y, offset) in zip((-1, -2), matrix[:2], strict=True):
            if along_x or along_y or offset:
                velocity = along_x * column + along_y * row + offset
                tangent = tangent + velocity.to(x.dtype) * slope(x, dim, *self.rule)
        return tangent

    def _motion(self, t: Tensor, matrix: Tensor) -> Tensor:
        """``A(t) - 1`` as a homogeneous matrix in pixels; by default that of the exponential."""
        identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
        exponents = (t[..., None, None] * matrix).reshape(-1, 3, 3)
        # Twice: of one matrix alone PyTorch's series has a wrong coefficient (its issue 196592).
        powers = torch.matrix_exp(exponents.repeat(2, 1, 1))[: len(exponents)]
        return powers.reshape(*t.shape, 3, 3) - identity


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


@dataclass(frozen=True)
class Brightness(OneParameterGroup):
    """Brightness, ``x ↦ (1 + t) x``; its generator is ``ξ(x) = x``.

    Example:
        >>> Brightness().act(torch.full((1, 1, 1, 2), 0.5), 0.5)
        tensor([[[[0.7500, 0.7500]]]])
    """

    @property
    def name(self) -> str:
        return "brightness"

    def act(self, x: Tensor, t: float | Tensor) -> Tensor:
        check_images(x)
        t = _parameter(t, x)
        return x * (1 + t.to(x.dtype).reshape(-1, 1, 1, 1))

    def generator(self, x: Tensor) -> Tensor:
        check_images(x)
        return x.clone()


#: The group of every ``attribute`` call that names none.
DEFAULT_GROUP: SpatialGroup = Translation("x")

_FACTORIES: dict[str, Callable[..., OneParameterGroup]] = {
    "translation_x": lambda **rule: Translation("x", **rule),
    "translation_y": lambda **rule: Translation("y", **rule),
    "rotation": Rotation,
    "shear_x": lambda **rule: Shear("x", **rule),
    "shear_y": lambda **rule: Shear("y", **rule),
    "stretch_x": lambda **rule: Stretch("x", **rule),
    "stretch_y": lambda **rule: Stretch("y", **rule),
    "scale": Scale,
    "hyperbolic_rotation": HyperbolicRotation,
    "brightness": lambda **_: Brightness(),
}

#: Names of all groups, in the order in which they are reported.
GROUP_NAMES: tuple[str, ...] = tuple(_FACTORIES)

GroupLike = OneParameterGroup | str


def get_group(
    group: GroupLike, *, interpolation: Interpolation = "bilinear", border: Border | None = None
) -> OneParameterGroup:
    """A group from its name; an instance is returned as it is (and keeps its own rule).

    Raises:
        ValueError: no group has that name.
        TypeError: neither a name nor a group.

    Example:
        >>> get_group("shear_y")
        Shear(interpolation='bilinear', border=None, axis='y')
    """
    if isinstance(group, OneParameterGroup):
        return group
    if not isinstance(group, str):
        raise InvalidTypeError(
            f"A group is an instance such as Rotation() or a name such as 'rotation'; "
            f"got {type(group).__name__}."
        )
    one_of("group", group, GROUP_NAMES)
    return _FACTORIES[group](interpolation=interpolation, border=border)


def get_groups(
    groups: GroupLike | Sequence[GroupLike],
    *,
    interpolation: Interpolation = "bilinear",
    border: Border | None = None,
) -> list[OneParameterGroup]:
    """Several groups from names or instances; ``"all"`` stands for every name.

    Raises:
        ValueError: an unknown name, or no group at all.

    Example:
        >>> [group.name for group in get_groups(["rotation", Scale()])]
        ['rotation', 'scale']
        >>> len(get_groups("all"))
        10
    """
    if groups == "all":
        groups = GROUP_NAMES
    if isinstance(groups, str | OneParameterGroup):
        groups = [groups]
    found = [get_group(g, interpolation=interpolation, border=border) for g in groups]
    if not found:
        raise InvalidValueError(f"No group given. Name at least one of {', '.join(GROUP_NAMES)}.")
    return found


def is_single(group: GroupLike | Sequence[GroupLike]) -> bool:
    """Whether one group is meant, by name or instance, rather than a sequence or ``"all"``."""
    return isinstance(group, str | OneParameterGroup) and group != "all"


def basis_fields(
    *, interpolation: Interpolation = "bilinear", border: Border | None = None
) -> list[OneParameterGroup]:
    """The six basis fields of aff(2) as groups, in the order of :data:`BASIS`."""
    unit = torch.eye(len(BASIS)).tolist()
    return [
        Affine(row, name, interpolation=interpolation, border=border)
        for row, name in zip(unit, BASIS, strict=True)
    ]


def pixel_matrix(direction: Direction, height: int, width: int) -> Tensor:
    """The direction's velocity field as a homogeneous matrix ``[3, 3]`` in centred pixels.

    ``(v_column, v_row, 0) = M (column, row, 1)``, with columns and rows counted from the image's
    centre. Isotropic coordinates make the linear part the same matrix in pixels as in [-1, 1]².
    """
    dx, dy, xx, yx, xy, yy = direction
    return torch.tensor(
        [[xx, yx, dx * (width - 1) / 2], [xy, yy, dy * (height - 1) / 2], [0, 0, 0]],
        dtype=torch.float64,
    )


def _parameter(t: float | Tensor, x: Tensor) -> Tensor:
    """The group parameter in double precision: a scalar, or one for each image."""
    t = torch.as_tensor(t, device=x.device, dtype=torch.float64)
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        raise InvalidValueError(
            f"t must be a number or a tensor with one parameter per image, here [{len(x)}]; "
            f"got shape {tuple(t.shape)}."
        )
    return t


def centred_pixels(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of columns ``[W]`` and rows ``[H, 1]``, in pixels from the image's centre."""
    column = torch.arange(width, device=device, dtype=torch.float64) - (width - 1) / 2
    row = torch.arange(height, device=device, dtype=torch.float64) - (height - 1) / 2
    return column, row[:, None]
