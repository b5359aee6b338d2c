"""Writing in place: to tensor and tangents alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_lie.core.tangents.dual import Dual, aligned, primals, write
from captum_lie.core.tangents.registry import NoRule, aten, rule
from captum_lie.core.tangents.waiting import added


@rule(aten.copy_.default)
def copy_(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if not isinstance(x, Dual):
        if x.dtype.is_floating_point or x.dtype.is_complex:
            raise NoRule("a constant tensor is overwritten with a moving one")
        return x.copy_(primals(source))
    return write(x, source)


@rule(aten.fill_.Scalar, aten.fill_.Tensor)
def fill_(x: Dual, value: Any) -> Dual:
    if isinstance(value, Dual):
        return write(x, value)
    x.stack[1:].zero_()
    x.stack[0].fill_(value)
    return x


@rule(aten.zero_.default)
def zero_(x: Dual) -> Dual:
    x.stack.zero_()
    return x


@rule(*(getattr(aten, name).default for name in ("uniform_", "normal_")), aten.bernoulli_.float)
def random_(x: Dual, *args: Any, **kwargs: Any) -> Dual:
    raise NoRule("a moving tensor is filled at random")


@rule(aten.add_.Tensor)
def add_(x: Tensor, other: Tensor, *, alpha: float = 1) -> Tensor:
    """``(x + α y)˙ = t_x + α t_y``."""
    if not isinstance(x, Dual):
        raise NoRule("a moving tensor is added to a constant one in place")
    in_passing = added(x, other, in_place=True) if alpha == 1 else None
    if in_passing is not None:
        return in_passing
    if isinstance(other, Dual):
        x.stack.add_(aligned(other, x.ndim), alpha=alpha)
    else:
        x.stack[0].add_(other, alpha=alpha)
    return x


@rule(aten.sub_.Tensor)
def sub_(x: Tensor, other: Tensor, *, alpha: float = 1) -> Tensor:
    return add_(x, other, alpha=-alpha)


@rule(aten.mul_.Tensor)
def mul_(x: Tensor, other: Any) -> Tensor:
    """``(x y)˙ = t_x y + x t_y``, the tangents first."""
    if not isinstance(x, Dual):
        raise NoRule("a constant tensor is multiplied with a moving one in place")
    if not isinstance(other, Dual):
        x.stack.mul_(other)
        return x
    factor = aligned(other, x.ndim)
    if factor.untyped_storage().data_ptr() == x.stack.untyped_storage().data_ptr():
        factor = factor.clone()
    x.stack[1:].mul_(factor[0]).addcmul_(x.stack[0], factor[1:])
    x.stack[0].mul_(factor[0])
    return x


@rule(aten.masked_fill.Scalar)
def masked_fill(x: Dual, mask: Tensor, value: float) -> Dual:
    """``t ↦ 0`` where the mask is set."""
    stack = aligned(x, mask.ndim).masked_fill(mask, 0)
    stack[0].masked_fill_(mask, value)
    return Dual(stack, x.run)
