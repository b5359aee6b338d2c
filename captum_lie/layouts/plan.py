"""The steps between a tensor of one shape and the image in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Factor(NamedTuple):
    """One factor of an axis: a letter of ``ncyx``, its number, and its size, None where free."""

    letter: str
    number: int
    size: int | None


class Axis(NamedTuple):
    """One axis of a tensor: its factors, the slowest first, after so many prefix tokens."""

    factors: tuple[Factor, ...]
    prefix: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How the tensors of one shape become images, and images such tensors.

    Axes are split into their factors, these put in the order of an image, and joined. A step that
    changes nothing is None: most layouts are views of an image or the image itself.

    Attributes:
        examples: how many images such a tensor holds.
        extent: ``(h, w)`` of the image.
        prefix: the axis of the prefix tokens, and how many they are.
        split: sizes of all factors, in the tensor's order.
        order: their places in the image, and back.
        sizes: their sizes in the image's order, where they are joined there.
        image: shape of the image.
        shape: of the tensor without its prefix tokens.
        shift: rows and columns by which the image was rolled.
    """

    examples: int
    extent: tuple[int, int]
    prefix: tuple[int, int] | None
    split: tuple[int, ...] | None
    order: tuple[tuple[int, ...], tuple[int, ...]] | None
    sizes: tuple[int, ...] | None
    image: tuple[int, int, int, int]
    shape: tuple[int, ...]
    shift: tuple[int, int] | None

    def to_image(self, x: Tensor) -> Tensor:
        """The image, ``[N, C, h, w]``."""
        if self.prefix is not None:
            axis, many = self.prefix
            x = x.narrow(axis, many, self.shape[axis])
        if self.split is not None:
            x = x.reshape(self.split)
        if self.order is not None:
            x = x.permute(self.order[0])
        if self.sizes is not None:
            x = x.reshape(self.image)
        if self.shift is not None:
            x = x.roll((-self.shift[0], -self.shift[1]), (-2, -1))
        return x

    def from_image(self, image: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The tensor; its prefix tokens are zero, unless given."""
        x = image if self.shift is None else image.roll(self.shift, (-2, -1))
        if self.sizes is not None:
            x = x.reshape(self.sizes)
        if self.order is not None:
            x = x.permute(self.order[1])
        if self.split is not None:
            x = x.reshape(self.shape)
        if self.prefix is None:
            return x
        axis, many = self.prefix
        if prefix is not None:
            return torch.cat([prefix, x], axis)
        return nn.functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (many, 0))

    def prefix_of(self, x: Tensor) -> Tensor | None:
        """The prefix tokens; None where there are none."""
        return None if self.prefix is None else x.narrow(self.prefix[0], 0, self.prefix[1])


def plan_of(axes: Sequence[Axis], shift: tuple[int, int], shape: Sequence[int]) -> Plan | None:
    """The plan for tensors of this shape; None where their axes are not these."""
    if len(shape) != len(axes):
        return None
    factors = [factor for axis in axes for factor in axis.factors]
    split: list[int] = []
    for length, axis in zip(shape, axes, strict=True):
        known = prod(f.size for f in axis.factors if f.size is not None)
        free, remainder = divmod(length - axis.prefix, known)
        has_free = any(f.size is None for f in axis.factors)
        if remainder or free < 0 or (free != 1 and not has_free):
            return None
        split += [free if f.size is None else f.size for f in axis.factors]
    order = sorted(range(len(factors)), key=lambda i: ("ncyx".index(factors[i][0]), factors[i][1]))
    back = sorted(range(len(order)), key=order.__getitem__)
    letters = [factors[i].letter for i in order]
    n, c, h, w = (
        prod(s for s, f in zip(split, factors, strict=True) if f.letter == letter)
        for letter in "ncyx"
    )
    prefix = next(((i, axis.prefix) for i, axis in enumerate(axes) if axis.prefix), None)
    return Plan(
        examples=n,
        extent=(h, w),
        prefix=prefix,
        split=None if all(len(axis.factors) == 1 for axis in axes) else tuple(split),
        order=None if order == sorted(order) else (tuple(order), tuple(back)),
        sizes=None if letters == list("ncyx") else tuple(split[i] for i in order),
        image=(n, c, h, w),
        shape=tuple(length - axis.prefix for length, axis in zip(shape, axes, strict=True)),
        shift=shift if any(shift) else None,
    )
