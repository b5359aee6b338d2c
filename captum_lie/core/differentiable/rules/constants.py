"""Results that do not move: integers, comparisons, steps; and new tensors to be written to."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, run_of
from captum_lie.core.differentiable.registry import RULES, rule
from captum_lie.core.differentiable.resolution import constant, linear
from captum_lie.core.tangents.registry import NoRule, Operation, aten, overloads
from captum_lie.core.tangents.rules.constants import CONSTANT, NEW

for _operation in overloads(*CONSTANT.split()):
    RULES[_operation] = partial(constant, _operation)


def _new(operation: Operation, *args: Any, **kwargs: Any) -> Tensor:
    """A constant, but one that a model may fill with moving values: a dual, if it is real."""
    result: Tensor = constant(operation, *args, **kwargs)
    if not result.dtype.is_floating_point:
        return result
    return Dual(result, None, run_of((args, kwargs)))


for _operation in overloads(*NEW.split()):
    RULES[_operation] = partial(_new, _operation)


@rule(aten._local_scalar_dense.default, aten.item.default)
def item(x: Dual) -> Any:
    """A number that moves is none that a program can hold; truth values and integers are."""
    if not x.still:
        raise NoRule("a moving value is read as a Python number")
    return x.primal.item()


@rule(aten._to_copy.default)
def _to_copy(x: Dual, **kwargs: Any) -> Any:
    dtype = kwargs.get("dtype")
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        return constant(aten._to_copy.default, x, **kwargs)
    return linear(aten._to_copy.default, x, **kwargs)
