"""The layout of a tensor, and how a group acts on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, overload

import torch
from torch import Tensor

from captum_lie.core.groups import OneParameterGroup
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layouts.names import Kind, Name, name_of, pattern_of
from captum_lie.layouts.pattern import Pattern
from captum_lie.layouts.plan import Plan


@dataclass(frozen=True, init=False)
class Layout:
    """How a tensor represents an image: a pattern of its axes, or none for what does not move.

    Args:
        kind: a name, or a :class:`Pattern` (see also :func:`regrouped`). ``nchw`` and ``nhwc`` are
            images; ``tokens`` is ``[N, prefix + h·w, C]``, ``tokens_first`` is
            ``[N, C, prefix + h·w]``, ``heads`` is ``[N, heads, prefix + h·w, C]``; ``trivial`` does
            not move with the image (class scores, pooled vectors); ``unknown``.
        prefix: tokens before the grid that do not move (class token, registers).
        grid: ``(h, w)`` of the tokens.

    Attributes:
        kind: the name; ``regrouped`` for a pattern that has none, such as windows.
        pattern: where the image is; None for ``trivial`` and ``unknown``.

    Raises:
        TypeError: a size is no whole number.
        ValueError: there is no such name, tokens have no grid, or others have one.

    Example:
        >>> from captum_lie import Translation
        >>> layout = Layout("tokens", prefix=1, grid=(2, 3))
        >>> print(layout, layout.pattern)
        tokens[1+2x3] n (y0 x0) c
        >>> tangent = layout.generator(Translation("x"), torch.rand(1, 7, 4))
        >>> tangent.shape, tangent[:, 0].abs().max().item()
        (torch.Size([1, 7, 4]), 0.0)
    """

    kind: Kind
    pattern: Pattern | None

    @overload
    def __init__(self, kind: Pattern) -> None: ...

    @overload
    def __init__(
        self, kind: Name, prefix: int = 0, grid: tuple[int, int] | None = None
    ) -> None: ...

    def __init__(
        self, kind: Name | Pattern, prefix: int = 0, grid: tuple[int, int] | None = None
    ) -> None:
        if isinstance(kind, Pattern) and (prefix or grid is not None):
            raise InvalidValueError(
                f"A pattern has a prefix and sizes of its own; got {kind} with prefix={prefix}, "
                f"grid={grid}. Give them to the pattern."
            )
        pattern = kind if isinstance(kind, Pattern) else pattern_of(kind, prefix, grid)
        object.__setattr__(self, "kind", name_of(kind) if isinstance(kind, Pattern) else kind)
        object.__setattr__(self, "pattern", pattern)

    def __str__(self) -> str:
        if self.pattern is None:
            return self.kind
        size = "x".join(map(str, self.grid or ()))
        size = f"{self.prefix}+{size}" if self.prefix else size
        order = str(self.pattern) if self.kind == "regrouped" else ""
        inside = ": ".join(filter(None, (size, order)))
        return f"{self.kind}[{inside}]" if inside else self.kind

    @property
    def moves(self) -> bool:
        """Whether the group acts on it at all."""
        return self.pattern is not None

    @property
    def prefix(self) -> int:
        """Tokens before the grid that do not move."""
        return 0 if self.pattern is None else self.pattern.prefix

    @property
    def grid(self) -> tuple[int, int] | None:
        """``(h, w)`` where the layout says it; images have whatever size the tensor has."""
        return None if self.pattern is None else self.pattern.grid

    @property
    def regrouping(self) -> Pattern | None:
        """The pattern, if it has no name of its own."""
        return self.pattern if self.kind == "regrouped" else None

    def to_image(self, x: Tensor) -> Tensor:
        """The part that moves, as ``[N, C, h, w]``; a view where there can be one.

        Raises:
            ValueError: the layout has no spatial axes, or the tensor does not fit it.
        """
        return self._plan(x).to_image(x)

    def from_image(self, image: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`to_image` for a tensor shaped ``like``; prefix tokens are zero."""
        return self._plan(like).from_image(image)

    def transform(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A tensor with its image replaced by what a function makes of it, the rest as it was.

        Args:
            function: ``[N, C, h, w]`` to the same shape.

        Raises:
            ValueError: the layout is unknown, or the tensor does not fit it.

        Example:
            >>> x = torch.arange(5).view(1, 5, 1)
            >>> Layout("tokens", prefix=1, grid=(2, 2)).transform(x, lambda y: y.flip(-1)).flatten()
            tensor([0, 2, 1, 4, 3])
        """
        if self.kind == "trivial":
            return x
        plan = self._plan(x)
        return plan.from_image(function(plan.to_image(x)), plan.prefix_of(x))

    def generator(self, group: OneParameterGroup, x: Tensor) -> Tensor:
        """The tangent ``ξ(x)`` of a group on a tensor of this layout, shaped like ``x``.

        Raises:
            ValueError: the layout is unknown, or the tensor does not fit it.
        """
        if self.kind == "trivial":
            return torch.zeros_like(x)
        plan = self._plan(x)
        return plan.from_image(group.generator(plan.to_image(x)))

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor can have this layout."""
        if self.pattern is None:
            return self.kind == "trivial"
        return self.pattern.plan(x.shape) is not None

    def examples(self, x: Tensor) -> int:
        """How many images a tensor of this layout holds."""
        return len(x) if self.pattern is None else self._plan(x).examples

    def extent(self, x: Tensor) -> tuple[int, int]:
        """``(h, w)`` of the image or grid in a tensor of this layout.

        Raises:
            ValueError: the layout has no spatial axes, or the tensor does not fit it.
        """
        return self._plan(x).extent

    def to_dict(self) -> dict[str, Any]:
        """The layout in plain JSON types; :meth:`from_dict` makes an equal one of it.

        Example:
            >>> Layout("tokens", prefix=1, grid=(2, 3)).to_dict()
            {'kind': 'tokens', 'prefix': 1, 'grid': [2, 3]}
        """
        given: dict[str, Any] = {"prefix": self.prefix, "grid": self.grid}
        if self.pattern is not None and self.kind == "regrouped":
            given = asdict(self.pattern)
        said = {name: value for name, value in given.items() if value not in (0, (), (0, 0), None)}
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}
        return {"kind": self.kind, **plain}

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Layout:
        """The layout of which :meth:`to_dict` made these fields.

        Raises:
            TypeError, ValueError: they describe no layout.

        Example:
            >>> print(Layout.from_dict({"kind": "heads", "prefix": 1, "grid": [2, 3]}))
            heads[1+2x3]
        """
        given = dict(fields)
        kind = given.pop("kind", None)
        try:
            return Layout(Pattern(**given)) if kind == "regrouped" else Layout(kind, **given)
        except InvalidTypeError:
            raise
        except TypeError as error:  # fields that are missing, or of another version
            raise InvalidValueError(
                f"A layout cannot be read from {dict(fields)}: {error}. Was it written by another "
                "version?"
            ) from None

    def _plan(self, x: Tensor) -> Plan:
        if self.pattern is None:
            raise InvalidValueError(f"The layout {self} has no spatial axes.")
        plan = self.pattern.plan(x.shape)
        if plan is None:
            raise InvalidValueError(
                f"A tensor of shape {tuple(x.shape)} does not have the layout {self}, which is "
                f"{self.pattern.shape}."
            )
        return plan


def regrouped(
    pattern: str,
    height: tuple[int, ...],
    width: tuple[int, ...],
    *,
    channels: tuple[int, ...] = (),
    prefix: int = 0,
    shift: tuple[int, int] = (0, 0),
) -> Layout:
    """The layout of a tensor that holds the factors of an image in another order.

    Arguments and errors as for :class:`captum_lie.layouts.Pattern`.

    Example:
        8 × 8 windows of 7 × 7 tokens, each in the place of an example:

        >>> windows = regrouped("(n y0 x0) (y1 x1) c", height=(8, 7), width=(8, 7))
        >>> windows.to_image(torch.rand(2 * 64, 49, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    return Layout(Pattern(pattern, height, width, channels, prefix, shift))


NCHW = Layout("nchw")
NHWC = Layout("nhwc")
TRIVIAL = Layout("trivial")
UNKNOWN = Layout("unknown")
