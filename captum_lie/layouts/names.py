"""Layouts that have a name, and their patterns."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.layouts.pattern import Pattern, whole_numbers

#: Layouts that have a name; see :class:`captum_lie.layouts.Layout`.
Name = Literal["nchw", "nhwc", "tokens", "tokens_first", "heads", "trivial", "unknown"]
#: What the axes of a tensor mean: by name, or in any other order.
Kind = Literal[Name, "regrouped"]

_IMAGES: dict[Kind, str] = {"nchw": "n c y x", "nhwc": "n y x c"}
_TOKENS: dict[Kind, str] = {
    "tokens": "n (y0 x0) c",
    "tokens_first": "n c (y0 x0)",
    "heads": "n c0 (y0 x0) c1",
}
_NAMES = {axes: name for name, axes in (_IMAGES | _TOKENS).items()}


def pattern_of(name: Kind, prefix: int, grid: tuple[int, int] | None) -> Pattern | None:
    """The pattern of a named layout; None for what has no spatial axes.

    Raises:
        TypeError: a size is no whole number.
        ValueError: there is no such name, tokens have no grid, or others have one.

    Example:
        >>> print(pattern_of("tokens_first", 0, (2, 3)))
        n c (y0 x0)
    """
    if name == "regrouped":
        raise InvalidValueError(
            "A regrouped layout has a pattern: make it by regrouped(pattern, height, width)."
        )
    one_of("layout", name, get_args(Name))
    if name in _TOKENS:
        if grid is None:
            raise InvalidValueError(
                f"The layout {name} needs a grid: Layout({name!r}, grid=(h, w))."
            )
        return _tokens(name, prefix, whole_numbers("grid", grid, least=1, many=2))
    if prefix or grid is not None:
        raise InvalidValueError(
            f"The layout {name} has neither prefix nor grid; got prefix={prefix}, grid={grid}. "
            f"Leave them out, or choose from {', '.join(_TOKENS)}."
        )
    return Pattern(_IMAGES[name]) if name in _IMAGES else None


def name_of(pattern: Pattern) -> Kind:
    """The name of a pattern's layout.

    Example:
        >>> name_of(Pattern("n y x c")), name_of(Pattern("n x y c"))
        ('nhwc', 'regrouped')
    """
    plain = not (pattern.channels or any(pattern.shift))
    return _NAMES.get(pattern.axes, "regrouped") if plain else "regrouped"


@lru_cache(maxsize=1024, typed=True)
def _tokens(name: Kind, prefix: int, grid: tuple[int, ...]) -> Pattern:
    return Pattern(_TOKENS[name], grid[:1], grid[1:], prefix=prefix)
