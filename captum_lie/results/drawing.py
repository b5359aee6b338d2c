"""How results draw themselves: :mod:`captum_lie.show` says how, results only ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from matplotlib.figure import Figure

Painter = TypeVar("Painter", bound=Callable[..., Figure])

_painters: dict[str, Callable[..., Figure]] = {}


def paints(result: str) -> Callable[[Painter], Painter]:
    """Register the function that draws results of a class, by its name."""

    def register(painter: Painter) -> Painter:
        _painters[result] = painter
        return painter

    return register


def draw(result: object, **options: str) -> Figure:
    """The picture of a result.

    Raises:
        LookupError: nothing draws results of its class; ``import captum_lie`` registers all.
    """
    return _painters[type(result).__name__](result, **options)
