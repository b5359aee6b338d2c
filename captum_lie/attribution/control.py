"""The control LEE of a model: in closed form by reverse mode, or sampled by forward mode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from captum_lie.attribution.norms import Norm, mean_square
from captum_lie.core.autodiff import differentiable
from captum_lie.core.chunks import Chunk
from captum_lie.core.derivative import ModelFunction, derivatives_along, tangent_basis
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.probes import Probes
from captum_lie.core.scrambling import phase_scrambled
from captum_lie.core.spectral_control import (
    DEFAULT_PROBES,
    Control,
    NoReverseModeError,
    spectral_control,
)
from captum_lie.core.validation import check_eval_mode, check_inputs, check_internal_batch_size
from captum_lie.errors import InvalidValueError

#: Scrambled tangents of each example and group, where the closed form cannot be had.
SCRAMBLES = 8


def control(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    reduce: Norm = mean_square,
    probes: Probes = DEFAULT_PROBES,
    first_index: int = 0,
    internal_batch_size: int | None = None,
) -> Control:
    """Mean response to tangents of each group's norm and spectrum, of each example: ``[N, G]``.

    The closed form of :mod:`captum_lie.core.spectral_control`; all groups share its passes. A model
    without reverse mode is measured along sampled phases instead, and so is any norm but the mean
    square.

    Args:
        reduce: norm of derivatives.

    Raises:
        ValueError: the output moves with the images.
    """
    if function.moving is not None:
        raise InvalidValueError("Relative LEE is defined for the trivial output layout only.")
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)
    check_eval_mode(function.forward_func)
    inputs = tuple(x.detach() for x in inputs)
    basis, mixing = tangent_basis(groups)

    def exact(chunk: Chunk) -> Control:
        with differentiable():
            return spectral_control(
                function.of(chunk),
                chunk.inputs,
                tuple(torch.stack([g.generator(x) for g in basis]) for x in chunk.inputs),
                mixing,
                probes=probes,
                first_index=first_index + chunk.first,
            )

    if reduce is mean_square:
        chunks = function.in_chunks(exact, inputs, internal_batch_size=internal_batch_size)
        try:
            return _joined(list(chunks))
        except NoReverseModeError as error:
            warnings.warn(
                f"The model cannot be differentiated in reverse mode ({error}): its control is the "
                f"mean over {SCRAMBLES} sampled phases instead of over all.",
                stacklevel=3,
            )
    return _sampled(
        function,
        inputs,
        groups,
        reduce=reduce,
        seed=probes.seed,
        first_index=first_index,
        internal_batch_size=internal_batch_size,
    )


def agrees_with_forward_mode(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    known: Control,
) -> bool:
    """Whether the derivatives that came with a control, by reverse mode, are those of forward mode.

    One tangent of the first example tells: the sum of all motions at unit norm, with random
    weights. They differ where an operator's derivative is wrong, or where the model hides something
    from one of the modes.
    """
    assert known.derivative is not None
    assert known.jacobian_norm is not None
    derivative, norm = known.derivative[:, 0], known.jacobian_norm[0]  # [G, K]
    first = tuple(x[:1].detach() for x in inputs)
    motions = [torch.stack([g.generator(x) for g in groups]) for x in first]  # [G, 1, C, H, W]
    lengths = torch.stack([m.double().flatten(1).square().sum(1) for m in motions]).sum(0).sqrt()
    weights = torch.randn(len(groups), generator=torch.Generator().manual_seed(0)).to(lengths)
    weights = (weights / lengths).nan_to_num(posinf=0, neginf=0)

    def tangents(_: tuple[Tensor, ...], __: int) -> tuple[Tensor, ...]:
        return tuple(torch.tensordot(weights.to(m), m, dims=1)[None] for m in motions)

    ((_, forward),) = derivatives_along(function, first, tangents, 1)
    terms = weights[:, None] * derivative
    eps = torch.finfo(first[0].dtype).eps
    size = (weights * lengths).abs().sum() * norm  # of what was added up
    tolerance = eps**0.5 * terms.abs().sum(0).norm() + 1000 * eps * size
    return bool((forward.double().flatten() - terms.sum(0)).norm() <= tolerance)


def _sampled(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    reduce: Norm,
    seed: int,
    first_index: int,
    internal_batch_size: int | None,
) -> Control:
    """The same along a few scrambled tangents, by forward mode."""

    def scrambled(chunk: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
        scramble = partial(
            phase_scrambled, copies=SCRAMBLES, seed=seed, first_index=first_index + first
        )
        return tuple(torch.cat([scramble(g.generator(x)) for g in groups]) for x in chunk)

    parts = []
    for _, derivative in derivatives_along(
        function,
        inputs,
        scrambled,
        len(groups) * SCRAMBLES,
        internal_batch_size=internal_batch_size,
    ):
        values = reduce(derivative).double().unflatten(0, (len(groups), SCRAMBLES))
        parts.append(Control(values.mean(1).T, values.std(1).T / SCRAMBLES**0.5))
    return _joined(parts)


def _joined(parts: Sequence[Control]) -> Control:
    derivatives = [p.derivative for p in parts if p.derivative is not None]
    norms = [p.jacobian_norm for p in parts if p.jacobian_norm is not None]
    return Control(
        torch.cat([p.mean for p in parts]),
        torch.cat([p.stderr for p in parts]),
        torch.cat(derivatives, dim=1) if derivatives else None,
        torch.cat(norms) if norms else None,
    )
