"""Sampling-based metrics of equivariance for any callable, on the same transformations everywhere.

Every metric takes a callable ``Tensor[N, C, H, W] -> Tensor[N, K]``, be it PyTorch, an onnxruntime
session or NumPy inside, and images or a loader of them. Transformations depend on the seed and an
image's position in the data alone, so that backends and batch sizes see the same ones.
"""

from captum_lie.metrics.agreement import consistency
from captum_lie.metrics.alias_free import eq_r, eq_t, eq_t_frac
from captum_lie.metrics.discrete import discrete_group_error
from captum_lie.metrics.finite_difference import finite_difference_lee
from captum_lie.metrics.finite_groups import parameter_unit
from captum_lie.metrics.group_sample import group_error_curve, group_sample_error
from captum_lie.metrics.rotation import bandlimit, rotate
from captum_lie.metrics.shifts import integer_shift
from captum_lie.metrics.sinc import SincKernel, fractional_shift
from captum_lie.metrics.suite import METRIC_NAMES, measure
from captum_lie.results.metrics import MetricResult, MetricTable, paired_difference

__all__ = [
    "METRIC_NAMES",
    "MetricResult",
    "MetricTable",
    "SincKernel",
    "bandlimit",
    "consistency",
    "discrete_group_error",
    "eq_r",
    "eq_t",
    "eq_t_frac",
    "finite_difference_lee",
    "fractional_shift",
    "group_error_curve",
    "group_sample_error",
    "integer_shift",
    "measure",
    "paired_difference",
    "parameter_unit",
    "rotate",
]
