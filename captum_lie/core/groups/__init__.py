"""One-parameter groups of image transformations: finite action and generator.

A group element acts as ``(T_t x)(p) = x(A(t) p)`` with p in [-1, 1]² and pixel centres at the ends
(``align_corners=True``). With the velocity field ``v(p) = A'(0) p`` its generator is
``ξ(x) = d/dt T_t x |₀ = v(p) · ∇x(p)`` (Gruver et al., arXiv 2210.02984, Eq. 1 to 3).

Every spatial group is one direction in the Lie algebra aff(2), spanned by the six vector fields
:data:`BASIS` = ∂x, ∂y, X∂x, Y∂x, X∂y, Y∂y. On non-square images the two mixed fields Y∂x and X∂y
use isotropic coordinates (the longer side spans [-1, 1]), so that a rotation is rigid.
"""

from captum_lie.core.groups.affine import (
    Affine,
    Axis,
    HyperbolicRotation,
    Rotation,
    Scale,
    Shear,
    Stretch,
    Translation,
    basis_fields,
)
from captum_lie.core.groups.base import OneParameterGroup
from captum_lie.core.groups.brightness import Brightness
from captum_lie.core.groups.coordinates import BASIS, Direction, centred_pixels, pixel_matrix
from captum_lie.core.groups.names import (
    DEFAULT_GROUP,
    GROUP_NAMES,
    GroupLike,
    Groups,
    get_group,
    get_groups,
    is_single,
)
from captum_lie.core.groups.spatial import SpatialGroup

__all__ = [
    "BASIS",
    "DEFAULT_GROUP",
    "GROUP_NAMES",
    "Affine",
    "Axis",
    "Brightness",
    "Direction",
    "GroupLike",
    "Groups",
    "HyperbolicRotation",
    "OneParameterGroup",
    "Rotation",
    "Scale",
    "Shear",
    "SpatialGroup",
    "Stretch",
    "Translation",
    "basis_fields",
    "centred_pixels",
    "get_group",
    "get_groups",
    "is_single",
    "pixel_matrix",
]
