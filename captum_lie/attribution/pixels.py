"""LEE of each example, attributed to its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lie.core.autodiff import pullback
from captum_lie.core.chunks import Chunk
from captum_lie.core.derivative import ModelFunction, lie_derivatives
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.validation import check_inputs, check_internal_batch_size


def lee_of_pixels(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    group: OneParameterGroup,
    *,
    signs: bool = False,
    internal_batch_size: int | None = None,
) -> tuple[Tensor, ...]:
    """``(Jᵀ L f(x)) ⊙ ξ(x) / dim`` for each input: sums to the mean square of ``L f(x)``.

    Args:
        signs: pull back the signs of ``L f(x)`` instead: then it sums to the mean absolute value.
    """
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)

    def work(chunk: Chunk) -> list[Tensor]:
        own = function.of(chunk)
        derivative = torch.cat(list(lie_derivatives(own, chunk.inputs, [group])), 1)[0]
        direction = derivative.sign() if signs else derivative
        gradients = pullback(own, chunk.inputs, direction / direction[0].numel())
        with torch.no_grad():
            return [g * group.generator(x) for g, x in zip(gradients, chunk.inputs, strict=True)]

    parts = function.in_chunks(work, inputs, internal_batch_size=internal_batch_size)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
