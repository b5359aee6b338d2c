"""One evaluation of a function on duals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from captum_lie.core.memory import kept_buffers
from captum_lie.core.tangents import resolution, rules  # noqa: F401 (they register rules)
from captum_lie.core.tangents.custom import refused
from captum_lie.core.tangents.dual import Dual, Run
from captum_lie.core.tangents.registry import NoRule

Function = Callable[..., Tensor]


def pushforward(
    function: Function,
    inputs: tuple[Tensor, ...],
    tangents: tuple[Tensor, ...],
    chunk_size: int | None = None,
) -> Tensor:
    """``J ξ`` for T tangents from one evaluation of the function.

    Args:
        function: maps the inputs to one tensor ``[N, ...]``.
        inputs: where to differentiate, each ``[N, ...]``; not modified.
        tangents: for each input the directions, ``[T, N, ...]``.
        chunk_size: at most so many tangents an evaluation.

    Returns:
        The derivatives ``[T, N, ...]``.

    Raises:
        NoRule: an operation can be differentiated neither by a rule nor by PyTorch.

    Example:
        >>> x, xi = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> pushforward(lambda x: x**3, (x,), (xi,))
        tensor([[[ 3.,  0.]],
        <BLANKLINE>
                [[ 0., 12.]]])
    """
    size = chunk_size or len(tangents[0])
    chunks = zip(*(t.split(size) for t in tangents), strict=True)
    return torch.cat([_evaluate(function, inputs, chunk)[0] for chunk in chunks])


def fallbacks(function: Function, inputs: tuple[Tensor, ...]) -> Counter[str]:
    """How often each operation of the function is left to PyTorch's own forward mode.

    Args:
        function, inputs: as for :func:`pushforward`.

    Raises:
        NoRule: as :func:`pushforward`.

    Example:
        >>> fallbacks(lambda x: x.relu().logcumsumexp(0), (torch.rand(3),))
        Counter({'aten.logcumsumexp.default': 1})
    """
    return _evaluate(function, inputs, tuple(torch.zeros_like(x)[None] for x in inputs))[1]


def _evaluate(
    function: Function, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> tuple[Tensor, Counter[str]]:
    run = Run(len(tangents[0]))
    result = _evaluated(function, inputs, tangents, run)
    if run.masked and not bool(result.isfinite().all()):  # zero times infinity, perhaps
        run = Run(len(tangents[0]), waits=False)
        result = _evaluated(function, inputs, tangents, run)
    return result, run.fallen


def _evaluated(
    function: Function, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...], run: Run
) -> Tensor:
    # Below autograd there are fewer operations, and those have a meaning.
    with torch.no_grad(), run.below_autograd(), refused(Dual), kept_buffers():
        duals = [Dual(torch.cat([x[None], t]), run) for x, t in zip(inputs, tangents, strict=True)]
        output = function(*duals)
        if not isinstance(output, Tensor) or not output.dtype.is_floating_point:
            raise NoRule("the output is no floating point tensor")
        if not isinstance(output, Dual):
            return output.new_zeros(run.rows - 1, *output.shape)
        if output.run is not run:
            raise NoRule("the output is from another evaluation")
        return output.stack[1:].contiguous()
