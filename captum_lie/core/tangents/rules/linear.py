"""Linear operations of the tensor: ``t ↦ op(t)``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, axes, axis, lifted, run_of
from captum_lie.core.tangents.fallback import by_vmap
from captum_lie.core.tangents.registry import RULES, Operation, aten, overloads, rule

# Those of one tensor for which `vmap` does what a rule would.
LINEAR = """
    sum mean cumsum trace roll flip tril triu repeat pixel_shuffle pixel_unshuffle channel_shuffle
    index_select gather im2col col2im rot90 diag_embed repeat_interleave
    reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    _fft_r2c _fft_c2r _fft_c2c real imag conj_physical resolve_conj resolve_neg
    avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
"""


def _by_vmap(operation: Operation, x: Any, *args: Any, **kwargs: Any) -> Any:
    return by_vmap(operation, (x, *args), kwargs)


for _operation in overloads(*LINEAR.split()):
    RULES[_operation] = partial(_by_vmap, _operation)


@rule(aten.mean.dim, aten.mean.default)
def mean(x: Dual, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Dual:
    dims = _reduced(dim, x)
    return Dual(x.stack.mean(dims, keepdim, dtype=dtype) if dims else x.stack.to(dtype), x.run)


@rule(aten.sum.dim_IntList, aten.sum.default)
def sum_(x: Dual, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Dual:
    dims = _reduced(dim, x)
    return Dual(x.stack.sum(dims, keepdim, dtype=dtype) if dims else x.stack.to(dtype), x.run)


def _reduced(dim: Any, x: Dual) -> list[int]:
    if dim is None or dim == []:
        return list(range(1, x.ndim + 1))
    return axes(dim, x)


@rule(aten.cat.default, aten.concat.default)
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Dual:
    """Constants, class tokens say, have tangents of zero."""
    run = run_of(tensors)
    # PyTorch skips empty tensors of one axis here, whatever the shape of the others.
    tensors = [x for x in tensors if x.shape != (0,)] or list(tensors)
    first = axis(dim, tensors[0])
    return Dual(torch.cat([lifted(x, run) for x in tensors], first), run)


@rule(aten.stack.default)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Dual:
    run = run_of(tensors)
    return Dual(torch.stack([lifted(x, run) for x in tensors], dim + 1 if dim >= 0 else dim), run)


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(x: Dual, pad: Sequence[int], value: float = 0) -> Dual:
    """Tangents are padded with zeros."""
    out = aten.constant_pad_nd.default(x.stack, pad)
    if value:
        out[0] = aten.constant_pad_nd.default(x.stack[0], pad, value)
    return Dual(out, x.run)


@rule(aten.adaptive_avg_pool2d.default)
def adaptive_avg_pool2d(x: Dual, output_size: Sequence[int]) -> Dual:
    stack = x.stack
    if list(output_size) == [1, 1]:
        return Dual(stack.mean((-2, -1), keepdim=True), x.run)
    folded = stack.flatten(0, -4)
    out = aten.adaptive_avg_pool2d.default(folded, output_size)
    return Dual(out.unflatten(0, stack.shape[:-3]), x.run)


@rule(aten.avg_pool2d.default)
def avg_pool2d(x: Dual, *args: Any, **kwargs: Any) -> Dual:
    stack = x.stack
    out = aten.avg_pool2d.default(stack.flatten(0, -4), *args, **kwargs)
    return Dual(out.unflatten(0, stack.shape[:-3]), x.run)
