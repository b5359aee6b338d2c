"""Pooling by maximum: tangents are gathered where the tensor's maxima are."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual
from captum_lie.core.tangents.registry import RULES, Operation, aten


def _with_indices(operation: Operation, axes: int, x: Dual, *args: Any, **kwargs: Any) -> Any:
    value, indices = operation(x.stack[0], *args, **kwargs)
    return Dual(gathered(x.stack, value, indices, axes), x.run), indices


def _without_indices(operation: Operation, axes: int, x: Dual, *args: Any, **kwargs: Any) -> Dual:
    pooled: Dual = _with_indices(operation, axes, x, *args, **kwargs)[0]
    return pooled


def gathered(stack: Tensor, value: Tensor, indices: Tensor, axes: int) -> Tensor:
    """The stack of ``value``, whose elements are those of ``indices`` in the last ``axes`` axes."""
    out = value.new_empty((len(stack), *value.shape))
    out[0] = value
    index = indices.flatten(-axes).expand(len(stack) - 1, *indices.shape[:-axes], -1)
    torch.gather(stack[1:].flatten(-axes), -1, index, out=out[1:].flatten(-axes))
    return out


_INDEXED = {
    "max_pool2d_with_indices": 2,
    "max_pool3d_with_indices": 3,
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "fractional_max_pool2d": 2,
    "fractional_max_pool3d": 3,
}
for _name, _axes in _INDEXED.items():
    _operation = getattr(aten, _name).default
    RULES[_operation] = partial(_with_indices, _operation, _axes)
    if _name.endswith("_with_indices"):
        _plain = getattr(aten, _name.removesuffix("_with_indices")).default
        RULES[_plain] = partial(_without_indices, _operation, _axes)
