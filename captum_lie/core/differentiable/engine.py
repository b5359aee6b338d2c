"""One evaluation of a function on duals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from captum_lie.core.differentiable import rules  # noqa: F401 (registers them)
from captum_lie.core.differentiable.dual import Dual, Run, below
from captum_lie.core.tangents.custom import refused


def pushforward(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> tuple[Any, list[Any]]:
    """A function's output and ``J ξ`` for T tangents, from one evaluation that autograd records.

    Args:
        function: maps the inputs to tensors, however nested.
        inputs: where to differentiate; not modified.
        tangents: for each input the directions, ``[T, *input.shape]``.

    Returns:
        The output, and for each tangent its derivative, nested like the output.

    Raises:
        NoRule: an operation cannot be differentiated.
    """
    count = len(tangents[0])
    run = Run(count)
    try:
        with refused(Dual), below(run):
            moving = [
                Dual(x.clone(), t.unbind(), run) for x, t in zip(inputs, tangents, strict=True)
            ]
            output = function(*moving)
    finally:
        run.alive = False
    return (
        pytree.tree_map(_value, output),
        [pytree.tree_map(lambda y, i=i: _moved(y, i), output) for i in range(count)],
    )


def _value(y: Any) -> Any:
    return y.primal if isinstance(y, Dual) else y


def _moved(y: Any, i: int) -> Any:
    if isinstance(y, Dual):
        return y.tangents[i]
    return y.new_zeros(y.shape) if isinstance(y, Tensor) else y
