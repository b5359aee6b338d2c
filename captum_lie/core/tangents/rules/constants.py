"""Results that do not move: integers, comparisons, steps; and new tensors to be written to."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, primal, run_of
from captum_lie.core.tangents.fallback import constant
from captum_lie.core.tangents.registry import RULES, NoRule, aten, overloads, rule

# The derivative is zero, wherever there is one.
CONSTANT = """
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor isnan isinf isfinite isposinf
    isneginf argmax argmin argsort any all equal is_nonzero is_same_size sign sgn signbit floor ceil
    round trunc nonzero count_nonzero bucketize searchsorted bitwise_and bitwise_or bitwise_not
    heaviside detach rand_like randn_like randint_like bernoulli multinomial result_type
    is_floating_point is_complex is_signed size stride numel sym_size sym_stride sym_numel
    sym_storage_offset floor_divide one_hot histc bincount allclose isclose _has_same_storage_numel
    is_contiguous is_pinned
"""

for _operation in overloads(*CONSTANT.split()):
    RULES[_operation] = lambda *args, _operation=_operation, **kwargs: constant(
        _operation, args, kwargs
    )


@rule(aten.detach.default)
def detach(x: Dual) -> Tensor:
    """A constant that shares its memory: what is written to it reaches the tensor unseen."""
    x.run.exposed = True
    return x.stack[0]


NEW = "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty"


def _new(operation: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A constant, but one that a model may fill with moving values: a dual, if it is real."""
    result: Tensor = constant(operation, args, kwargs)
    if not result.dtype.is_floating_point:
        return result
    run = run_of(args)
    strides = (max(1, _extent(result)), *result.stride())
    stack = result.new_empty(0).new_empty_strided((run.rows, *result.shape), strides)
    stack.zero_()
    stack[0] = result
    return Dual(stack, run)


def _extent(x: Tensor) -> int:
    return (
        1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    )


for _operation in overloads(*NEW.split()):
    RULES[_operation] = partial(_new, _operation)


@rule(aten._local_scalar_dense.default, aten.item.default)
def item(x: Dual) -> Any:
    """A number that moves is none that a program can hold; truth values and integers are."""
    raise NoRule("a moving value is read as a Python number")


@rule(aten._to_copy.default)
def _to_copy(x: Dual, **kwargs: Any) -> Tensor:
    dtype = kwargs.get("dtype")
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        result: Tensor = aten._to_copy.default(x.stack[0], **kwargs)
        return result
    memory_format = kwargs.pop("memory_format", None)
    stack = aten._to_copy.default(x.stack, **kwargs)
    return _formatted(stack, memory_format, x)


@rule(aten.clone.default)
def clone(x: Dual, *, memory_format: torch.memory_format | None = None) -> Dual:
    if memory_format in (None, torch.preserve_format, torch.contiguous_format):
        return Dual(x.stack.clone(memory_format=memory_format or torch.preserve_format), x.run)
    return _formatted(x.stack.clone(), memory_format, x)


@rule(*overloads("_lazy_clone"))
def lazy_clone(x: Dual) -> Dual:
    return Dual(torch._lazy_clone(x.stack), x.run)


@rule(aten.contiguous.default)
def contiguous(x: Dual, *, memory_format: torch.memory_format = torch.contiguous_format) -> Dual:
    if primal(x).is_contiguous(memory_format=memory_format):
        return x
    if memory_format == torch.contiguous_format:
        return Dual(x.stack.contiguous(), x.run)
    return _formatted(x.stack, memory_format, x)


def _formatted(stack: Tensor, memory_format: torch.memory_format | None, x: Dual) -> Dual:
    """The stack with each row in this format, which formats of images know as a batch."""
    if memory_format in (None, torch.preserve_format):
        return Dual(stack, x.run)
    if memory_format == torch.contiguous_format:
        return Dual(stack.contiguous(), x.run)
    folded = stack.flatten(0, 1).contiguous(memory_format=memory_format)
    return Dual(folded.unflatten(0, stack.shape[:2]), x.run)
