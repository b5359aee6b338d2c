"""Smooth functions of one tensor, element by element: ``t ↦ t ∘ f'(x)``.

Their reverse mode needs the curvature, ``g_x = g ∘ f'(x) + Σ ġ ∘ t ∘ f''(x)``. Slope and curvature
are taken on the way forward, once, by PyTorch's reverse mode of ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_lie.core.differentiable.dual import Dual
from captum_lie.core.differentiable.registry import RULES, rule
from captum_lie.core.differentiable.resolution import by_reverse_mode
from captum_lie.core.tangents.registry import Operation, aten, overloads
from captum_lie.core.tangents.rules.pointwise import POINTWISE

Curve = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]

# Without curvature, wherever there is a slope; some have no second derivative in PyTorch.
_STRAIGHT_NAMES = "relu relu6 hardtanh leaky_relu hardsigmoid abs threshold hardshrink softshrink"
_STRAIGHT = set(overloads(*_STRAIGHT_NAMES.split()))


class _Pointwise(torch.autograd.Function):
    """``f(x)`` and ``f'(x) ∘ t`` for each tangent."""

    @staticmethod
    def forward(ctx: Any, curve: Curve, x: Tensor, *tangents: Tensor) -> tuple[Tensor, ...]:
        value, slope, curvature = curve(x)
        # Nothing that the model could yet overwrite.
        bent = () if curvature is None else tuple(t * curvature for t in tangents)
        ctx.save_for_backward(slope, *bent)
        return value, *(t * slope for t in tangents)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *moved: Tensor) -> tuple[Tensor | None, ...]:
        slope, *bent = ctx.saved_tensors
        along = [
            m * slope if need else None
            for m, need in zip(moved, ctx.needs_input_grad[2:], strict=True)
        ]
        if not ctx.needs_input_grad[1]:
            return None, None, *along
        back = g * slope
        for t, m in zip(bent, moved, strict=False):
            back.addcmul_(t, m)
        return None, back, *along


def _by_reverse_mode(operation: Operation, args: Any, kwargs: Any, x: Tensor) -> Any:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = operation(leaf, *args, **kwargs)
        ones = torch.ones_like(value)
        if operation in _STRAIGHT:
            return value.detach(), torch.autograd.grad(value, leaf, ones)[0], None
        slope = torch.autograd.grad(value, leaf, ones, create_graph=True)[0]
        curvature = torch.autograd.grad(slope, leaf, ones)[0] if slope.requires_grad else None
    return value.detach(), slope.detach(), curvature


def pointwise(operation: Operation, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The rule of such an operation."""
    parameters = any(isinstance(z, Tensor) for z in (*args, *kwargs.values()))
    if not isinstance(x, Dual) or parameters or not x.dtype.is_floating_point:
        return by_reverse_mode(operation, x, *args, **kwargs)
    curve = partial(_by_reverse_mode, operation, args, kwargs)
    value, *tangents = _Pointwise.apply(curve, x.primal, *x.tangents)
    return Dual(value, tangents, x.run)


for _operation in [*overloads(*POINTWISE.split()), *_STRAIGHT, aten.pow.Tensor_Scalar]:
    RULES[_operation] = partial(pointwise, _operation)


@rule(aten.gelu.default)
def gelu(x: Dual, *, approximate: str = "none") -> Any:
    """``f''(x) = (2 - x²) φ(x)`` with φ the density of the normal distribution."""
    if approximate != "none":
        return pointwise(aten.gelu.default, x, approximate=approximate)
    value, *tangents = _Pointwise.apply(_gelu, x.primal, *x.tangents)
    return Dual(value, tangents, x.run)


def _gelu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = aten.gelu.default(x)
    density = torch.exp((x * x).mul_(-0.5)).mul_(1 / sqrt(2 * pi))
    slope = torch.erf(x * sqrt(0.5)).add_(1).mul_(0.5).addcmul_(x, density)
    return value, slope, (2 - x * x).mul_(density)
