"""Piecewise linear activations: ``t ↦ t ∘ f'(x)`` in one fused pass without a temporary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual
from captum_lie.core.tangents.registry import aten, rule
from captum_lie.core.tangents.waiting import memory_for, overwritten, unscaled


def _rectified(
    x: Dual,
    value_into: Callable[[Tensor, Tensor], object],
    tangents_into: Callable[[Tensor, Tensor, Tensor], object],
    in_place: bool,
) -> Dual:
    """An activation.

    Args:
        value_into: ``(x, out)`` writes ``f(x)``, to ``x`` itself perhaps.
        tangents_into: ``(t, x, out)`` writes ``t ∘ f'(x)`` for tangents ``[T, *x.shape]``, to ``t``
            itself perhaps.
        in_place: whether x is overwritten.
    """
    value, tangents, factor = unscaled(x)
    out = memory_for(x, in_place)
    if factor is None:
        tangents_into(tangents, value, out[1:])
    else:
        x.run.masked = True
        slope = torch.empty_like(value)
        tangents_into(factor.expand_as(value)[None], value, slope[None])
        torch.mul(tangents, slope, out=out[1:])
    value_into(value, out[0])
    return overwritten(x, out) if in_place else Dual(out, x.run)


def _relu(x: Dual, in_place: bool) -> Dual:
    """``t`` where ``x > 0``, else 0."""
    return _rectified(
        x,
        lambda value, out: torch.clamp_min(value, 0, out=out),
        lambda t, value, out: aten.threshold_backward.grad_input(t, value, 0, grad_input=out),
        in_place,
    )


@rule(aten.relu.default)
def relu(x: Dual) -> Dual:
    return _relu(x, False)


@rule(aten.relu_.default)
def relu_(x: Dual) -> Dual:
    return _relu(x, True)


def _hardtanh(x: Dual, low: Any, high: Any, in_place: bool) -> Dual:
    """``t`` where ``low < x < high``, else 0."""
    return _rectified(
        x,
        lambda value, out: torch.clamp(value, low, high, out=out),
        lambda t, value, out: aten.hardtanh_backward.grad_input(
            t, value, low, high, grad_input=out
        ),
        in_place,
    )


@rule(aten.hardtanh.default)
def hardtanh(x: Dual, min_val: Any = -1, max_val: Any = 1) -> Dual:
    return _hardtanh(x, min_val, max_val, False)


@rule(aten.hardtanh_.default)
def hardtanh_(x: Dual, min_val: Any = -1, max_val: Any = 1) -> Dual:
    return _hardtanh(x, min_val, max_val, True)


@rule(aten.relu6.default)
def relu6(x: Dual) -> Dual:
    return _hardtanh(x, 0, 6, False)


@rule(aten.relu6_.default)
def relu6_(x: Dual) -> Dual:
    return _hardtanh(x, 0, 6, True)


def _leaky_relu(x: Dual, slope: Any, in_place: bool) -> Dual:
    """``t`` where ``x > 0``, else ``slope · t``."""
    return _rectified(
        x,
        lambda value, out: aten.leaky_relu.out(value, slope, out=out),
        lambda t, value, out: aten.leaky_relu_backward.grad_input(
            t, value.expand_as(t), slope, False, grad_input=out
        ),
        in_place,
    )


@rule(aten.leaky_relu.default)
def leaky_relu(x: Dual, negative_slope: Any = 0.01) -> Dual:
    return _leaky_relu(x, negative_slope, False)


@rule(aten.leaky_relu_.default)
def leaky_relu_(x: Dual, negative_slope: Any = 0.01) -> Dual:
    return _leaky_relu(x, negative_slope, True)
