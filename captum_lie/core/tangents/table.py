"""Tables of rules: what is done with each ATen operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Operation = Any  # torch._ops.OpOverload
Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)


class RuleTable:
    """Rules, from ATen operations to functions of their arguments, some of which are duals.

    Attributes:
        rules: those that are known.

    Example:
        >>> import torch
        >>> table = RuleTable()
        >>> @table.rule(torch.ops.aten.neg.default)
        ... def neg(x):
        ...     return -x
        >>> @table.resolver
        ... def resolve(operation):
        ...     return operation
        >>> table.rule_of(torch.ops.aten.neg.default).__name__
        'neg'
        >>> table.rule_of(torch.ops.aten.sin.default)
        <OpOverload(op='aten.sin', overload='default')>
    """

    def __init__(self) -> None:
        self.rules: dict[Operation, Rule] = {}
        self._resolve: Callable[[Operation], Rule] | None = None

    def rule(self, *operations: Operation) -> Callable[[R], R]:
        """Register a function as the rule of operations."""

        def register(function: R) -> R:
            for operation in operations:
                self.rules[operation] = function
            return function

        return register

    def resolver(self, function: Callable[[Operation], Rule]) -> Callable[[Operation], Rule]:
        """Register what finds a rule for an operation that has none of its own."""
        self._resolve = function
        return function

    def rule_of(self, operation: Operation) -> Rule:
        """The rule of an operation, found and remembered at its first use."""
        found = self.rules.get(operation)
        if found is None:
            assert self._resolve is not None
            found = self.rules[operation] = self._resolve(operation)
        return found
