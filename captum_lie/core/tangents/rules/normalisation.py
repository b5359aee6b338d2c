"""Normalisations.

With x̂ the normalised tensor of a group of n elements and r its reciprocal deviation,
``t ↦ r (t - mean t - x̂ mean(x̂ t))`` is a symmetric map: PyTorch's own backward kernels evaluate it.
The softmax's ``t ↦ y (t - Σ y t)`` is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.normalisation import fixed_statistics
from captum_lie.core.tangents.dual import Dual, primal
from captum_lie.core.tangents.fallback import by_forward_mode
from captum_lie.core.tangents.registry import NoRule, aten, rule
from captum_lie.core.tangents.waiting import scaled

_INPUT_ONLY = [True, False, False]


@rule(aten.batch_norm.default)
def batch_norm(
    x: Dual,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *settings: Any,
) -> Any:
    """With fixed statistics affine: ``t ↦ w t / √(σ² + ε)``."""
    training, _momentum, eps, _cudnn_enabled = settings
    if isinstance(running_mean, Dual) or isinstance(running_var, Dual):
        raise NoRule("a normalisation with moving statistics")
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        plain = torch.batch_norm(x, None, None, running_mean, running_var, *settings)
        return _moving(plain, weight, bias, (-1, *[1] * (x.ndim - 2)))
    if training:
        return _batch_statistics(x, weight, bias, running_mean, eps)
    assert running_mean is not None
    assert running_var is not None
    if any(
        len(v) != x.shape[1] for v in (running_mean, running_var, weight, bias) if v is not None
    ):
        raise NoRule(f"a normalisation of other than {x.shape[1]} channels")
    scale, shift = fixed_statistics(running_mean, running_var, weight, bias, eps)
    channels = (-1, *[1] * (x.ndim - 2))
    return scaled(x, scale.view(channels).to(x.dtype), shift.view(channels))


def _batch_statistics(
    x: Dual, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, eps: float
) -> Dual:
    if running_mean is not None:
        raise NoRule("batch normalisation that updates its statistics")
    value, mean, rstd = torch.native_batch_norm(x.stack[0], None, None, None, None, True, 0.0, eps)
    rows = [value]
    for t in x.stack[1:]:
        rows.append(
            aten.native_batch_norm_backward.default(
                t, x.stack[0], None, None, None, mean, rstd, True, eps, _INPUT_ONLY
            )[0]
        )
    return _affine(torch.stack(rows), weight, bias, (-1, *[1] * (x.ndim - 2)), x)


def _affine(
    out: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int], x: Dual
) -> Dual:
    """``w x̂ + b`` with constants, in place of x̂."""
    if weight is not None:
        out.mul_(weight.view(shape))
    if bias is not None:
        out[0].add_(bias.view(shape))
    return Dual(out, x.run)


def _moving(
    normalised: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]
) -> Any:
    """``w x̂ + b`` where w or b move: the sum and the product have rules."""
    scaled = normalised if weight is None else normalised * weight.view(shape)
    return scaled if bias is None else scaled + bias.view(shape)


@rule(aten.layer_norm.default)
def layer_norm(
    x: Dual,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        plain = torch.layer_norm(x, normalized_shape, None, None, eps)
        return _moving(plain, weight, bias, normalized_shape)
    return native_layer_norm(x, normalized_shape, weight, bias, eps)[0]


@rule(aten.native_layer_norm.default)
def native_layer_norm(
    x: Dual, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Dual, Tensor, Tensor]:
    if isinstance(weight, Dual) or isinstance(bias, Dual) or not isinstance(x, Dual):
        raise NoRule("a normalisation with moving weights")
    value = primal(x).contiguous()
    _, mean, rstd = y = torch.native_layer_norm(value, normalized_shape, weight, bias, eps)
    out = value.new_empty(x.stack.shape)
    out[0] = y[0]
    for i in range(1, len(out)):
        derivative = aten.native_layer_norm_backward.default(
            x.stack[i], value, normalized_shape, mean, rstd, None, None, _INPUT_ONLY
        )[0]
        if weight is None:
            out[i] = derivative
        else:
            torch.mul(derivative, weight, out=out[i])
    return Dual(out, x.run), mean, rstd


@rule(aten.group_norm.default)
def group_norm(
    x: Dual,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    shape = (-1, *[1] * (x.ndim - 2))
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        return _moving(torch.group_norm(x, num_groups, None, None, eps), weight, bias, shape)
    stack = x.stack.contiguous()
    n, c = x.shape[:2]
    hw = stack[0].numel() // (n * c)
    value, mean, rstd = torch.native_group_norm(stack[0], None, None, n, c, hw, num_groups, eps)
    out = torch.empty_like(stack)
    out[0] = value
    for i in range(1, len(out)):
        out[i] = aten.native_group_norm_backward.default(
            stack[i], stack[0], mean, rstd, None, n, c, hw, num_groups, _INPUT_ONLY
        )[0]
    return _affine(out, weight, bias, shape, x)


@rule(aten._softmax.default)
def _softmax(x: Dual, dim: int, half_to_float: bool) -> Dual:
    """``t ↦ y (t - Σ y t)``."""
    return _softmax_like(aten._softmax.default(x.stack[0], dim, half_to_float), x, dim)


@rule(aten._safe_softmax.default)
def _safe_softmax(x: Dual, dim: int, dtype: Any = None) -> Any:
    """The same, and zero where no element is above minus infinity."""
    if dtype not in (None, x.dtype):
        return by_forward_mode(aten._safe_softmax.default, (x, dim, dtype), {})
    return _softmax_like(aten._safe_softmax.default(x.stack[0], dim), x, dim)


def _softmax_like(value: Tensor, x: Dual, dim: int) -> Dual:
    stack = x.stack
    out = value.new_empty(stack.shape)
    out[0] = value
    for i in range(1, len(out)):
        aten._softmax_backward_data.out(stack[i], value, dim, value.dtype, grad_input=out[i])
    return Dual(out, x.run)


@rule(aten._log_softmax.default)
def _log_softmax(x: Dual, dim: int, half_to_float: bool) -> Dual:
    """``t ↦ t - Σ softmax(x) t``."""
    value = aten._log_softmax.default(x.stack[0], dim, half_to_float)
    out = value.new_empty(x.stack.shape)
    out[0] = value
    if x.ndim == 0:
        out[1:] = 0
        return Dual(out, x.run)
    along = dim % x.ndim + 1
    t = x.stack[1:].to(value.dtype)
    torch.sub(t, (t * value.exp()).sum(along, keepdim=True), out=out[1:])
    return Dual(out, x.run)
