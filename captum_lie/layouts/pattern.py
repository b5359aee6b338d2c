"""Patterns: where the factors of an image lie in a tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache, partial
from math import prod
from operator import index

from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layouts.plan import Axis, Factor, Plan, plan_of


@dataclass(frozen=True)
class Pattern:
    """A bijection between images ``[N, C, H, W]`` and tensors with their factors in another order.

    Args:
        axes: the tensor's axes, separated by spaces; one that holds several factors is in
            parentheses, the slowest first. Factors are ``n`` (examples; slowest of the first axis),
            ``c`` or ``c0 c1 …`` (channels), ``y0 y1 …`` and ``x0 x1 …`` (height and width), or
            ``y`` and ``x`` for whatever size the tensor has.
        height, width: sizes of ``y0 y1 …`` and of ``x0 x1 …``; the first counts the largest steps.
        channels: sizes of ``c0 c1 …``, needed for those that share an axis with others than ``y``
            and ``x``.
        prefix: tokens before the grid that do not move (class token, registers).
        shift: rows and columns by which the image was rolled (:func:`torch.roll`) before.

    Raises:
        TypeError: the axes are no string, or a size is no whole number.
        ValueError: the axes and the sizes do not say where an image is.

    Example:
        An image of 4 × 6 pixels in windows of 2 × 3:

        >>> import torch
        >>> windows = Pattern("(n y0 x0) (y1 x1) c", height=(2, 2), width=(2, 3))
        >>> image = torch.arange(24).view(1, 1, 4, 6)
        >>> windows.plan((4, 6, 1)).from_image(image)[0, :, 0]
        tensor([0, 1, 2, 6, 7, 8])
    """

    axes: str
    height: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    prefix: int = 0
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not isinstance(self.axes, str):
            raise InvalidTypeError(f"A pattern's axes are a string; got {self.axes!r}.")
        for sizes in ("height", "width", "channels"):
            object.__setattr__(self, sizes, whole_numbers(sizes, getattr(self, sizes), least=1))
        object.__setattr__(self, "prefix", whole_numbers("prefix", (self.prefix,), least=0)[0])
        object.__setattr__(self, "shift", whole_numbers("shift", self.shift, many=2))
        spelled = (a[0] if len(a) == 1 else f"({' '.join(a)})" for a in _parse(self.axes))
        object.__setattr__(self, "axes", " ".join(spelled))
        problem = self._problem()
        if problem is not None:
            sizes = ", ".join(f"{name} = {size}" for name, size in self._known.items())
            raise InvalidValueError(
                f"{self.axes!r} with {sizes or 'no sizes'} is no layout: {problem}."
            )

    def __str__(self) -> str:
        rolled = f" rolled {self.shift[0]:+d} {self.shift[1]:+d}" if any(self.shift) else ""
        return self.axes + rolled

    @property
    def grid(self) -> tuple[int, int] | None:
        """``(H, W)`` of the image; None where the tensor's shape says it."""
        return (prod(self.height), prod(self.width)) if self.height and self.width else None

    def on_axis(self, axis: int) -> str:
        """The factors of one axis.

        Example:
            >>> Pattern("(n y0) x0 c", height=(2,), width=(3,)).on_axis(0)
            'n y0'
        """
        return " ".join(_parse(self.axes)[axis])

    @property
    def shape(self) -> str:
        """The shape of its tensors in words.

        Example:
            >>> print(Pattern("n (y0 x0) c", height=(2,), width=(3,), prefix=1).shape)
            [N, 1 + 2·3, C]
        """
        words = {"n": "N", "c": "C", "y": "H", "x": "W"}
        axes = []
        for axis in self._axes:
            factors = (words[f.letter] if f.size is None else str(f.size) for f in axis.factors)
            axes.append(f"{axis.prefix} + " * bool(axis.prefix) + ("·".join(factors) or "1"))
        return f"[{', '.join(axes)}]"

    @cached_property
    def plan(self) -> Callable[[tuple[int, ...]], Plan | None]:
        """The way between tensors of a shape and images; None where the shape is another.

        A model asks for the same few shapes at every one of its boundaries, pass after pass: they
        are remembered.
        """
        return lru_cache(maxsize=256)(partial(plan_of, self._axes, self.shift))

    def __reduce__(self) -> tuple[object, ...]:
        """Copies begin without what is remembered."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def _axes(self) -> tuple[Axis, ...]:
        known = self._known
        return tuple(
            Axis(
                tuple(Factor(name[0], int(name[1:] or 0), known.get(name)) for name in names),
                self.prefix if self._is_grid(names) else 0,
            )
            for names in _parse(self.axes)
        )

    @cached_property
    def _known(self) -> dict[str, int]:
        sizes = {"y": self.height, "x": self.width, "c": self.channels}
        return {f"{letter}{i}": s for letter, each in sizes.items() for i, s in enumerate(each)}

    def _is_grid(self, axis: tuple[str, ...]) -> bool:
        """Whether an axis holds the whole grid, and nothing else."""
        names = {name for each in _parse(self.axes) for name in each}
        return set(axis) == {name for name in names if name[0] in "yx"}

    def _problem(self) -> str | None:
        """What is wrong with axes and sizes, if anything."""
        axes, known = _parse(self.axes), self._known
        names = [name for axis in axes for name in axis]
        numbered = {name for name in names if name[0] in "yx" and name[1:]}
        different = {(name[0], name[1:].lstrip("0") or "0") for name in names}
        if (
            not all(re.fullmatch(r"n|[cyx][0-9]*", name) for name in names)
            or len(different) < len(names)
            or not axes
            or axes[0][:1] != ("n",)
        ):
            return "its factors must be n, which comes first, c…, y… and x…, each once"
        if numbered != {name for name in known if name[0] in "yx"}:
            return (
                "every y needs a height, every x a width, and no others (y and x without a number "
                "are of whatever size the tensor has)"
            )
        if not {"y", "x"} <= {name[0] for name in names}:
            return "an image has a height and a width: it needs a y and an x"
        if not set(known) <= set(names):
            return "it has fewer channel factors c0 c1 … than sizes"
        if any(sum(name not in known for name in axis) > 1 for axis in axes):
            return (
                "an axis can have one factor without a size: give the sizes of the c, and number y "
                "and x to give theirs"
            )
        if self.prefix and not any(self._is_grid(axis) for axis in axes):
            return f"{self.prefix} prefix tokens need an axis of all y and x, and of nothing else"
        return None


def whole_numbers(
    what: str, values: Iterable[int], *, least: int | None = None, many: int | None = None
) -> tuple[int, ...]:
    """Values as a tuple, which must be whole numbers of at least so much, and so many.

    Raises:
        TypeError, ValueError: they are not.

    Example:
        >>> whole_numbers("grid", [2, 3], least=1, many=2)
        (2, 3)
    """
    try:
        numbers = tuple(index(value) for value in values)
    except TypeError:
        raise InvalidTypeError(f"{what} must be made of whole numbers; got {values!r}.") from None
    if many is not None and len(numbers) != many:
        raise InvalidValueError(f"{what} must be {many} numbers; got {numbers}.")
    if least is not None and any(number < least for number in numbers):
        raise InvalidValueError(f"{what} must be at least {least}; got {numbers}.")
    return numbers


@lru_cache(maxsize=1024)
def _parse(axes: str) -> tuple[tuple[str, ...], ...]:
    """The names of the factors on each axis."""
    found = re.findall(r"\(([^()]*)\)|(\S+)", axes)
    return tuple(tuple((several or single).split()) for several, single in found)
