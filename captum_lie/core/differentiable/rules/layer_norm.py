"""Layer normalisation.

With x̂ the normalised elements of a group, r their reciprocal deviation and means over the group,
``S(t) = r (t - mean t - x̂ mean(x̂ t))`` is the derivative of x̂ along t, and a symmetric map:
PyTorch's backward kernel evaluates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_lie.core.differentiable.dual import Dual, below, run_of
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.tangents.registry import NoRule, aten


class _LayerNorm(torch.autograd.Function):
    """``w x̂ + b`` and ``w S(t)`` for each tangent."""

    @staticmethod
    def forward(
        ctx: Any,
        shape: Sequence[int],
        eps: float,
        x: Tensor,
        w: Tensor | None,
        b: Tensor | None,
        *tangents: Tensor,
    ) -> tuple[Tensor, ...]:
        value, mean, rstd = torch.native_layer_norm(x, shape, w, b, eps)
        moved = [_symmetric(t, x, shape, mean, rstd) for t in tangents]
        ctx.shape = shape
        ctx.save_for_backward(x, w, b, mean, rstd, *tangents, *moved)
        return value, *(m if w is None else m * w for m in moved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *turned: Tensor) -> tuple[Tensor | None, ...]:
        """``⟨h, S(t)⟩`` with ``h = w ġ`` changes with x by way of x̂ and r:

        ``S(g' - r (mean(x̂ t) h + mean(x̂ h) t)) - r mean(h S(t)) x̂``.
        """
        x, w, b, mean, rstd, *rest = ctx.saved_tensors
        count = len(rest) // 2
        tangents, moved = rest[:count], rest[count:]
        shape = ctx.shape
        dims = list(range(-len(shape), 0))
        needs = ctx.needs_input_grad
        x_hat = (x - mean).mul_(rstd)
        of_w = of_b = None
        if w is not None and needs[3]:
            of_w = _rows(g * x_hat, w)
            for h, m in zip(turned, moved, strict=True):
                of_w += _rows(h * m, w)
        if b is not None and needs[4]:
            of_b = _rows(g, b)
        hs = [h if w is None else h * w for h in turned]
        along = [
            _symmetric(h, x, shape, mean, rstd) if need else None
            for h, need in zip(hs, needs[5:], strict=True)
        ]
        if not needs[2]:
            return None, None, None, of_w, of_b, *along
        inner = g if w is None else g * w
        outer: Tensor | None = None
        for t, m, h in zip(tangents, moved, hs, strict=True):
            of_t = (x_hat * t).mean(dims, keepdim=True).mul_(rstd)
            of_h = (x_hat * h).mean(dims, keepdim=True).mul_(rstd)
            inner = torch.addcmul(inner, h, of_t, value=-1).addcmul_(t, of_h, value=-1)
            change = (h * m).mean(dims, keepdim=True).mul_(rstd)
            outer = change if outer is None else outer + change
        back = _symmetric(inner, x, shape, mean, rstd)
        if outer is not None:
            back.addcmul_(x_hat, outer, value=-1)
        return None, None, back, of_w, of_b, *along


def _symmetric(t: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, rstd: Tensor) -> Tensor:
    """``S(t)``."""
    result: Tensor = aten.native_layer_norm_backward.default(
        t.contiguous(), x, shape, mean, rstd, None, None, [True, False, False]
    )[0]
    return result


def _rows(x: Tensor, like: Tensor) -> Tensor:
    """The sum over all groups."""
    return x.reshape(-1, *like.shape).sum(0)


@rule(aten.layer_norm.default)
def layer_norm(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    if isinstance(weight, Dual) or isinstance(bias, Dual):
        with below(run_of((x, weight, bias))):
            out = torch.layer_norm(x, normalized_shape, None, None, eps)
            out = out if weight is None else out * weight
            return out if bias is None else out + bias
    # PyTorch's kernel computes in single precision at least; its backward takes one precision only.
    precision = torch.promote_types(x.dtype, torch.float32)
    value, *tangents = _LayerNorm.apply(
        normalized_shape,
        eps,
        x.primal.to(precision).contiguous(),
        *(z if z is None else z.to(precision) for z in (weight, bias)),
        *(t.to(precision) for t in x.tangents),
    )
    return Dual(value.to(x.dtype), tangents, x.run)


@rule(aten.native_layer_norm.default)
def native_layer_norm(*_: Any) -> Any:
    """PyTorch's third derivative of it is wrong, silently (2.14): it holds mean and deviation."""
    raise NoRule("torch.native_layer_norm has no rule; torch.layer_norm has one")


def rms_norm(
    x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    """Written out: some devices have a fused operation for it."""
    dims = list(range(-len(normalized_shape), 0))
    with below(run_of((x, weight))):
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        eps = torch.finfo(y.dtype).eps if eps is None else eps
        y = y * (y.square().mean(dims, keepdim=True) + eps).rsqrt()
        return (y if weight is None else y * weight).to(x.dtype)


if hasattr(aten, "rms_norm"):
    rule(aten.rms_norm.default)(rms_norm)
