"""Sums and products: the sum rule and the product rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, below, primal, run_of
from captum_lie.core.differentiable.registry import RULES, rule
from captum_lie.core.differentiable.resolution import by_reverse_mode
from captum_lie.core.tangents.registry import Operation, aten, overloads


def moves(x: Any) -> bool:
    return isinstance(x, Dual) and not x.still


def bilinear(operation: Operation, x: Any, y: Any, *options: Any) -> Any:
    """``op(x, y)˙ = op(t_x, y) + op(x, t_y)``."""
    x0, y0 = primal(x), primal(y)
    value = operation(x0, y0, *options)
    if not (moves(x) or moves(y)):
        return Dual(value, None, run_of((x, y)))
    rows = []
    for i in range(run_of((x, y)).count):
        terms = [operation(x.tangents[i], y0, *options)] if moves(x) else []
        terms += [operation(x0, y.tangents[i], *options)] if moves(y) else []
        rows.append(terms[0] if len(terms) == 1 else terms[0] + terms[1])
    return Dual(value, rows, run_of((x, y)))


for _operation in overloads("mul", "matmul", "mm", "bmm", "mv", "dot"):
    RULES[_operation] = partial(bilinear, _operation)


@rule(aten.square.default)
def square(x: Dual) -> Any:
    return bilinear(aten.mul.Tensor, x, x)


@rule(aten.add.Tensor, aten.add.Scalar)
def add(x: Any, y: Any, alpha: float = 1) -> Dual:
    """``(x + α y)˙ = t_x + α t_y``."""
    value = torch.add(primal(x), primal(y), alpha=alpha)
    run = run_of((x, y))
    if not (moves(x) or moves(y)):
        return Dual(value, None, run)
    if moves(x) and moves(y):
        pairs = zip(x.tangents, y.tangents, strict=True)
        return Dual(value, [torch.add(a, b, alpha=alpha).expand_as(value) for a, b in pairs], run)
    moving, factor = (x, 1.0) if moves(x) else (y, alpha)
    return Dual(value, [_fresh(t, factor, value) for t in moving.tangents], run)


def _fresh(t: Tensor, factor: float, like: Tensor) -> Tensor:
    """A tangent of its own: what is written into the sum must not reach the summand."""
    t = t.clone() if factor == 1 else t * factor
    return t.expand_as(like)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def sub(x: Any, y: Any, alpha: float = 1) -> Dual:
    return add(x, y, -alpha)


@rule(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(x: Any, y: Any, alpha: float = 1) -> Dual:
    return add(y, x, -alpha)


@rule(aten.div.Tensor, aten.div.Scalar)
def div(x: Any, y: Any) -> Dual:
    """``(x / y)˙ = (t_x - (x / y) t_y) / y``."""
    if not moves(y):
        y = primal(y)
        return Dual(x.primal / y, [t / y for t in x.tangents], x.run)
    value = primal(x) / y.primal
    rows = []
    for i, t in enumerate(y.tangents):
        change = -value * t
        rows.append((change + x.tangents[i] if moves(x) else change) / y.primal)
    return Dual(value, rows, y.run)


@rule(aten.linear.default)
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """``(x Wᵀ + b)˙ = t Wᵀ``."""
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        with below(run_of((x, weight, bias))):
            product = torch.matmul(x, weight.mT if weight.ndim > 1 else weight)
            return product if bias is None else product + bias
    rows = [torch.nn.functional.linear(t, weight) for t in x.tangents]
    return Dual(torch.nn.functional.linear(x.primal, weight, bias), rows, x.run)


@rule(aten.convolution.default)
def convolution(x: Any, weight: Any, bias: Any, *options: Any) -> Any:
    """``(w * x + b)˙ = w * t_x + t_w * x + t_b``, the bias on the tensor alone."""
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        return by_reverse_mode(aten.convolution.default, x, weight, bias, *options)
    rows = [torch.convolution(t, weight, None, *options) for t in x.tangents]
    return Dual(torch.convolution(x.primal, weight, bias, *options), rows, x.run)


@rule(aten.addmm.default, aten.baddbmm.default, aten.addmv.default)
def addmm(bias: Any, x: Any, y: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``β b + α x y``."""
    with below(run_of((bias, x, y))):
        return torch.matmul(x, y) * alpha + bias * beta
