"""Records as a tree of plain types beside a table of arrays, and back.

Dataclasses are taken apart field by field. What JSON has no form for is a one-item mapping whose
key begins with ``$``: arrays by their name in the table, records by their class, infinities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_lie.errors import DamagedFileError

Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class _Form:
    """How instances of a class are written: as the arguments that make them again."""

    taken: Callable[[Any], dict[str, Any]]
    made: Callable[..., Any]


_forms: dict[str, _Form] = {}
_names: dict[type, str] = {}


def storable(
    kind: type,
    taken: Callable[[Any], dict[str, Any]] | None = None,
    made: Callable[..., Any] | None = None,
) -> None:
    """Let records of a class be stored.

    Args:
        kind: a dataclass, or any class with the next two.
        taken: the keyword arguments that make an instance again; by default its fields.
        made: makes it from them; by default the class itself. Must take older forms, too.
    """
    if taken is None and not is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is no dataclass: say how it is taken apart.")
    _forms[kind.__name__] = _Form(taken or _fields, made or kind)
    _names[kind] = kind.__name__


def _fields(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.init}


def encode(value: Any, arrays: Arrays, path: str = "") -> Any:
    """The value in types that JSON has; tensors and arrays go into ``arrays`` under their path.

    Raises:
        TypeError: a class that is not :func:`storable`.

    Example:
        >>> arrays: Arrays = {}
        >>> encode({"lee": torch.ones(2), "n": (1, float("inf"))}, arrays)
        {'lee': {'$tensor': 'lee'}, 'n': {'$tuple': [1, {'$float': 'inf'}]}}
        >>> list(arrays)
        ['lee']
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Tensor):
        arrays[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if isinstance(value, np.ndarray):
        arrays[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {"$array": path}
    if isinstance(value, np.generic):
        return encode(value.item(), arrays, path)
    below = f"{path}." if path else ""
    if isinstance(value, list | tuple):
        parts = [encode(part, arrays, f"{below}{i}") for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"$tuple": parts}
    if isinstance(value, Mapping):
        return {str(name): encode(part, arrays, f"{below}{name}") for name, part in value.items()}
    name = _names.get(type(value))
    if name is None:
        raise TypeError(f"Results of class {type(value).__name__} cannot be stored.")
    return {f"${name}": encode(_forms[name].taken(value), arrays, path)}


def decode(tree: Any, arrays: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`encode`.

    Raises:
        DamagedFileError: an array or a class that is not known.
    """
    if isinstance(tree, list):
        return [decode(part, arrays) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        ((key, content),) = tree.items()
        if key.startswith("$"):
            return _special(key[1:], content, arrays)
    return {name: decode(part, arrays) for name, part in tree.items()}


def _special(kind: str, content: Any, arrays: Mapping[str, Tensor]) -> Any:
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(decode(part, arrays) for part in content)
    if kind in ("tensor", "array"):
        if content not in arrays:
            raise DamagedFileError(f"The array {content!r} is missing from the file.")
        return arrays[content] if kind == "tensor" else arrays[content].numpy()
    if kind not in _forms:
        raise DamagedFileError(
            f"The file holds a {kind}, which this version does not know: it was written by a newer "
            "one, or by an adapter that is not installed."
        )
    try:
        return _forms[kind].made(**decode(content, arrays))
    except TypeError as error:
        raise DamagedFileError(f"The {kind} in the file is not complete: {error}.") from error
