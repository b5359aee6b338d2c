"""Writing in place: to tensor and tangents alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, primal
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.differentiable.resolution import write
from captum_lie.core.tangents.registry import NoRule, aten


@rule(aten.copy_.default)
def copy_(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(x, Dual):
        return write(x, source)
    if x.dtype.is_floating_point or x.dtype.is_complex:
        raise NoRule("a constant tensor is overwritten with a moving one")
    return x.copy_(primal(source))


@rule(aten.fill_.Scalar, aten.fill_.Tensor)
def fill_(x: Dual, value: Any) -> Dual:
    if not isinstance(value, Tensor):
        value = x.primal.new_full((), value)
    return write(x, value)


@rule(aten.zero_.default)
def zero_(x: Dual) -> Dual:
    return write(x, x.primal.new_zeros(()))


@rule(aten.add_.Tensor)
def add_(x: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """``(x + α y)˙ = t_x + α t_y``."""
    if not isinstance(x, Dual):
        raise NoRule("a moving tensor is added to a constant one in place")
    if isinstance(other, Dual) and not other.still:
        for mine, t in zip(x.tangents, other.tangents, strict=True):
            mine.add_(t, alpha=alpha)
    x.primal.add_(primal(other), alpha=alpha)
    return x


@rule(aten.sub_.Tensor)
def sub_(x: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    return add_(x, other, alpha=-alpha)


@rule(aten.relu_.default)
def relu_(x: Dual) -> Dual:
    """``t`` where ``x > 0``, else 0."""
    mask = x.primal > 0
    for t in x.tangents:
        t.mul_(mask)
    x.primal.relu_()
    return x
