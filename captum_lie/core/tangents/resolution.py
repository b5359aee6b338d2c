"""What is done with an operation that has no rule of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from captum_lie.core.tangents.dual import Dual, write
from captum_lie.core.tangents.fallback import by_forward_mode
from captum_lie.core.tangents.registry import NoRule, Operation, Rule, aten, is_mutating, resolver


@resolver
def resolve(operation: Operation) -> Rule:
    """Composite operations are taken apart, those in place written from their results.

    All others are left to PyTorch's forward mode of the one operation.
    """
    if operation._can_decompose():
        return partial(_taken_apart, operation)
    if is_mutating(operation):
        functional = _functional(operation)
        return partial(_refuse, operation) if functional is None else partial(_in_place, functional)
    return partial(_forward_mode, operation)


def _functional(operation: Operation) -> Operation | None:
    """The operation that ``operation`` (``relu_``) does in place (``relu``)."""
    schema = operation._schema
    name = schema.name.removeprefix("aten::")
    first = schema.arguments[0].alias_info
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not name.endswith("_") or name.endswith("__") or len(written) != 1 or first is None:
        return None
    packet = getattr(aten, name[:-1], None)
    takes = [(a.name, str(a.type)) for a in schema.arguments]
    for overload in packet.overloads() if packet is not None else []:
        functional = getattr(packet, overload)
        same = [(a.name, str(a.type)) for a in functional._schema.arguments] == takes
        if same and not is_mutating(functional):
            return functional
    return None


def _in_place(functional: Operation, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(x, Dual):
        raise NoRule(f"{functional}: a constant tensor is overwritten with a moving one")
    result = functional(x, *args, **kwargs)
    if result.shape != x.shape:
        raise NoRule(f"{functional} in place changes the shape")
    return write(x, result)


def _taken_apart(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    result = operation.decompose(*args, **kwargs)
    if result is NotImplemented:
        return by_forward_mode(operation, args, kwargs)
    return result


def _forward_mode(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    return by_forward_mode(operation, args, kwargs)


def _refuse(operation: Operation, *_args: Any, **_kwargs: Any) -> Any:
    raise NoRule(f"{operation} has no rule")
