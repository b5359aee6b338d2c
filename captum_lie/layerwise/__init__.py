"""Layerwise decomposition: tracing, fluxes, the contribution tree, norm estimators, baselines."""

from captum_lie.layerwise.error import LayerwiseEquivarianceError
from captum_lie.layerwise.maps import layer_maps
from captum_lie.layerwise.sampling import LayerwiseSampledError
from captum_lie.layerwise.subnetworks import SubnetworkEquivarianceError, SubnetworkResult
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.sampled import SampledResult

__all__ = [
    "LayerwiseEquivarianceError",
    "LayerwiseResult",
    "LayerwiseSampledError",
    "SampledResult",
    "SubnetworkEquivarianceError",
    "SubnetworkResult",
    "layer_maps",
]
