"""Layerwise decomposition: tracing, fluxes, the contribution tree, norm estimators, baselines."""

from captum_lie.layerwise.error import LayerwiseEquivarianceError
from captum_lie.layerwise.result import LayerwiseResult
from captum_lie.layerwise.sampled_result import SampledResult
from captum_lie.layerwise.sampling import LayerwiseSampledError
from captum_lie.layerwise.subnetworks import SubnetworkEquivarianceError, SubnetworkResult

__all__ = [
    "LayerwiseEquivarianceError",
    "LayerwiseResult",
    "LayerwiseSampledError",
    "SampledResult",
    "SubnetworkEquivarianceError",
    "SubnetworkResult",
]
