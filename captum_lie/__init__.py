"""Exact Lie derivatives and local equivariance errors of vision models, as Captum attributions.

See :class:`LieDerivative` (which pixels move a class score), :class:`LocalEquivarianceError` (how
far a model is from equivariant, over pixels, groups and data sets),
:class:`LayerwiseEquivarianceError` (which modules are to blame) and :func:`lie_derivative`.
"""

from importlib.metadata import version

from captum_lie import layouts, metrics, plotting
from captum_lie.attribution import LayerLieDerivative, LieDerivative, LocalEquivarianceError
from captum_lie.attribution.derivative import lie_derivative
from captum_lie.core.aliasing import aliasing_error
from captum_lie.core.gram import PrincipalDirections, principal_directions
from captum_lie.core.groups import (
    BASIS,
    GROUP_NAMES,
    Affine,
    Brightness,
    HyperbolicRotation,
    OneParameterGroup,
    Rotation,
    Scale,
    Shear,
    SpatialGroup,
    Stretch,
    Translation,
    get_group,
    get_groups,
)
from captum_lie.layerwise import LayerwiseEquivarianceError, SubnetworkEquivarianceError
from captum_lie.penalty import LiePenalty

__version__ = version("captum-lie")

__all__ = [
    "BASIS",
    "GROUP_NAMES",
    "Affine",
    "Brightness",
    "HyperbolicRotation",
    "LayerLieDerivative",
    "LayerwiseEquivarianceError",
    "LieDerivative",
    "LiePenalty",
    "LocalEquivarianceError",
    "OneParameterGroup",
    "PrincipalDirections",
    "Rotation",
    "Scale",
    "Shear",
    "SpatialGroup",
    "Stretch",
    "SubnetworkEquivarianceError",
    "Translation",
    "aliasing_error",
    "get_group",
    "get_groups",
    "layouts",
    "lie_derivative",
    "metrics",
    "plotting",
    "principal_directions",
]
