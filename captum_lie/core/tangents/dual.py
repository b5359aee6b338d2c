"""A tensor with its tangents."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from captum_lie.core.tangents.nesting import members, replaced
from captum_lie.core.tangents.registry import NoRule, Operation, is_mutating, rule_of

if TYPE_CHECKING:
    from typing_extensions import Self


class Run:
    """What the duals of one evaluation share.

    Attributes:
        rows: 1 + T, the length of every stack.
        fallen: how often each operation was left to PyTorch's own forward mode.
        alive: whether the evaluation still goes on.
        waits: whether normalisations may wait for what comes next (:mod:`.waiting`).
        masked: whether tangents were multiplied by zeros that stand for "whatever it is, none".
        exposed: whether there are tensors that share memory with duals, and are none.
        keys: the dispatcher's keys where it began, or where the evaluation began that it is part
            of.
    """

    def __init__(self, tangents: int, *, waits: bool = True) -> None:
        self.rows = 1 + tangents
        self.fallen: Counter[str] = Counter()
        self.alive = True
        self.waits = waits
        self.masked = False
        self.exposed = False
        enclosing = _running.run
        self.keys: Any = enclosing.keys if enclosing is not None else _keys()

    @contextmanager
    def below_autograd(self) -> Iterator[None]:
        """The scope of the evaluation, in which composite operations arrive whole."""
        enclosing, _running.run = _running.run, self
        try:
            with torch._C._AutoDispatchBelowAutograd():
                yield
        finally:
            _running.run = enclosing
            self.alive = False


class _Running(threading.local):
    run: Run | None = None


_running = _Running()


def _keys() -> tuple[Any, Any]:
    return torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()


class Dual(Tensor):
    """A tensor ``[...]`` and T tangents of it, in one stack ``[1 + T, ...]``, the tensor first.

    To models it looks like the tensor: same shape, strides, dtype and device. Views of it view the
    stack, so that what is written in place reaches tensor and tangents alike.
    """

    run: Run
    #: A snapshot of the tensor and the version that it is of (:mod:`.snapshots`).
    kept: tuple[int, Tensor] | None = None
    _stack: Tensor

    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, stack: Tensor, run: Run) -> Self:
        if isinstance(stack, Dual) or len(stack) != run.rows:
            raise NoRule("a stack of another evaluation")
        dual: Self = cast(Any, Tensor)._make_wrapper_subclass(
            cls,
            stack.shape[1:],
            strides=stack.stride()[1:],
            dtype=stack.dtype,
            device=stack.device,
        )
        dual._stack = stack
        dual.run = run
        return dual

    @property
    def stack(self) -> Tensor:
        """Tensor and tangents, ``[1 + T, ...]``; whoever asks for it may write to it."""
        return self._stack

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """What needs memory that a dual has not, or makes a tensor that shares it unseen."""
        raise NoRule("a moving tensor is copied or handed on as it lies in memory")

    __copy__ = share_memory_ = __dlpack__ = _refuse

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch's has no types
        return f"Dual({self.stack[0]}, tangents={len(self.stack) - 1})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own protocol, a C function there
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _met(args) == "ended":
            args, kwargs = replaced((args, kwargs or {}), Dual, _settled)
            return func(*args, **kwargs)
        apply = rule_of(func)
        result = apply(*args, **kwargs) if kwargs else apply(*args)
        if args and result is args[0] and isinstance(result, Dual) and not is_mutating(func):
            return Dual(result.stack[:], result.run)  # autograd takes results for new tensors
        return result


def _met(args: Any, run: Run | None = None) -> Run | Literal["ended"] | None:
    """The one run of the duals among the arguments; whether one of them is from one that ended.

    Raises:
        NoRule: two runs meet, since one is part of the other; their tangents are different things.
    """
    for x in args:
        if isinstance(x, Dual):
            if not x.run.alive:
                return "ended"
            if run is not None and x.run is not run:
                raise NoRule("tensors of two evaluations meet")
            run = x.run
        elif type(x) is list:
            joint = _met(x, run)
            if joint == "ended":
                return joint
            run = joint
    return run


def _settled(x: Dual) -> Tensor:
    """What a model kept from an earlier evaluation is a constant now."""
    return x if x.run.alive else x.stack[0]


def primal(x: Any) -> Any:
    """The tensor without its tangents; anything else as it is."""
    return x.stack[0] if isinstance(x, Dual) else x


def primals(arguments: Any) -> Any:
    """:func:`primal` of everything in nested lists, tuples and dictionaries."""
    return replaced(arguments, Dual, primal)


def run_of(arguments: Any) -> Run:
    """The run of the first dual among nested arguments."""
    for dual in duals(arguments):
        return dual.run
    raise NoRule("an operation was given no tangents")


def duals(arguments: Any) -> list[Dual]:
    """All duals among nested arguments, in order."""
    return members(arguments, Dual)


def axis(dim: int, x: Tensor) -> int:
    """An axis of the tensor as an axis of its stack."""
    if x.ndim == 0:
        raise NoRule("an axis of a tensor without axes")
    return dim + 1 if dim >= 0 else dim


def axes(dims: Sequence[int] | int, x: Tensor) -> list[int]:
    return [axis(dim, x) for dim in ([dims] if isinstance(dims, int) else dims)]


def aligned(x: Dual, ndim: int, dtype: torch.dtype | None = None) -> Tensor:
    """The stack, such that it broadcasts against tensors of ``ndim`` axes as the tensor does."""
    stack = x.stack
    if x.ndim < ndim:
        stack = stack.reshape(len(stack), *[1] * (ndim - x.ndim), *x.shape)
    return stack if dtype is None or stack.dtype == dtype else stack.to(dtype)


def lifted(x: Tensor, run: Run, dtype: torch.dtype | None = None) -> Tensor:
    """The stack of a tensor; of a constant the one with tangents of zero."""
    if isinstance(x, Dual):
        return x.stack if dtype is None else x.stack.to(dtype)
    stack = x.new_zeros((run.rows, *x.shape), dtype=dtype)
    stack[0] = x
    return stack


def common_dtype(*tensors: Any) -> torch.dtype:
    """The dtype that an elementwise operation of the tensors (or numbers) computes in."""
    dtypes = {x.dtype for x in tensors if isinstance(x, Tensor)}
    if len(dtypes) == 1 and all(isinstance(x, Tensor) for x in tensors):
        return dtypes.pop()
    first, second = tensors
    return torch.result_type(primal(first), primal(second))


def check_in_place(operation: Operation, x: Dual, value: Tensor) -> None:
    """Raise :class:`NoRule` unless a result fits where it is to be written."""
    if value.shape != x.shape:
        raise NoRule(f"{operation} in place changes the shape")


def write(x: Dual, value: Tensor) -> Dual:
    """Overwrite a tensor and its tangents in place."""
    if isinstance(value, Dual):
        x.stack.copy_(aligned(value, x.ndim))
    else:
        x.stack[0].copy_(value)
        x.stack[1:].zero_()
    return x
