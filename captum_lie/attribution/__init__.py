"""Captum attribution classes: thin, over the pure functions of the rest of the library."""

from captum_lie.attribution.layer_lie_derivative import LayerLieDerivative
from captum_lie.attribution.lie_derivative import LieDerivative
from captum_lie.attribution.local_equivariance_error import LocalEquivarianceError

__all__ = ["LayerLieDerivative", "LieDerivative", "LocalEquivarianceError"]
