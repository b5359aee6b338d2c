"""The rules of this engine (``rules/``), and what schemas say of operations."""

from __future__ import annotations

from typing import Any

import torch

from captum_lie.core.tangents.table import Operation, Rule, RuleTable

__all__ = [
    "RULES",
    "NoRule",
    "Operation",
    "Rule",
    "aten",
    "functional_of",
    "is_mutating",
    "is_view",
    "overloads",
    "refuse",
    "resolver",
    "rule",
    "rule_of",
]

aten: Any = torch.ops.aten

_TABLE = RuleTable()
RULES, rule, rule_of, resolver = _TABLE.rules, _TABLE.rule, _TABLE.rule_of, _TABLE.resolver


class NoRule(RuntimeError):
    """An operation that the engine cannot carry tangents through."""


def refuse(operation: Operation, *_args: Any, **_kwargs: Any) -> Any:
    """The rule of operations that can have none."""
    raise NoRule(f"{operation} has no rule")


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


def functional_of(operation: Operation) -> Operation | None:
    """The operation that ``operation`` does in place, to its first argument alone.

    Example:
        >>> functional_of(aten.relu_.default), functional_of(aten.relu.default)
        (<OpOverload(op='aten.relu', overload='default')>, None)
    """
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
