"""Normalisations over a batch, an instance, or groups of channels.

In training mode batch normalisation takes mean and variance from the batch. They are held where the
images move, and followed where the parameters do: see :class:`captum_lie.LiePenalty`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, below
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.tangents.registry import NoRule, aten


@rule(aten.batch_norm.default)
def batch_norm(
    x: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *settings: Any,
) -> Any:
    """With statistics held affine: ``t ↦ w t / √(σ² + ε)``."""
    training, _momentum, eps, _cudnn_enabled = settings
    if not isinstance(x, Dual) or isinstance(running_mean, Dual) or isinstance(running_var, Dual):
        raise NoRule("a batch normalisation with moving statistics")
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        with below(x.run):
            plain = torch.batch_norm(x, None, None, running_mean, running_var, *settings)
            return _affine(plain, weight, bias)
    value = torch.batch_norm(x.primal, weight, bias, running_mean, running_var, *settings)
    if training:
        variance = x.primal.var([0, *range(2, x.ndim)], correction=0)
    else:
        assert running_var is not None
        variance = running_var
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    scale = scale.view(-1, *[1] * (x.ndim - 2)).to(value.dtype)
    return Dual(value, [t * scale for t in x.tangents], x.run)


@rule(aten.instance_norm.default)
def instance_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    *settings: Any,
) -> Any:
    """Each image has its own statistics, which move with it."""
    use_input_stats, momentum, eps, _cudnn_enabled = settings
    if not use_input_stats:
        return batch_norm(x, weight, bias, running_mean, running_var, False, momentum, eps, False)
    if running_mean is not None:  # updates them
        torch.instance_norm(
            x.primal, None, None, running_mean, running_var, True, momentum, eps, False
        )
    return _normalised(x, weight, bias, eps, x.shape[1])


@rule(aten.group_norm.default)
def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    return _normalised(x, weight, bias, eps, num_groups)


def _normalised(x: Dual, weight: Any, bias: Any, eps: float, groups: int) -> Any:
    """Channels of a group are normalised together: layer normalisation of a view of them."""
    with below(x.run):
        grouped = x.reshape(x.shape[0], groups, -1)
        out = torch.layer_norm(grouped, grouped.shape[2:], None, None, eps).reshape(x.shape)
        return _affine(out, weight, bias)


def _affine(x: Tensor, weight: Any, bias: Any) -> Tensor:
    """``w x + b``, channel by channel."""
    channels = (-1, *[1] * (x.ndim - 2))
    x = x if weight is None else x * weight.view(channels)
    return x if bias is None else x + bias.view(channels)
