"""Convolutions: of all rows of the stack at once, the bias to the tensor alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, primal, run_of
from captum_lie.core.tangents.registry import aten, rule
from captum_lie.core.tangents.waiting import Convolution


@rule(aten.convolution.default)
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Dual:
    """``(w * x + b)˙ = w * t_x + t_w * x + t_b``."""
    run = run_of((x, weight, bias))
    if isinstance(weight, Dual) or not isinstance(x, Dual):
        return _moving_weight(x, weight, bias, *options)
    batched = x.ndim == weight.ndim
    stack = x.stack if batched else x.stack.unsqueeze(1)
    moving = isinstance(bias, Dual)
    work = Convolution(stack, weight, None if moving else bias, *options)
    if batched and not moving:
        return Dual.of(work, run)
    out = work() if batched else work().squeeze(1)
    if isinstance(bias, Dual):
        out.add_(bias.stack.view(run.rows, *([1] if batched else []), *_channels(weight)))
    return Dual(out, run)


def _channels(weight: Tensor) -> tuple[int, ...]:
    return (-1, *[1] * (weight.ndim - 2))


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
            row += bias.stack[i].view(_channels(weight))
        rows.append(row)
    return Dual(torch.stack(rows), run)
