"""Tensors that hold an image in another order: windows, patches of tokens, rows in the batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError


@dataclass(frozen=True)
class Regrouping:
    """A bijection between images ``[N, C, H, W]`` and tensors with their factors in another order.

    Args:
        pattern: the tensor's axes, separated by spaces; one that holds several factors is in
            parentheses, the slowest first. Factors are ``n`` (examples; slowest of the first axis),
            ``c`` or ``c0 c1 …`` (channels), ``y0 y1 …`` and ``x0 x1 …`` (height and width).
        height, width: sizes of ``y0 y1 …`` and of ``x0 x1 …``; the first counts the largest steps.
        channels: sizes of ``c0 c1 …``, needed for those that share an axis with others than ``y``
            and ``x``.
        shift: rows and columns by which the image was rolled (:func:`torch.roll`) before.

    Raises:
        ValueError: the pattern and the sizes do not describe a regrouping.

    Example:
        An image of 4 × 6 pixels in windows of 2 × 3:

        >>> windows = Regrouping("(n y0 x0) (y1 x1) c", height=(2, 2), width=(2, 3))
        >>> x = torch.arange(24).view(1, 1, 4, 6)
        >>> windows.from_image(x, torch.empty(4, 6, 1))[0, :, 0]
        tensor([0, 1, 2, 6, 7, 8])
    """

    pattern: str
    height: tuple[int, ...]
    width: tuple[int, ...]
    channels: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        names = [name for axis in self._axes for name in axis]
        known = self._known
        strange = [name for name in names if not re.fullmatch(r"n|c\d*|[yx]\d+", name)]
        if strange or len(set(names)) < len(names) or names[:1] != ["n"]:
            problem = "its factors must be n, which comes first, c…, y… and x…, each once"
        elif {name for name in names if name[0] in "yx"} != {n for n in known if n[0] in "yx"}:
            problem = "every y needs a height, every x a width, and no others"
        elif not set(known) <= set(names):
            problem = "it has fewer channel factors than sizes"
        elif any(sum(name not in known for name in axis) > 1 for axis in self._axes):
            problem = "an axis with several n and c needs the sizes of the c"
        else:
            return
        raise InvalidValueError(f"{self.pattern!r} with sizes {known} is no regrouping: {problem}.")

    def __str__(self) -> str:
        rolled = f" rolled {self.shift[0]:+d} {self.shift[1]:+d}" if any(self.shift) else ""
        return self.pattern + rolled

    @cached_property
    def _axes(self) -> list[list[str]]:
        tokens = re.findall(r"\(([^()]*)\)|(\S+)", self.pattern)
        return [(several or single).split() for several, single in tokens]

    @cached_property
    def _known(self) -> dict[str, int]:
        sizes = {"y": self.height, "x": self.width, "c": self.channels}
        return {f"{letter}{i}": s for letter, each in sizes.items() for i, s in enumerate(each)}

    @property
    def grid(self) -> tuple[int, int]:
        """``(H, W)`` of the image."""
        return prod(self.height), prod(self.width)

    @property
    def on_last_axis(self) -> str:
        """The factors of the last axis."""
        return " ".join(self._axes[-1])

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor's shape is so."""
        return self._full_sizes(x.shape) is not None

    def examples(self, x: Tensor) -> int:
        """How many images a tensor holds."""
        return self._sizes_of(x)["n"]

    def to_image(self, x: Tensor) -> Tensor:
        """The image, ``[N, C, H, W]``."""
        sizes = self._sizes_of(x)
        names = list(sizes)
        order = self._image_order(names)
        image = x.reshape(list(sizes.values())).permute([names.index(name) for name in order])
        image = image.reshape(sizes["n"], -1, *self.grid)
        back = (-self.shift[0], -self.shift[1])
        return image.roll(back, (-2, -1)) if any(back) else image

    def from_image(self, image: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`to_image` for a tensor shaped ``like``."""
        sizes = self._sizes_of(like)
        names = list(sizes)
        order = self._image_order(names)
        if any(self.shift):
            image = image.roll(self.shift, (-2, -1))
        full = image.reshape([sizes[name] for name in order])
        return full.permute([order.index(name) for name in names]).reshape(like.shape)

    @staticmethod
    def _image_order(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: ("ncyx".index(name[0]), int(name[1:] or 0)))

    def _sizes_of(self, x: Tensor) -> dict[str, int]:
        sizes = self._full_sizes(x.shape)
        if sizes is None:
            raise InvalidValueError(
                f"A tensor of shape {tuple(x.shape)} is not {self.pattern!r} with sizes "
                f"{self._known}."
            )
        return sizes

    def _full_sizes(self, shape: torch.Size) -> dict[str, int] | None:
        """Sizes of all factors in the tensor's order; None where the shape is another."""
        if len(shape) != len(self._axes):
            return None
        known = self._known
        sizes: dict[str, int] = {}
        for length, axis in zip(shape, self._axes, strict=True):
            rest = prod(known[name] for name in axis if name in known)
            if length % rest or (length != rest and all(name in known for name in axis)):
                return None
            sizes |= {name: known.get(name, length // rest) for name in axis}
        return sizes
