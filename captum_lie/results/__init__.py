"""What measurements return: records of numbers, with their means, errors and tables."""

from captum_lie.results.layer_maps import LayerMap, leading_calls
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.lee import LeeResult
from captum_lie.results.metrics import MetricResult, MetricTable
from captum_lie.results.sampled import SampledResult

__all__ = [
    "LayerMap",
    "LayerwiseResult",
    "LeeResult",
    "MetricResult",
    "MetricTable",
    "SampledResult",
    "leading_calls",
]
