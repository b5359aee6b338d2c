"""What is done with an operation that has no rule of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from captum_lie.core.differentiable.dual import Dual, below, duals, primal, run_of
from captum_lie.core.differentiable.registry import resolver
from captum_lie.core.tangents.nesting import replaced
from captum_lie.core.tangents.registry import (
    NoRule,
    Operation,
    Rule,
    aten,
    functional_of,
    is_mutating,
    is_view,
    refuse,
)

# Views of bytes, rather than of elements, mean something else for each tensor.
_BY_MEMORY = {aten.as_strided.default, aten.as_strided_.default, aten.view.dtype}


@resolver
def resolve(operation: Operation) -> Rule:
    """Composite operations are taken apart, views taken of tensor and tangents alike.

    Those in place are written from their results; all others are differentiated by PyTorch's
    reverse mode.
    """
    if operation._can_decompose():
        return partial(_taken_apart, operation)
    # Others than PyTorch's own may have no derivative and not say so.
    if operation.namespace != "aten" or operation in _BY_MEMORY:
        return partial(refuse, operation)
    if is_mutating(operation):
        functional = functional_of(operation)
        return partial(refuse, operation) if functional is None else partial(in_place, functional)
    return partial(linear if is_view(operation) else by_reverse_mode, operation)


def _taken_apart(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    with below(run_of((args, kwargs))):
        result = operation.decompose(*args, **kwargs)
    return by_reverse_mode(operation, *args, **kwargs) if result is NotImplemented else result


def in_place(functional: Operation, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The result of the operation out of place, of a copy, written over the tensor."""
    if not isinstance(x, Dual):
        raise NoRule(f"{functional}: a constant tensor is overwritten with a moving one")
    with below(x.run):
        result = functional(x.clone(), *args, **kwargs)
    return write(x, result)


def write(x: Dual, value: Any) -> Dual:
    """Overwrite a tensor and its tangents in place."""
    if isinstance(value, Dual) and not value.still:
        for mine, other in zip(x.tangents, value.tangents, strict=True):
            mine.copy_(other)
    elif not x.still:
        for mine in x.tangents:
            mine.zero_()
    x.primal.copy_(primal(value))
    return x


def linear(operation: Operation, x: Any, *args: Any, **kwargs: Any) -> Any:
    """``t ↦ op(t)`` of operations that are linear in their first argument."""
    if not isinstance(x, Dual) or duals((args, kwargs)):
        return by_reverse_mode(operation, x, *args, **kwargs)
    value = operation(x.primal, *args, **kwargs)
    rows = [operation(t, *args, **kwargs) for t in x.tangents]
    if isinstance(value, Tensor):
        return Dual(value, rows, x.run)
    return type(value)(Dual(part, parts, x.run) for part, *parts in zip(value, *rows, strict=True))


def constant(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    """The operation of the tensors alone."""
    return operation(*primal(args), **primal(kwargs))


def by_reverse_mode(operation: Operation, *args: Any, **kwargs: Any) -> Any:
    """``J t = d/du ⟨Jᵀ u, t⟩``: reverse mode twice, since ``Jᵀ u`` is linear in u.

    Raises:
        NoRule: PyTorch cannot differentiate the operation twice.
    """
    moving = [x for x in duals((args, kwargs)) if not x.still]
    run = run_of((args, kwargs))
    recording = torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad
        for x in pytree.tree_leaves((primal(args), primal(kwargs), [x.tangents for x in moving]))
    )
    with torch.enable_grad():
        leaves = {id(x): _differentiable(x.primal, recording) for x in moving}
        leaf = lambda x: leaves.get(id(x), x.primal)  # noqa: E731
        outputs = operation(*replaced(args, Dual, leaf), **replaced(kwargs, Dual, leaf))
        values = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        reached = [i for i, y in enumerate(values) if isinstance(y, Tensor) and y.requires_grad]
        try:
            rows = _derivatives([values[i] for i in reached], leaves, moving, recording)
        except (RuntimeError, NotImplementedError) as error:
            raise NoRule(f"{operation} has no rule: {error}") from error
    if not recording:
        values = [y.detach() if isinstance(y, Tensor) else y for y in values]
    for i, *row in zip(reached, *rows, strict=True):
        values[i] = Dual(values[i], row, run)
    return type(outputs)(values) if isinstance(outputs, list | tuple) else values[0]


def _differentiable(x: Tensor, recording: bool) -> Tensor:
    """The tensor as a variable of its own: another argument may depend on it."""
    return x.view_as(x) if x.requires_grad and recording else x.detach().requires_grad_()


def _derivatives(
    outputs: list[Tensor], leaves: dict[int, Tensor], moving: list[Dual], recording: bool
) -> list[tuple[Tensor, ...]]:
    """For each tangent that of each output."""
    # Any would do, but some operations take its logarithm.
    cotangents = [torch.ones_like(y, requires_grad=True) for y in outputs]
    inputs = {id(x): x for x in moving}
    gradients = torch.autograd.grad(
        outputs, list(leaves.values()), cotangents, create_graph=True, materialize_grads=True
    )
    pulled = [(g, x) for g, x in zip(gradients, inputs.values(), strict=True) if g.requires_grad]
    return [
        torch.autograd.grad(
            [g for g, _ in pulled],
            cotangents,
            [x.tangents[i] for _, x in pulled],
            create_graph=recording,
            retain_graph=True,
            materialize_grads=True,
        )
        for i in range(moving[0].run.count)
    ]
