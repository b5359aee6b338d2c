"""Batch normalisations that wait for what comes next, which can often do their work in passing.

A convolution's result is of no use to a model but for its normalisation, and that is mostly
followed by an activation or a sum: done together, and in the memory of the first, they take half
the time. Only what no other tensor shares memory with may wait, and not beyond that.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual


def _references(holder: object, name: str) -> int:
    return sys.getrefcount(getattr(holder, name))


#: Of an object that is the value of one attribute and nothing else, in this version of Python.
_ONE = _references(SimpleNamespace(only=object()), "only")


class Unseen(Dual):
    """A new result: until somebody asks for its stack, no other tensor shares its memory."""

    _seen = False
    _follower: ReferenceType[Scaled] | None = None

    @property
    def stack(self) -> Tensor:
        """Whoever waited for this is waited for: from now on its memory may be written to."""
        if not self._seen:
            self._seen = True
            if self.follower is not None:
                self.follower.settle()
            if not self.is_alone:  # something that Python had given up holds it nevertheless
                self._stack = self._stack.clone()
        return self._stack

    @property
    def follower(self) -> Scaled | None:
        """What waits to be computed from this."""
        follower = None if self._follower is None else self._follower()
        return follower if follower is not None and follower.waits else None

    @property
    def is_alone(self) -> bool:
        """Whether nothing else has the stack."""
        return _references(self, "_stack") == _ONE


class Scaled(Dual):
    """``s x + b`` with a factor and a summand for each channel, not computed yet.

    Attributes:
        waits: whether that is still so. If it is:
        source: the stack of x.
        scale: s, broadcastable against x.
        shift: b, likewise.
    """

    waits: bool
    source: Tensor
    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(x: Unseen, scale: Tensor, shift: Tensor) -> Scaled:
        result = Scaled(x._stack, x.run)
        del result._stack
        result.source, result.scale, result.shift = x._stack, scale, shift
        result.waits = True
        x._follower = ref(result)
        return result

    @property
    def stack(self) -> Tensor:
        if self.waits:
            self.settle()
        return self._stack

    def value(self) -> Tensor:
        """``s x + b`` of the tensor alone."""
        return torch.mul(self.source[0], self.scale).add_(self.shift)

    def room(self) -> Tensor:
        """Memory for the result: that of x where nothing has x any more."""
        alone = _references(self, "source") == _ONE
        return self.source if alone else torch.empty_like(self.source)

    def settle(self, stack: Tensor | None = None) -> None:
        """End of waiting, with a stack or with that of ``s x + b``."""
        if stack is None:
            stack = self.room()
            torch.mul(self.source, self.scale, out=stack)
            stack[0].add_(self.shift)
        self._stack, self.waits = stack, False
        del self.source, self.scale, self.shift


def scaled(x: Dual, scale: Tensor, shift: Tensor) -> Dual:
    """``s x + b``, later if that may be."""
    if x.run.waits and isinstance(x, Unseen) and not x._seen and x.follower is None and x.is_alone:
        return Scaled.of(x, scale, shift)
    out = x.stack * scale
    out[0].add_(shift)
    return Dual(out, x.run)


def unscaled(x: Dual) -> tuple[Tensor, Tensor, Tensor | None]:
    """A tensor, and tangents and a factor whose product its tangents are; None for a factor of 1.

    Shapes: ``[...]``, ``[T, ...]``, broadcastable against ``[...]``.
    """
    if isinstance(x, Scaled) and x.waits:
        return x.value(), x.source[1:], x.scale
    return x.stack[0], x.stack[1:], None


def memory_for(x: Dual, in_place: bool) -> Tensor:
    """Memory for a stack like that of x: of its own, or for a result in place that one's."""
    if isinstance(x, Scaled) and x.waits:
        return x.room() if in_place else torch.empty_like(x.source)
    return x.stack if in_place else torch.empty_like(x.stack)


def overwritten(x: Dual, stack: Tensor) -> Dual:
    """A tensor that an operation in place replaced, in :func:`memory_for` that."""
    if isinstance(x, Scaled) and x.waits:
        x.settle(stack)
    return x


def added(x: Tensor, other: Tensor, in_place: bool = False) -> Dual | None:
    """``x + y`` in one pass with the scaling of x, where x waits and y is as large."""
    if not isinstance(x, Scaled) or not isinstance(other, Dual):
        return None
    summand = other.stack  # x may be scaled now, if it depends on the other
    if not x.waits or summand.shape != x.source.shape or summand.dtype != x.dtype:
        return None
    out = memory_for(x, in_place)
    torch.addcmul(summand, x.source, x.scale, out=out)
    out[0].add_(x.shift)
    return overwritten(x, out) if in_place else Dual(out, x.run)
