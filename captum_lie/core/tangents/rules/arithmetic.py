"""Sums and elementwise products, with broadcasting."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, aligned, common_dtype, primal
from captum_lie.core.tangents.registry import aten, rule
from captum_lie.core.tangents.waiting import added


def _broadcast(*tensors: Any) -> torch.Size:
    shape: torch.Size = torch.broadcast_shapes(*(x.shape for x in tensors if isinstance(x, Tensor)))
    return shape


@rule(aten.add.Tensor, aten.add.Scalar)
def add(x: Any, y: Any, alpha: float = 1) -> Dual:
    """``(x + α y)˙ = t_x + α t_y``."""
    dtype = common_dtype(x, y)
    if isinstance(x, Dual) and isinstance(y, Dual):
        for one, other in ((x, y), (y, x)) if alpha == 1 else ():
            in_passing = added(one, other)
            if in_passing is not None:
                return in_passing
        ndim = max(x.ndim, y.ndim)
        a, b = aligned(x, ndim, dtype), aligned(y, ndim, dtype)
        return Dual(torch.add(a, b, alpha=alpha), x.run)
    if isinstance(x, Dual):
        return _shifted(x, 1, y, alpha, dtype)
    return _shifted(y, alpha, x, 1, dtype)


def _shifted(x: Dual, a: float, c: Any, b: float, dtype: torch.dtype) -> Dual:
    """``a x + b c`` with a constant c: ``a t``."""
    shape = _broadcast(x, c)
    stack = aligned(x, len(shape), dtype)
    if shape == x.shape:
        # One pass, then the constant on the tensor alone.
        stack = stack * a if a != 1 else stack.clone()
        stack[0].add_(c, alpha=b)
        return Dual(stack, x.run)
    out = stack.new_empty((len(stack), *shape))
    out.copy_(stack)
    if a != 1:
        out.mul_(a)
    out[0].add_(c, alpha=b)
    return Dual(out, x.run)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def sub(x: Any, y: Any, alpha: float = 1) -> Dual:
    return add(x, y, -alpha)


@rule(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(x: Any, y: Any, alpha: float = 1) -> Dual:
    return add(y, x, -alpha)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def mul(x: Any, y: Any) -> Dual:
    """``(x y)˙ = t_x y + x t_y``."""
    dtype = common_dtype(x, y)
    if not isinstance(x, Dual):
        x, y = y, x
    shape = _broadcast(x, y)
    a = aligned(x, len(shape), dtype)
    if not isinstance(y, Dual):
        return Dual(a * y, x.run)
    b = aligned(y, len(shape), dtype)
    if a is b:
        out = a * a[0]
        out[1:].mul_(2)
        return Dual(out, x.run)
    if shape != x.shape:
        # Sums over the smaller factor's tangents are the cheaper when the larger is written first.
        a, b = b, a
    out = a * b[0]
    out[1:].addcmul_(a[0], b[1:])
    return Dual(out, x.run)


@rule(aten.div.Tensor, aten.div.Scalar)
def div(x: Any, y: Any) -> Dual:
    """``(x / y)˙ = (t_x - (x / y) t_y) / y``."""
    if not isinstance(y, Dual):
        return Dual(aligned(x, len(_broadcast(x, y)), common_dtype(x, y)) / y, x.run)
    shape, dtype = _broadcast(x, y), common_dtype(x, y)
    b = aligned(y, len(shape), dtype)
    quotient = primal(x) / b[0]
    out = quotient.new_empty((len(b), *shape))
    out[0] = quotient
    tangents = out[1:]
    torch.mul(b[1:], -quotient, out=tangents)
    if isinstance(x, Dual):
        tangents.add_(aligned(x, len(shape), dtype)[1:])
    tangents.div_(b[0])
    return Dual(out, y.run)


@rule(aten.neg.default)
def neg(x: Dual) -> Dual:
    return Dual(-x.stack, x.run)


@rule(aten.square.default)
def square(x: Dual) -> Dual:
    return mul(x, x)


@rule(aten.where.self)
def where(condition: Tensor, x: Tensor, y: Tensor) -> Dual:
    """``t = t_x`` where the condition holds, else ``t_y``; a constant's is zero."""
    ndim, dtype = len(_broadcast(condition, x, y)), common_dtype(x, y)
    moving = next(z for z in (x, y) if isinstance(z, Dual))
    a, b = (
        aligned(z, ndim, dtype)[1:] if isinstance(z, Dual) else z.new_zeros((), dtype=dtype)
        for z in (x, y)
    )
    value = torch.where(condition, primal(x), primal(y))
    out = value.new_empty((moving.run.rows, *value.shape))
    out[0] = value
    torch.where(condition, a.expand_as(out[1:]), b, out=out[1:])
    return Dual(out, moving.run)
