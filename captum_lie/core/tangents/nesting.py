"""Tensors that carry tangents, of either engine's class, among nested arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

D = TypeVar("D")


def members(arguments: Any, kind: type[D]) -> list[D]:
    """All that are of a class among nested lists, tuples and dictionaries, in order.

    Example:
        >>> members(([1, "a"], {"b": 2}), int)
        [1, 2]
    """
    if isinstance(arguments, kind):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = arguments.values()
    elif not isinstance(arguments, list | tuple):
        return []
    return [member for x in arguments for member in members(x, kind)]


def replaced(arguments: Any, kind: type[D], replace: Callable[[D], Any]) -> Any:
    """Nested arguments with ``replace(x)`` in place of every x of a class.

    Example:
        >>> replaced(([1, "a"], {"b": 2}), int, lambda n: 10 * n)
        ([10, 'a'], {'b': 20})
    """
    if isinstance(arguments, kind):
        return replace(arguments)
    if isinstance(arguments, list | tuple):
        return type(arguments)(replaced(x, kind, replace) for x in arguments)
    if isinstance(arguments, dict):
        return {name: replaced(x, kind, replace) for name, x in arguments.items()}
    return arguments
