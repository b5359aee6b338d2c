"""Layerwise decomposition: tracing, fluxes, the contribution tree, norm estimators."""

from captum_lie.layerwise.error import LayerwiseEquivarianceError
from captum_lie.layerwise.result import LayerwiseResult
from captum_lie.layerwise.subnetworks import SubnetworkEquivarianceError, SubnetworkResult

__all__ = [
    "LayerwiseEquivarianceError",
    "LayerwiseResult",
    "SubnetworkEquivarianceError",
    "SubnetworkResult",
]
