"""The layout of a tensor, and how a group acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lie.groups import OneParameterGroup

#: What the axes of a tensor mean; see :class:`Layout`.
Kind = Literal["nchw", "nhwc", "tokens", "tokens_first", "heads", "trivial", "unknown"]


@dataclass(frozen=True)
class Layout:
    """How a tensor represents an image.

    Args:
        kind: ``nchw``, ``nhwc``; ``tokens`` is ``[N, prefix + h·w, C]``, ``tokens_first`` is
            ``[N, C, prefix + h·w]``, ``heads`` is ``[N, heads, prefix + h·w, C]``; ``trivial``
            does not move with the image (class scores, pooled vectors); ``unknown``.
        prefix: tokens before the grid that do not move (class token, registers).
        grid: ``(h, w)`` of the tokens.

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

    def __str__(self) -> str:
        if self.grid is None:
            return self.kind
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
            raise ValueError(f"A tensor of shape {tuple(x.shape)} does not have the layout {self}.")
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
        raise ValueError(f"The layout {self} has no spatial axes.")

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
        return self.kind == "trivial"

    def _grid(self) -> tuple[int, int]:
        if self.grid is None:
            raise ValueError(
                f"The layout {self.kind} needs a grid: Layout({self.kind!r}, grid=...)."
            )
        return self.grid


def _on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.reshape(*tokens.shape[:2], *grid)


NCHW = Layout("nchw")
NHWC = Layout("nhwc")
TRIVIAL = Layout("trivial")
UNKNOWN = Layout("unknown")
