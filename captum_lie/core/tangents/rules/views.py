"""Views: the same view of every row of the stack, ``t ↦ view(t)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from captum_lie.core.tangents.dual import Dual, axes, axis
from captum_lie.core.tangents.registry import NoRule, aten, rule


def _rows(x: Dual) -> int:
    return len(x.stack)


@rule(aten.view.default, aten._unsafe_view.default)
def view(x: Dual, size: Sequence[int]) -> Dual:
    stack = x.stack
    if -1 in size:
        size = stack[0].view(size).shape
    return Dual(stack.view(len(stack), *size), x.run)


@rule(aten.reshape.default)
def reshape(x: Dual, shape: Sequence[int]) -> Dual:
    if -1 in shape:
        shape = torch.empty(x.shape, device="meta").reshape(shape).shape
    return Dual(x.stack.reshape(_rows(x), *shape), x.run)


@rule(aten.flatten.using_ints)
def flatten(x: Dual, start_dim: int = 0, end_dim: int = -1) -> Dual:
    if x.ndim == 0:
        return Dual(x.stack[:, None], x.run)
    return Dual(x.stack.flatten(axis(start_dim, x), axis(end_dim, x)), x.run)


@rule(aten.permute.default)
def permute(x: Dual, dims: Sequence[int]) -> Dual:
    return Dual(x.stack.permute(0, *(d % x.ndim + 1 for d in dims)), x.run)


@rule(aten.transpose.int)
def transpose(x: Dual, dim0: int, dim1: int) -> Dual:
    return Dual(x.stack.transpose(axis(dim0, x), axis(dim1, x)), x.run)


@rule(aten.expand.default)
def expand(x: Dual, size: Sequence[int], *, implicit: bool = False) -> Dual:
    stack = x.stack
    extra = len(size) - x.ndim
    for _ in range(extra):
        stack = stack.unsqueeze(1)
    return Dual(stack.expand(len(stack), *size), x.run)


@rule(aten.unsqueeze.default)
def unsqueeze(x: Dual, dim: int) -> Dual:
    return Dual(x.stack.unsqueeze(dim + 1 if dim >= 0 else dim), x.run)


@rule(aten.squeeze.dim, aten.squeeze.dims)
def squeeze(x: Dual, dim: int | Sequence[int]) -> Dual:
    return x_if_scalar(x) or Dual(x.stack.squeeze(tuple(axes(dim, x))), x.run)


@rule(aten.squeeze.default)
def squeeze_all(x: Dual) -> Dual:
    ones = tuple(i + 1 for i, n in enumerate(x.shape) if n == 1)
    return Dual(x.stack.squeeze(ones), x.run)


def x_if_scalar(x: Dual) -> Dual | None:
    return Dual(x.stack[:], x.run) if x.ndim == 0 else None


@rule(aten.select.int)
def select(x: Dual, dim: int, index: int) -> Dual:
    return Dual(x.stack.select(axis(dim, x), index), x.run)


@rule(aten.slice.Tensor)
def slice_(
    x: Dual, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Dual:
    return Dual(aten.slice.Tensor(x.stack, axis(dim, x), start, end, step), x.run)


@rule(aten.split.Tensor, aten.split_with_sizes.default)
def split(x: Dual, sizes: Any, dim: int = 0) -> list[Dual]:
    return [Dual(part, x.run) for part in x.stack.split(sizes, axis(dim, x))]


@rule(aten.unbind.int)
def unbind(x: Dual, dim: int = 0) -> list[Dual]:
    return [Dual(part, x.run) for part in x.stack.unbind(axis(dim, x))]


@rule(aten.alias.default)
def alias(x: Dual) -> Dual:
    return Dual(x.stack[:], x.run)


@rule(aten.as_strided_.default)
def as_strided_(x: Dual, size: Sequence[int], stride: Sequence[int], offset: Any = None) -> Dual:
    """Other strides for axes of length 1: the same tensor."""
    lengths = zip(size, stride, x.stride(), strict=True) if list(size) == list(x.shape) else None
    if lengths is None or offset or any(n > 1 and new != old for n, new, old in lengths):
        raise NoRule("a tensor is given other strides in place")
    return x


@rule(aten.diagonal.default)
def diagonal(x: Dual, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Dual:
    return Dual(x.stack.diagonal(offset, axis(dim1, x), axis(dim2, x)), x.run)


@rule(aten.unfold.default)
def unfold(x: Dual, dimension: int, size: int, step: int) -> Dual:
    return Dual(x.stack.unfold(axis(dimension, x), size, step), x.run)


@rule(aten.view_as_real.default)
def view_as_real(x: Dual) -> Dual:
    return Dual(torch.view_as_real(x.stack), x.run)


@rule(aten.view_as_complex.default)
def view_as_complex(x: Dual) -> Dual:
    return Dual(torch.view_as_complex(x.stack), x.run)


@rule(aten.dropout.default)
def dropout(x: Dual, p: float, train: bool) -> Dual:
    """In evaluation mode the tensor itself; in training mode ``t ↦ mask ∘ t``."""
    if not train or p == 0:
        return x
    mask = torch.empty_like(x.stack[0]).bernoulli_(1 - p).div_(1 - p)
    return Dual(x.stack * mask, x.run)
