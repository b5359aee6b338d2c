"""Norms and variances: sums of products of the tensor with its tangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, axes
from captum_lie.core.tangents.fallback import by_forward_mode
from captum_lie.core.tangents.registry import aten, rule


@rule(aten.linalg_vector_norm.default)
def vector_norm(
    x: Dual, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """Euclidean: ``t ↦ Σ x t / ‖x‖``, zero where x is."""
    if ord != 2 or dtype is not None or not x.dtype.is_floating_point or x.ndim == 0:
        operation = aten.linalg_vector_norm.default
        return by_forward_mode(operation, (x, ord, dim, keepdim), {"dtype": dtype})
    dims = _all_or(dim, x)
    norm = torch.linalg.vector_norm(x.stack[0], 2, dims, True)
    out = _contracted(x.stack[0], x, dims)
    out[1:].div_(norm).masked_fill_(norm == 0, 0)
    out[0] = norm
    return Dual(out if keepdim else _squeezed(out, dims, x), x.run)


@rule(aten.var.correction)
def var(x: Dual, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Dual:
    """With the mean x̄ and c the correction: ``t ↦ 2 / (n - c) Σ (x - x̄) t``."""
    return var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


@rule(aten.std.correction)
def std(x: Dual, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(var(x, dim, correction=correction, keepdim=keepdim))


@rule(aten.var_mean.correction)
def var_mean(
    x: Dual, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Dual, Dual]:
    dims = _all_or(dim, x)
    count = 1
    for d in dims:
        count *= x.shape[d]
    freedom = count - (1 if correction is None else correction)
    value, mean = torch.var_mean(x.stack[0], dims, correction=correction, keepdim=True)
    out = _contracted(x.stack[0] - mean, x, dims)
    out[1:].mul_(2 / freedom if freedom > 0 else torch.nan)
    out[0] = value
    means = x.stack.mean(axes(dims, x), keepdim=True)
    if not keepdim:
        out, means = _squeezed(out, dims, x), _squeezed(means, dims, x)
    return Dual(out, x.run), Dual(means, x.run)


def _all_or(dim: Any, x: Dual) -> list[int]:
    if isinstance(dim, int):
        return [dim]
    return list(dim) if dim else list(range(x.ndim))


def _contracted(factor: Tensor, x: Dual, dims: list[int]) -> Tensor:
    """``Σ factor · t`` over the axes, kept, in the rows of the tangents; the first row is free."""
    shape = list(x.shape)
    for d in dims:
        shape[d] = 1
    out = factor.new_empty((len(x.stack), *shape))
    for row, t in zip(out[1:], x.stack[1:], strict=True):
        torch.sum(factor * t, dims, True, out=row)
    return out


def _squeezed(stack: Tensor, dims: Sequence[int], x: Dual) -> Tensor:
    return stack.squeeze(tuple(axes(dims, x)))
