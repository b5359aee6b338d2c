"""LEE of each example, attributed to its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lie.core.chunks import Chunk
from captum_lie.core.derivative import ModelFunction
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.round_trip import round_trip
from captum_lie.core.validation import check_eval_mode, check_inputs, check_internal_batch_size


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
        function: its output stays put when the images move.
        signs: pull back the signs of ``L f(x)`` instead: then it sums to the mean absolute value.
    """
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)
    check_eval_mode(function.forward_func)

    def turn(derivative: Tensor) -> Tensor:
        return (derivative.sign() if signs else derivative) / derivative[0].numel()

    def work(chunk: Chunk) -> list[Tensor]:
        with torch.no_grad():
            tangents = tuple(group.generator(x) for x in chunk.inputs)
        own, model = function.of(chunk), function.forward_func
        gradients = round_trip(own, chunk.inputs, tangents, turn, forward_func=model)
        return [g * t for g, t in zip(gradients, tangents, strict=True)]

    parts = function.in_chunks(work, inputs, internal_batch_size=internal_batch_size)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
