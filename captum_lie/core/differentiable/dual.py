"""A tensor with its tangents, both recorded by autograd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from captum_lie.core.differentiable.registry import rule_of
from captum_lie.core.tangents.nesting import members, replaced
from captum_lie.core.tangents.registry import NoRule

Tangents = tuple[Tensor, ...]

_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
for _name in ("CUDA", "XPU", "MPS", "PrivateUse1"):
    if _key := getattr(torch._C.DispatchKey, f"Autocast{_name}", None):
        _AUTOCAST = _AUTOCAST | torch._C.DispatchKeySet(_key)


class Run:
    """What the duals of one evaluation share.

    Attributes:
        count: T, how many tangents each dual has.
        alive: whether the evaluation still goes on.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive = True
        self._keys = (
            torch._C._dispatch_tls_local_include_set(),
            torch._C._dispatch_tls_local_exclude_set() | _AUTOCAST,
        )

    def recording(self) -> Any:
        """The dispatcher as it was where the evaluation began: autograd records operations.

        What autocast should have cast is cast by then.
        """
        return torch._C._ForceDispatchKeyGuard(*self._keys)


class Dual(Tensor):
    """A tensor and T tangents of the same shape and strides.

    To models it looks like the tensor. Views of it hold views of tensor and tangents, so that what
    is written in place reaches all of them.
    """

    primal: Tensor
    run: Run
    _tangents: Tangents | None

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, primal: Tensor, tangents: Sequence[Tensor] | None, run: Run) -> Dual:
        """A dual; tangents None are zeros that are made when they are asked for."""
        if isinstance(primal, Dual):
            raise NoRule("tensors of two evaluations meet")
        dual: Dual = cast(Any, Tensor)._make_wrapper_subclass(
            cls, primal.shape, strides=primal.stride(), dtype=primal.dtype, device=primal.device
        )
        dual.primal = primal
        dual.run = run
        dual._tangents = None if tangents is None else tuple(_alike(t, primal) for t in tangents)
        return dual

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch's has no types
        return f"Dual({self.primal}, tangents={self.run.count})"

    @property
    def still(self) -> bool:
        """Whether nothing that moves was ever written into it."""
        return self._tangents is None

    @property
    def tangents(self) -> Tangents:
        if self._tangents is None:
            x = self.primal
            self._tangents = tuple(
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).zero_()
                for _ in range(self.run.count)
            )
        return self._tangents

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own protocol, a C function there
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not all(x.run.alive for x in duals((args, kwargs))):
            # What a model kept from an earlier evaluation is a constant now.
            args, kwargs = replaced((args, kwargs), Dual, _settled)
            return func(*args, **kwargs)
        with run_of((args, kwargs)).recording():
            return rule_of(func)(*args, **kwargs)


def _alike(tangent: Tensor, primal: Tensor) -> Tensor:
    """The tangent with the dtype and the strides of its tensor: they must have the same views."""
    if tangent.stride() == primal.stride() and tangent.dtype == primal.dtype:
        return tangent
    if tangent.shape != primal.shape:
        raise NoRule(f"a tangent {tuple(tangent.shape)} of a tensor {tuple(primal.shape)}")
    alike = torch.empty_strided(
        primal.shape, primal.stride(), dtype=primal.dtype, device=primal.device
    )
    return alike.copy_(tangent)


def _settled(x: Dual) -> Tensor:
    return x if x.run.alive else x.primal


class _Plain(TorchDispatchMode):
    """Autograd records the operations on plain tensors, too."""

    def __init__(self, run: Run) -> None:
        cast(Any, super()).__init__()
        self._run = run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(t, Dual) for t in types):
            return Dual.__torch_dispatch__(func, types, args, kwargs)
        with self._run.recording():
            return func(*args, **(kwargs or {}))


@contextmanager
def below(run: Run) -> Iterator[None]:
    """Operations reach the rules from below autograd, composite ones in one piece."""
    with torch._C._AutoDispatchBelowAutograd(), _no_views(), _Plain(run):
        yield


def _no_views() -> Any:
    """Without the bookkeeping of views, which the operations that autograd records bring along."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
    return torch._C._ExcludeDispatchKeyGuard(keys)


def duals(arguments: Any) -> list[Dual]:
    """All duals among nested arguments, in order."""
    return members(arguments, Dual)


def run_of(arguments: Any) -> Run:
    """The run of the duals among nested arguments.

    Raises:
        NoRule: two runs meet, since one is part of the other; their tangents are different things.
    """
    runs = {x.run for x in duals(arguments)}
    if len(runs) != 1:
        raise NoRule("tensors of two evaluations meet" if runs else "an operation without tangents")
    return runs.pop()


def primal(arguments: Any) -> Any:
    """Nested arguments without their tangents."""
    return replaced(arguments, Dual, lambda x: x.primal)
