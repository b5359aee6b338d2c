"""Tangents carried along below autograd, while it records what happens to the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from captum_lie.core.memory import kept_buffers
from captum_lie.core.tangents import resolution, rules  # noqa: F401 (they register rules)
from captum_lie.core.tangents.custom import refused
from captum_lie.core.tangents.dual import Dual, Run
from captum_lie.core.tangents.registry import NoRule
from captum_lie.core.tangents.snapshots import saved_as_snapshots


@contextmanager
def carried(
    inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, ...]]:
    """Leaves of autograd's graph that carry T tangents each.

    One evaluation of a function on them, within the scope, gives its derivatives
    (:func:`derivatives_of`) and the graph for a backward pass, which belongs behind the scope: the
    tensors carry nothing any more there, and are constants like any others. While the function has
    a tensor it takes ``1 + T`` times its memory; what autograd saves are tensors alone.

    Args:
        inputs: where to differentiate, each ``[N, ...]``; not modified.
        tangents: for each input the directions, ``[T, N, ...]``.

    Raises:
        NoRule: an operation can be differentiated neither by a rule nor by PyTorch.

    Example:
        >>> x, xi = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0]])
        >>> with carried((x,), (xi,)) as (leaf,):
        ...     y = leaf**3
        ...     derivatives_of(y)
        tensor([[3., 0.]])
        >>> torch.autograd.grad(y, leaf, torch.ones(2))
        (tensor([ 3., 12.]),)
    """
    run = Run(len(tangents[0]))
    try:
        with refused(Dual), kept_buffers(), saved_as_snapshots():
            yield tuple(
                Dual(torch.cat([x.detach()[None], t]), run).requires_grad_()
                for x, t in zip(inputs, tangents, strict=True)
            )
    finally:
        run.alive = False


def derivatives_of(output: Tensor) -> Tensor:
    """The tangents that arrived at an output, ``[T, N, ...]``.

    Raises:
        NoRule: none can: it is no floating point tensor, or came off the path.
    """
    if not isinstance(output, Dual):
        raise NoRule("the output carries no tangents")
    return output.stack[1:].contiguous()
