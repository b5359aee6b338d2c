"""The control LEE of a model: in closed form by reverse mode, or sampled by forward mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_lie.core.autodiff import differentiable
from captum_lie.core.captum_compat import ForwardFunc
from captum_lie.core.chunks import Chunk, in_chunks
from captum_lie.core.derivative import OutputFn, bind, derivatives_along, tangent_basis
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.scrambling import phase_scrambled
from captum_lie.core.spectral_control import Control, NoReverseModeError, spectral_control
from captum_lie.core.validation import check_eval_mode, check_inputs, check_internal_batch_size

#: Scrambled tangents of each example and group, where the closed form cannot be had.
SCRAMBLES = 8


def control(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    output_fn: OutputFn | None,
    reduce: Callable[[Tensor], Tensor] | None = None,
    args: object = None,
    n_probes: int = 8,
    seed: int = 0,
    first_index: int = 0,
    internal_batch_size: int | None = None,
) -> Control:
    """Mean response to tangents of each group's norm and spectrum, of each example: ``[N, G]``.

    The closed form of :mod:`captum_lie.core.spectral_control`; all groups share its passes. A model
    without reverse mode is measured along sampled phases instead, and so is any norm but the mean
    square.

    Args:
        reduce: norm of derivatives ``[T, N, ...]``, ``[T, N]``; None for the mean square.
    """
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)
    check_eval_mode(forward_func)
    inputs = tuple(x.detach() for x in inputs)
    basis, mixing = tangent_basis(groups)

    def exact(chunk: Chunk) -> Control:
        with differentiable():
            return spectral_control(
                bind(forward_func, output_fn, chunk.target, chunk.args),
                chunk.inputs,
                tuple(torch.stack([g.generator(x) for g in basis]) for x in chunk.inputs),
                mixing,
                n_probes=n_probes,
                seed=seed,
                first_index=first_index + chunk.first,
            )

    if reduce is None:
        try:
            return _joined(
                list(
                    in_chunks(
                        exact, forward_func, inputs, args, internal_batch_size=internal_batch_size
                    )
                )
            )
        except NoReverseModeError as error:
            warnings.warn(
                f"The model cannot be differentiated in reverse mode ({error}): its control is the "
                f"mean over {SCRAMBLES} sampled phases instead of over all.",
                stacklevel=3,
            )
    return _sampled(
        forward_func,
        inputs,
        groups,
        output_fn=output_fn,
        reduce=reduce or mean_square,
        args=args,
        seed=seed,
        first_index=first_index,
        internal_batch_size=internal_batch_size,
    )


def agrees_with_forward_mode(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    known: Control,
    output_fn: OutputFn | None,
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

    ((_, _, forward),) = derivatives_along(forward_func, first, tangents, 1, output_fn=output_fn)
    terms = weights[:, None] * derivative
    eps = torch.finfo(first[0].dtype).eps
    size = (weights * lengths).abs().sum() * norm  # of what was added up
    tolerance = eps**0.5 * terms.abs().sum(0).norm() + 1000 * eps * size
    return bool((forward.double().flatten() - terms.sum(0)).norm() <= tolerance)


def _sampled(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    output_fn: OutputFn | None,
    reduce: Callable[[Tensor], Tensor],
    args: object,
    seed: int,
    first_index: int,
    internal_batch_size: int | None,
) -> Control:
    """The same along a few scrambled tangents, by forward mode."""

    def scrambled(chunk: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
        return tuple(
            torch.cat(
                [
                    phase_scrambled(
                        g.generator(x), SCRAMBLES, seed=seed, first_index=first_index + first
                    )
                    for g in groups
                ]
            )
            for x in chunk
        )

    parts = []
    for _, _, derivative in derivatives_along(
        forward_func,
        inputs,
        scrambled,
        len(groups) * SCRAMBLES,
        output_fn=output_fn,
        args=args,
        internal_batch_size=internal_batch_size,
    ):
        values = reduce(derivative).double().unflatten(0, (len(groups), SCRAMBLES))
        parts.append(Control(values.mean(1).T, values.std(1).T / SCRAMBLES**0.5))
    return _joined(parts)


def mean_square(derivative: Tensor) -> Tensor:
    """Mean square over the outputs of derivatives ``[T, N, ...]``: ``[T, N]`` (Eq. 4)."""
    return derivative.square().reshape(*derivative.shape[:2], -1).mean(2)


def _joined(parts: Sequence[Control]) -> Control:
    derivatives = [p.derivative for p in parts if p.derivative is not None]
    norms = [p.jacobian_norm for p in parts if p.jacobian_norm is not None]
    return Control(
        torch.cat([p.mean for p in parts]),
        torch.cat([p.stderr for p in parts]),
        torch.cat(derivatives, dim=1) if derivatives else None,
        torch.cat(norms) if norms else None,
    )
