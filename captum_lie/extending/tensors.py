"""Derivatives of functions of tensors, for graphs and backends that take them elsewhere.

Whoever only wants numbers calls :func:`captum_lie.lie_derivative`.
"""

from captum_lie.core.autodiff import differentiable, pushforward
from captum_lie.core.captum_compat import progress
from captum_lie.core.derivative import tangent_basis
from captum_lie.core.groups.spatial import directional_derivative
from captum_lie.core.loaders import to_model

__all__ = [
    "differentiable",
    "directional_derivative",
    "progress",
    "pushforward",
    "tangent_basis",
    "to_model",
]
