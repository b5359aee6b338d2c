"""The layout of a tensor, and how a group acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lie.core.groups import OneParameterGroup
from captum_lie.errors import InvalidValueError
from captum_lie.layouts.regrouping import Regrouping

#: What the axes of a tensor mean; see :class:`Layout`.
Kind = Literal["nchw", "nhwc", "tokens", "tokens_first", "heads", "regrouped", "trivial", "unknown"]


@dataclass(frozen=True)
class Layout:
    """How a tensor represents an image.

    Args:
        kind: ``nchw``, ``nhwc``; ``tokens`` is ``[N, prefix + h·w, C]``, ``tokens_first`` is
            ``[N, C, prefix + h·w]``, ``heads`` is ``[N, heads, prefix + h·w, C]``; ``regrouped``
            is any other order of the factors, such as windows (see :func:`regrouped`); ``trivial``
            does not move with the image (class scores, pooled vectors); ``unknown``.
        prefix: tokens before the grid that do not move (class token, registers).
        grid: ``(h, w)`` of the tokens.
        regrouping: the order, for ``regrouped``.

    Example:
        >>> from captum_lie import Translation
        >>> layout = Layout("tokens", prefix=1, grid=(2, 3))
        >>> print(layout)
        tokens[1+2x3]
        >>> tangent = layout.generator(Translation("x"), torch.rand(1, 7, 4))
        >>> tangent.shape, tangent[:, 0].abs().max().item()
        (torch.Size([1, 7, 4]), 0.0)
    """

    kind: Kind
    prefix: int = 0
    grid: tuple[int, int] | None = None
    regrouping: Regrouping | None = None

    def __str__(self) -> str:
        if self.grid is None:
            return self.kind
        if self.regrouping is not None:
            return f"{self.kind}[{self.grid[0]}x{self.grid[1]}: {self.regrouping}]"
        prefix = f"{self.prefix}+" if self.prefix else ""
        return f"{self.kind}[{prefix}{self.grid[0]}x{self.grid[1]}]"

    @property
    def moves(self) -> bool:
        """Whether the group acts on it at all."""
        return self.kind not in ("trivial", "unknown")

    def to_image(self, x: Tensor) -> Tensor:
        """The part that moves, as ``[N, C, h, w]``.

        Raises:
            ValueError: the layout has no spatial axes, or the tensor does not fit it.
        """
        if not self.fits(x):
            raise InvalidValueError(
                f"A tensor of shape {tuple(x.shape)} does not have the layout {self}."
            )
        if self.kind == "nchw":
            return x
        if self.kind == "nhwc":
            return x.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            return _on_grid(x[:, self.prefix :].transpose(1, 2), self._grid())
        if self.kind == "tokens_first":
            return _on_grid(x[:, :, self.prefix :], self._grid())
        if self.kind == "heads":
            return _on_grid(x[:, :, self.prefix :].transpose(2, 3).flatten(1, 2), self._grid())
        if self.regrouping is not None:
            return self.regrouping.to_image(x)
        raise InvalidValueError(f"The layout {self} has no spatial axes.")

    def from_image(self, image: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`to_image` for a tensor shaped ``like``; prefix tokens are zero."""
        if self.kind == "nhwc":
            return image.permute(0, 2, 3, 1)
        if self.kind == "tokens":
            tokens = image.flatten(2).transpose(1, 2)
            return nn.functional.pad(tokens, (0, 0, self.prefix, 0))
        if self.kind == "tokens_first":
            return nn.functional.pad(image.flatten(2), (self.prefix, 0))
        if self.kind == "heads":
            heads = image.flatten(2).unflatten(1, (like.shape[1], -1)).transpose(2, 3)
            return nn.functional.pad(heads, (0, 0, self.prefix, 0))
        if self.regrouping is not None:
            return self.regrouping.from_image(image, like)
        return image

    def generator(self, group: OneParameterGroup, x: Tensor) -> Tensor:
        """The tangent ``ξ(x)`` of a group on a tensor of this layout, shaped like ``x``.

        Raises:
            ValueError: the layout is unknown, or the tensor does not fit it.
        """
        if self.kind == "trivial":
            return torch.zeros_like(x)
        return self.from_image(group.generator(self.to_image(x)), x)

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor can have this layout."""
        if self.kind in ("nchw", "nhwc"):
            return x.ndim == 4
        if self.kind in ("tokens", "tokens_first", "heads"):
            height, width = self._grid()
            dim = 1 if self.kind == "tokens" else 2
            rank = 4 if self.kind == "heads" else 3
            return x.ndim == rank and x.shape[dim] == self.prefix + height * width
        if self.regrouping is not None:
            return self.regrouping.fits(x)
        return self.kind == "trivial"

    def examples(self, x: Tensor) -> int:
        """How many images a tensor of this layout holds."""
        return len(x) if self.regrouping is None else self.regrouping.examples(x)

    def extent(self, x: Tensor) -> tuple[int, int]:
        """``(h, w)`` of the image or grid in a tensor of this layout."""
        if self.kind in ("nchw", "nhwc"):
            first = 2 if self.kind == "nchw" else 1
            return x.shape[first], x.shape[first + 1]
        return self._grid()

    def _grid(self) -> tuple[int, int]:
        if self.grid is None:
            raise InvalidValueError(
                f"The layout {self.kind} needs a grid: Layout({self.kind!r}, grid=...)."
            )
        return self.grid


def regrouped(
    pattern: str,
    height: tuple[int, ...],
    width: tuple[int, ...],
    *,
    channels: tuple[int, ...] = (),
    shift: tuple[int, int] = (0, 0),
) -> Layout:
    """The layout of a tensor that holds the factors of an image in another order.

    Arguments and errors as for :class:`captum_lie.layouts.Regrouping`.

    Example:
        8 × 8 windows of 7 × 7 tokens, each in the place of an example:

        >>> windows = regrouped("(n y0 x0) (y1 x1) c", height=(8, 7), width=(8, 7))
        >>> windows.to_image(torch.rand(2 * 64, 49, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    regrouping = Regrouping(pattern, tuple(height), tuple(width), tuple(channels), shift)
    return Layout("regrouped", grid=regrouping.grid, regrouping=regrouping)


def _on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.reshape(*tokens.shape[:2], *grid)


NCHW = Layout("nchw")
NHWC = Layout("nhwc")
TRIVIAL = Layout("trivial")
UNKNOWN = Layout("unknown")
