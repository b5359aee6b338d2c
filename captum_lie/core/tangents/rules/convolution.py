"""Convolutions: of all rows of the stack at once, the bias to the tensor alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, primal, run_of
from captum_lie.core.tangents.registry import RULES, NoRule, Operation, aten, rule
from captum_lie.core.tangents.waiting import Unseen


@rule(aten.convolution.default)
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Dual:
    """``(w * x + b)˙ = w * t_x + t_w * x + t_b``."""
    if isinstance(weight, Dual) or not isinstance(x, Dual):
        return _moving_weight(x, weight, bias, *options)
    stack = x.stack
    batched = stack.ndim > weight.ndim
    folded = stack.flatten(0, 1) if batched else stack
    out = torch.convolution(folded, weight, None, *options)
    if batched:
        out = out.view(*stack.shape[:2], *out.shape[1:])
    if bias is not None:
        if len(bias) != out.shape[-(weight.ndim - 1)]:
            raise NoRule(f"a convolution with {len(bias)} summands for other channels")
        shape = (-1, *[1] * (weight.ndim - 2))
        if isinstance(bias, Dual):
            out.add_(bias.stack.view(x.run.rows, *([1] if batched else []), *shape))
        else:
            out[0].add_(bias.view(shape))
    return Unseen(out, x.run)


def _conv(
    operation: Operation,
    axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *options: Any,
) -> Any:
    """The same with one dispatch of two, each of which costs Python's time."""
    plain = x.is_floating_point() and x.ndim == weight.ndim == axes + 2
    if not plain or (bias is not None and bias.dtype != weight.dtype):
        return operation.decompose(x, weight, bias, *options)
    stride, padding, dilation, groups = (*options, *_DEFAULTS[len(options) :])
    return convolution(x, weight, bias, stride, padding, dilation, False, (0,), groups)


#: Stride, padding, dilation and groups.
_DEFAULTS: tuple[Any, ...] = ((1,), (0,), (1,), 1)

for _operation, _axes in ((aten.conv1d, 1), (aten.conv2d, 2), (aten.conv3d, 3)):
    RULES[_operation.default] = partial(_conv, _operation.default, _axes)


def _moving_weight(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Dual:
    run = run_of((x, weight, bias))
    x0, w0, b0 = primal(x), primal(weight), primal(bias)
    rows = [torch.convolution(x0, w0, b0, *options)]
    for i in range(1, run.rows):
        row = torch.zeros_like(rows[0])
        if isinstance(x, Dual):
            row += torch.convolution(x.stack[i], w0, None, *options)
        if isinstance(weight, Dual):
            row += torch.convolution(x0, weight.stack[i], None, *options)
        if isinstance(bias, Dual):
            row += bias.stack[i].view(-1, *[1] * (weight.ndim - 2))
        rows.append(row)
    return Dual(torch.stack(rows), run)
