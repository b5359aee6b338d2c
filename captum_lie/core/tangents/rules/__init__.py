"""The rules, a family of operations a file; importing them registers them."""

from captum_lie.core.tangents.rules import (
    arithmetic,
    attention,
    constants,
    convolution,
    linear,
    moments,
    normalisation,
    pointwise,
    pooling,
    products,
    rectifiers,
    selection,
    views,
    writing,
)

__all__ = [
    "arithmetic",
    "attention",
    "constants",
    "convolution",
    "linear",
    "moments",
    "normalisation",
    "pointwise",
    "pooling",
    "products",
    "rectifiers",
    "selection",
    "views",
    "writing",
]
