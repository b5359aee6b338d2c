"""Matrix products: one product of the stack, or the product rule where both factors move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, aligned
from captum_lie.core.tangents.registry import aten, rule


@rule(aten.linear.default)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(x Wᵀ + b)˙ = t Wᵀ``."""
    if not isinstance(x, Dual) or isinstance(weight, Dual) or isinstance(bias, Dual):
        product = torch.matmul(x, weight.mT if weight.ndim > 1 else weight)
        return product if bias is None else product + bias
    stack = x.stack
    if weight.ndim == 2:
        rows = torch.mm(stack.reshape(-1, stack.shape[-1]), weight.t())
        out = rows.view(*stack.shape[:-1], len(weight))
    else:
        out = torch.matmul(stack, weight)
    if bias is not None:
        out[0].add_(bias)
    return Dual(out, x.run)


@rule(aten.matmul.default)
def matmul(x: Tensor, y: Tensor) -> Any:
    """``(x y)˙ = t_x y + x t_y``."""
    if isinstance(x, Dual) and not isinstance(y, Dual):
        if x.ndim == 1:
            return Dual(_row_times(x.stack, y), x.run)
        return Dual(torch.matmul(aligned(x, max(x.ndim, y.ndim)), y), x.run)
    if isinstance(y, Dual) and not isinstance(x, Dual):
        if y.ndim == 1 and x.ndim == 1:
            return Dual(torch.mv(y.stack, x), y.run)
        if y.ndim == 1:
            return Dual(torch.matmul(x, y.stack.mT).movedim(-1, 0), y.run)
        return Dual(torch.matmul(x, aligned(y, max(x.ndim, y.ndim))), y.run)
    return aten.matmul.default.decompose(x, y)


def _row_times(rows: Tensor, y: Tensor) -> Tensor:
    """Vectors ``[1+T, k]`` times a constant ``[k]`` or ``[..., k, m]``."""
    product: Tensor = rows @ y
    return product if y.ndim <= 2 else product.movedim(-2, 0)


@rule(aten.mm.default)
def mm(x: Tensor, y: Tensor) -> Dual:
    if not (isinstance(x, Dual) and isinstance(y, Dual)):
        result: Dual = matmul(x, y)
        return result
    return Dual(_both(x.stack[:, None], y.stack[:, None])[:, 0], x.run)


@rule(aten.bmm.default)
def bmm(x: Tensor, y: Tensor) -> Dual:
    if isinstance(x, Dual) and isinstance(y, Dual):
        return Dual(_both(x.stack, y.stack), x.run)
    if isinstance(x, Dual):
        out = x.stack.new_empty((*x.stack.shape[:3], y.shape[2]))
        for row, t in zip(out, x.stack, strict=True):
            torch.bmm(t, y, out=row)
        return Dual(out, x.run)
    assert isinstance(y, Dual)
    out = x.new_empty((y.run.rows, *x.shape[:2], y.shape[2]))
    for row, t in zip(out, y.stack, strict=True):
        torch.bmm(x, t, out=row)
    return Dual(out, y.run)


def _both(x: Tensor, y: Tensor) -> Tensor:
    """The product rule on stacks ``[1+T, B, n, k]`` and ``[1+T, B, k, m]``."""
    out = x.new_empty((*x.shape[:3], y.shape[3]))
    torch.bmm(x[0], y[0], out=out[0])
    for i in range(1, len(x)):
        torch.bmm(x[i], y[0], out=out[i]).baddbmm_(x[0], y[i])
    return out


@rule(aten.mv.default, aten.dot.default)
def mv(x: Tensor, y: Tensor) -> Any:
    if isinstance(x, Dual) and isinstance(y, Dual):
        return (x * y).sum(-1)
    return matmul(x, y)


@rule(aten.addmm.default, aten.baddbmm.default, aten.addmv.default)
def addmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``β b + α x y``."""
    product = torch.matmul(x, y)
    return (product if alpha == 1 else product * alpha) + (bias if beta == 1 else bias * beta)
