"""The table of rules, from ATen operations to functions of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Operation = Any  # torch._ops.OpOverload
Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

aten: Any = torch.ops.aten
RULES: dict[Operation, Rule] = {}

#: Finds a rule for an operation that has none of its own (see ``resolution``).
_resolvers: list[Callable[[Operation], Rule]] = []


class NoRule(RuntimeError):
    """An operation that the engine cannot carry tangents through."""


def rule(*operations: Operation) -> Callable[[R], R]:
    """Register a function as the rule of operations: it takes their arguments, some of them duals.

    Example:
        >>> from captum_lie.core.tangents.registry import RULES, aten
        >>> RULES[aten.relu.default].__name__
        'relu'
    """

    def register(function: R) -> R:
        for operation in operations:
            RULES[operation] = function
        return function

    return register


def resolver(function: Callable[[Operation], Rule]) -> Callable[[Operation], Rule]:
    """Register what finds a rule for an operation that has none of its own."""
    _resolvers[:] = [function]
    return function


def rule_of(operation: Operation) -> Rule:
    """The rule of an operation, found and remembered at its first use."""
    implementation = RULES.get(operation)
    if implementation is None:
        implementation = RULES[operation] = _resolvers[0](operation)
    return implementation


def overloads(*names: str) -> list[Operation]:
    """All overloads of the operations of these names that this PyTorch has, ``out=`` aside."""
    packets = [getattr(aten, name) for name in names if hasattr(aten, name)]
    return [
        getattr(packet, overload)
        for packet in packets
        for overload in packet.overloads()
        if not is_mutating(getattr(packet, overload))
    ]


def is_mutating(operation: Operation) -> bool:
    return bool(operation._schema.is_mutable)


def is_view(operation: Operation) -> bool:
    """Whether results may share memory with arguments, by the schema."""
    schema = operation._schema
    return any(value.alias_info is not None for value in (*schema.arguments, *schema.returns))
