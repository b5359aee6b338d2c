"""Piecewise linear activations: ``t ↦ t ∘ f'(x)`` in one fused pass without a temporary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual
from captum_lie.core.tangents.registry import aten, rule


def _into(x: Dual, in_place: bool) -> Tensor:
    return x.stack if in_place else torch.empty_like(x.stack)


def _relu(x: Dual, in_place: bool) -> Dual:
    """``t`` where ``x > 0``, else 0."""
    stack, out = x.stack, _into(x, in_place)
    aten.threshold_backward.grad_input(stack[1:], stack[0], 0, grad_input=out[1:])
    torch.clamp_min(stack[0], 0, out=out[0])
    return x if in_place else Dual(out, x.run)


@rule(aten.relu.default)
def relu(x: Dual) -> Dual:
    return _relu(x, False)


@rule(aten.relu_.default)
def relu_(x: Dual) -> Dual:
    return _relu(x, True)


def _hardtanh(x: Dual, low: Any, high: Any, in_place: bool) -> Dual:
    """``t`` where ``low < x < high``, else 0."""
    stack, out = x.stack, _into(x, in_place)
    aten.hardtanh_backward.grad_input(stack[1:], stack[0], low, high, grad_input=out[1:])
    torch.clamp(stack[0], low, high, out=out[0])
    return x if in_place else Dual(out, x.run)


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
    stack, out = x.stack, _into(x, in_place)
    aten.leaky_relu_backward.grad_input(
        stack[1:], stack[0].expand_as(stack[1:]), slope, False, grad_input=out[1:]
    )
    aten.leaky_relu.out(stack[0], slope, out=out[0])
    return x if in_place else Dual(out, x.run)


@rule(aten.leaky_relu.default)
def leaky_relu(x: Dual, negative_slope: Any = 0.01) -> Dual:
    return _leaky_relu(x, negative_slope, False)


@rule(aten.leaky_relu_.default)
def leaky_relu_(x: Dual, negative_slope: Any = 0.01) -> Dual:
    return _leaky_relu(x, negative_slope, True)
