"""What is done with an operation that has no rule of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from captum_lie.core.tangents.dual import Dual, check_in_place, write
from captum_lie.core.tangents.fallback import by_forward_mode
from captum_lie.core.tangents.registry import (
    NoRule,
    Operation,
    Rule,
    functional_of,
    is_mutating,
    refuse,
    resolver,
)


@resolver
def resolve(operation: Operation) -> Rule:
    """Composite operations are taken apart, those in place written from their results.

    All others are left to PyTorch's forward mode of the one operation.
    """
    if operation._can_decompose():
        return partial(_taken_apart, operation)
    if is_mutating(operation):
        functional = functional_of(operation)
        return partial(refuse, operation) if functional is None else partial(_in_place, functional)
    return partial(_forward_mode, operation)


def _in_place(functional: Operation, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(x, Dual):
        raise NoRule(f"{functional}: a constant tensor is overwritten with a moving one")
    result = functional(x, *args, **kwargs)
    check_in_place(functional, x, result)
    return write(x, result)


def _taken_apart(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    result = operation.decompose(*args, **kwargs)
    if result is NotImplemented:
        return by_forward_mode(operation, args, kwargs)
    return result


def _forward_mode(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    return by_forward_mode(operation, args, kwargs)
