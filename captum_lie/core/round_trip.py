"""There by forward mode and back by reverse mode, on one evaluation of the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_lie.core import tangents as engine
from captum_lie.core.autodiff import (
    differentiable,
    pullback,
    pushforward,
    without_fallback_warnings,
)
from captum_lie.core.validation import is_out_of_memory

Tensors = tuple[Tensor, ...]


def round_trip(
    function: Callable[..., Tensor],
    inputs: Tensors,
    tangents: Tensors,
    turn: Callable[[Tensor], Tensor],
    *,
    forward_func: object = None,
) -> Tensors:
    """``Jᵀ u`` for each input, with ``u = turn(J ξ)``.

    Our rules take the tangent along below autograd, while it records the evaluation for the way
    back. What cannot be evaluated so takes two evaluations, by any mode that works.

    Args:
        function: maps the inputs to one tensor ``[N, ...]``.
        inputs: where to differentiate, each ``[N, ...]``.
        tangents: for each input one direction, shaped like it.
        turn: from the derivative to the cotangent, both shaped like the output.
        forward_func: the user's model; what works for it is remembered under this key.

    Raises:
        UnsupportedModelError: the model cannot be differentiated.

    Example:
        >>> matrix = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> x, xi = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> round_trip(lambda x: x @ matrix, (x,), (xi,), lambda d: d)  # ξ A Aᵀ
        (tensor([[5., 2.]]),)
    """
    directions = tuple(t[None] for t in tangents)
    try:
        with differentiable(), torch.enable_grad(), without_fallback_warnings():
            with engine.carried(inputs, directions) as leaves:
                output = function(*leaves)
                cotangent = turn(engine.derivatives_of(output)[0])
            found = torch.autograd.grad(output, leaves, cotangent, allow_unused=True)
        return tuple(
            torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)
        )
    except Exception as error:  # whatever is wrong, the two apart know better
        if is_out_of_memory(error):
            raise
    derivative = pushforward(function, inputs, directions, forward_func=forward_func)[0]
    return pullback(function, inputs, turn(derivative))
