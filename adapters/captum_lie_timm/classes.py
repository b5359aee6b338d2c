"""timm's module classes by name: a version that lacks one loses a layout rule, not the adapter."""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib import import_module
from typing import Any

import timm
from torch import nn

Classes = tuple[type[nn.Module], ...]

#: The first timm with every name below. Older ones lack what was written later, with its models.
COMPLETE = (1, 0, 17)


def classes(module: str, *names: str) -> Classes:
    """The classes of these names that this timm has in a module.

    Args:
        module: below ``timm``, ``"layers.patch_embed"`` for one.
        names: of its classes.

    Returns:
        In the same order, without those that timm has not. Each is warned of once, unless it may
        have been written after this timm. The result may be empty, and can then be handed on:
        nothing is registered for no class, nothing is an instance of none, nothing lies within one.

    Example:
        >>> [cls.__name__ for cls in classes("layers.norm", "RmsNorm", "LayerNorm2d")]
        ['RmsNorm', 'LayerNorm2d']
    """
    return tuple(cls for name in names if (cls := _found(module, name)) is not None)


def classes_in(module: str) -> Classes:
    """Every module class that is defined in a module of timm's.

    Example:
        >>> len(classes_in("models.inception_v4")) > 5
        True
    """
    return tuple(
        cls
        for cls in _names(module).values()
        if isinstance(cls, type)
        and issubclass(cls, nn.Module)
        and cls.__module__ == f"timm.{module}"
    )


@cache
def _found(module: str, name: str) -> type[nn.Module] | None:
    names = _names(module)
    if names and name not in names:
        _warn(f"{module}.{name}")
    return names.get(name)


@cache
def _names(module: str) -> dict[str, Any]:
    """What a module of timm's holds; nothing if timm has no such module."""
    try:
        return vars(import_module(f"timm.{module}"))
    except ModuleNotFoundError:
        _warn(module)
        return {}


def _warn(name: str) -> None:
    if tuple(int(part) for part in re.findall(r"\d+", timm.__version__)[:3]) < COMPLETE:
        return
    warnings.warn(
        f"timm {timm.__version__} has no {name}, for which captum_lie_timm has a layout rule: "
        "layouts in such models may stay unknown.",
        stacklevel=4,
    )
