"""Rules of interpolation, and the derivatives that belong to them.

The public name of :mod:`captum_lie.core.resampling`.
"""

from captum_lie.core.resampling import (
    BORDERS,
    INTERPOLATIONS,
    Border,
    Interpolation,
    default_border,
    fourier_shift,
    resample,
    slope,
)

__all__ = [
    "BORDERS",
    "INTERPOLATIONS",
    "Border",
    "Interpolation",
    "default_border",
    "fourier_shift",
    "resample",
    "slope",
]
