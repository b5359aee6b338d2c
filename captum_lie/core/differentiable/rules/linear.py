"""Linear operations: ``t ↦ op(t)``. Views among them need no rule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, duals, primal, run_of
from captum_lie.core.differentiable.registry import RULES, rule
from captum_lie.core.differentiable.resolution import by_reverse_mode, linear
from captum_lie.core.tangents.registry import Operation, aten, overloads
from captum_lie.core.tangents.rules.linear import LINEAR

for _operation in overloads(*LINEAR.split(), "clone", "neg", "adaptive_avg_pool2d"):
    RULES[_operation] = partial(linear, _operation)


def _tangent(x: Tensor, i: int) -> Tensor:
    return x.tangents[i] if isinstance(x, Dual) else torch.zeros_like(x)


def _joined(operation: Operation, tensors: Sequence[Tensor], dim: int = 0) -> Dual:
    """Constants, class tokens say, have tangents of zero."""
    run = run_of(tensors)
    rows = [operation([_tangent(x, i) for x in tensors], dim) for i in range(run.count)]
    return Dual(operation(primal(tensors), dim), rows, run)


for _operation in (aten.cat.default, aten.concat.default, aten.stack.default):
    RULES[_operation] = partial(_joined, _operation)


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(x: Dual, pad: Sequence[int], value: float = 0) -> Dual:
    """Tangents are padded with zeros."""
    padded = aten.constant_pad_nd.default
    return Dual(padded(x.primal, pad, value), [padded(t, pad) for t in x.tangents], x.run)


@rule(aten.where.self)
def where(condition: Tensor, x: Tensor, y: Tensor) -> Dual:
    """``t = t_x`` where the condition holds, else ``t_y``; a constant's is zero."""
    run = run_of((x, y))
    value = torch.where(condition, primal(x), primal(y))
    zeros = (value.new_zeros(()),) * run.count
    pairs = zip(*(z.tangents if isinstance(z, Dual) else zeros for z in (x, y)), strict=True)
    return Dual(value, [torch.where(condition, a, b).expand_as(value) for a, b in pairs], run)


@rule(aten.index_put.default)
def index_put(x: Any, indices: list[Tensor | None], values: Any, accumulate: bool = False) -> Any:
    """``t = t_values`` where they are put, else ``t_x``."""
    run = run_of((x, values))
    put = aten.index_put.default
    rows = [put(_tangent(x, i), indices, _tangent(values, i), accumulate) for i in range(run.count)]
    return Dual(put(primal(x), indices, primal(values), accumulate), rows, run)


@rule(aten.masked_fill.Scalar)
def masked_fill(x: Dual, mask: Tensor, value: float) -> Dual:
    """``t ↦ 0`` where the mask is set."""
    rows = [t.masked_fill(mask, 0) for t in x.tangents]
    return Dual(x.primal.masked_fill(mask, value), rows, x.run)


@rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(x: Any, indices: list[Tensor | None]) -> Any:
    """``t ↦ t[indices]``."""
    if duals(indices):
        return by_reverse_mode(aten.index.Tensor, x, indices)
    return linear(aten.index.Tensor, x, indices)
