"""The rules, a family of operations a file; importing them registers them."""

from captum_lie.core.differentiable.rules import (
    attention,
    batch_norm,
    constants,
    layer_norm,
    linear,
    pointwise,
    products,
    recurrent,
    sampling,
    softmax,
    writing,
)

__all__ = [
    "attention",
    "batch_norm",
    "constants",
    "layer_norm",
    "linear",
    "pointwise",
    "products",
    "recurrent",
    "sampling",
    "softmax",
    "writing",
]
