"""An operation without a rule, by PyTorch's own forward mode of that operation alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, Run, duals, primals, run_of
from captum_lie.core.tangents.nesting import replaced
from captum_lie.core.tangents.registry import NoRule, Operation, is_mutating, is_view

_one_at_a_time = threading.RLock()  # PyTorch has one level of forward mode for all threads


@contextmanager
def outside(run: Run) -> Iterator[None]:
    """The dispatcher as it is outside the engine: PyTorch's own transforms start from there."""
    with torch._C._ForceDispatchKeyGuard(*run.keys), torch.no_grad():
        yield


def by_forward_mode(operation: Operation, args: Any, kwargs: Any) -> Any:
    """``J_op t`` of one operation for one tangent after another.

    Raises:
        NoRule: the operation writes in place or gives views, is not PyTorch's own (others may have
            no derivative and not say so), or has no forward mode.
    """
    if is_mutating(operation) or is_view(operation) or operation.namespace != "aten":
        raise NoRule(f"{operation} has no rule")
    run = run_of((args, kwargs))
    run.fallen[str(operation)] += 1
    results: Any = None
    derivatives: list[tuple[Any, ...]] = []
    try:
        with outside(run):
            for i in range(1, run.rows):
                with _one_at_a_time, forward_ad.dual_level():
                    pair = lambda x, i=i: forward_ad.make_dual(x.stack[0], x.stack[i])  # noqa: E731
                    outputs = operation(*replaced(args, Dual, pair), **replaced(kwargs, Dual, pair))
                    several = isinstance(outputs, list | tuple)
                    parts = [_unpacked(x) for x in (outputs if several else [outputs])]
                results = [part[0] for part in parts]
                derivatives.append(tuple(part[1] for part in parts))
    except (RuntimeError, NotImplementedError) as error:
        raise NoRule(f"{operation} has no rule: {error}") from error
    stacks = [
        _joined(result, [row[k] for row in derivatives], run) for k, result in enumerate(results)
    ]
    return (
        type(outputs)(stacks)
        if type(outputs) in (list, tuple)
        else (tuple(stacks) if several else stacks[0])
    )


def _unpacked(x: Any) -> tuple[Any, Any]:
    return tuple(forward_ad.unpack_dual(x)) if isinstance(x, Tensor) else (x, None)


def _joined(result: Any, tangents: list[Any], run: Run) -> Any:
    """A dual, or the result itself where no tangent arrived: PyTorch holds it to be constant."""
    if all(tangent is None for tangent in tangents):
        return result
    zero = torch.zeros_like(result)
    return Dual(torch.stack([result, *(zero if t is None else t for t in tangents)]), run)


def by_vmap(operation: Operation, args: Any, kwargs: Any) -> Any:
    """A linear operation of all its moving arguments at once: itself, on every row of the stack."""
    run = run_of((args, kwargs))
    moving = duals((args, kwargs))

    def one(*rows: Tensor) -> Any:
        queue = iter(rows)
        own_args, own_kwargs = replaced((args, kwargs), Dual, lambda _: next(queue))
        return operation(*own_args, **own_kwargs)

    with outside(run):
        result = torch.func.vmap(one)(*(x.stack for x in moving))
    if isinstance(result, list | tuple):
        return type(result)(Dual(x, run) for x in result)
    return Dual(result, run)


def constant(operation: Operation, args: Any, kwargs: Any) -> Any:
    """The operation of the tensors alone."""
    return operation(*primals(args), **primals(kwargs))
