"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.differentiable.dual import Dual
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.differentiable.resolution import by_reverse_mode
from captum_lie.core.tangents.registry import aten


@rule(aten._softmax.default)
def _softmax(x: Dual, dim: int, half_to_float: bool) -> Dual:
    """``t ↦ y (t - Σ y t)``: a symmetric map, that of the backward pass."""
    return _softmax_like(aten._softmax.default(x.primal, dim, half_to_float), x, dim)


@rule(aten._safe_softmax.default)
def _safe_softmax(x: Dual, dim: int, dtype: Any = None) -> Any:
    """The same, and zero where no element is above minus infinity."""
    if dtype not in (None, x.dtype):
        return by_reverse_mode(aten._safe_softmax.default, x, dim, dtype)
    return _softmax_like(aten._safe_softmax.default(x.primal, dim), x, dim)


def _softmax_like(value: Tensor, x: Dual, dim: int) -> Dual:
    tangents = [
        torch._softmax_backward_data(t.to(value.dtype), value, dim, value.dtype) for t in x.tangents
    ]
    return Dual(value, tangents, x.run)


@rule(aten._log_softmax.default)
def _log_softmax(x: Dual, dim: int, half_to_float: bool) -> Dual:
    """``t ↦ t - Σ softmax(x) t``."""
    value = aten._log_softmax.default(x.primal, dim, half_to_float)
    weights = value.exp()
    return Dual(value, [t - (t * weights).sum(dim, keepdim=True) for t in x.tangents], x.run)
