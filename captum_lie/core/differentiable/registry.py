"""The table of rules, from ATen operations to functions of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from captum_lie.core.tangents.registry import Operation

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

RULES: dict[Operation, Rule] = {}

#: Finds a rule for an operation that has none of its own (see ``resolution``).
_resolvers: list[Callable[[Operation], Rule]] = []


def rule(*operations: Operation) -> Callable[[R], R]:
    """Register a function as the rule of operations: it takes their arguments, some of them duals.

    Autograd records what the function does with tensors; to operations on duals it must say
    :func:`~captum_lie.core.differentiable.dual.below`.
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
    found = RULES.get(operation)
    if found is None:
        found = RULES[operation] = _resolvers[0](operation)
    return found
