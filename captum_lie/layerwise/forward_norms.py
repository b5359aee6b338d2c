"""The vectors ``C_i`` of all module calls by forward mode: one tangent for each call and group.

A tangent ``ξ(x_i)`` starts at the copy of the input that module call i alone receives, and
``-ξ(x_{i+1})`` joins it at the module's output: what arrives at the model's output is ``C_i``
(Gruver et al., arXiv 2210.02984, Eq. 6). In formulas, a parameter ε is added for each call and
group, ``x_i + ε ξ(x_i)`` on entering and ``x_{i+1} - ε ξ(x_{i+1})`` on leaving, and the model is
differentiated by ε at zero. Several tangents ride on one evaluation, which starts to carry them
only at the first call that they belong to: half of the network on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from captum_lie.core.autodiff import without_fallback_warnings
from captum_lie.core.derivative import tangent_basis
from captum_lie.core.groups import OneParameterGroup
from captum_lie.layerwise.fluxes import Recording
from captum_lie.layerwise.pointwise import are_spatial, is_pointwise
from captum_lie.layerwise.replay import Meet, replayed
from captum_lie.layerwise.tracing import Boundary, Call, Side

#: Tangents × examples in flight, as far as there are so many, and the bounds on the tangents.
IN_FLIGHT, FEWEST, MOST = 64, 4, 16


def n_tangents(calls: Sequence[Call], groups: Sequence[OneParameterGroup]) -> int:
    """How many tangents :func:`contribution_vectors` has to push through the model."""
    basis, _ = tangent_basis(groups)
    return sum(_starts(call, basis) for call in calls) * len(basis)


def contribution_vectors(recording: Recording, groups: Sequence[OneParameterGroup]) -> Tensor:
    """``C_i`` of each call, by forward mode.

    Args:
        recording: the model, evaluated; its context must be open.
        groups: G groups; spatial ones are combinations of at most six tangents.

    Returns:
        ``[R, G, N, K]`` in double precision, R calls and K outputs; NaN where a boundary's layout
        is unknown.

    Raises:
        RuntimeError: an operator of the model lacks forward mode, or ``vmap``.
    """
    basis, mixing = tangent_basis(groups)
    output = recording.output.detach().flatten(1)
    n = len(output)
    vectors = torch.zeros(
        len(recording.calls), len(basis), *output.shape, dtype=torch.float64, device=output.device
    )
    starting = []
    for i, call in enumerate(recording.calls):
        if _starts(call, basis):
            starting.append(i)
        elif not call.resolved:
            vectors[i] = torch.nan
    at_once = max(1, min(MOST, max(FEWEST, IN_FLIGHT // n)) // len(basis))
    for first in range(0, len(starting), at_once):
        chosen = starting[first : first + at_once]
        calls = [recording.calls[i] for i in chosen]
        vectors[chosen] = _pushed(recording, calls, basis).double().flatten(3)
    if mixing is not None:
        vectors = torch.einsum("gb,rbnk->rgnk", mixing.to(vectors.device), vectors)
    return vectors


def _starts(call: Call, groups: Sequence[OneParameterGroup]) -> bool:
    """Whether a tangent starts at a call: its contribution can be told and is not plainly zero."""
    moves = any(boundary.layout.moves for boundary in call.inputs + call.outputs)
    if not call.resolved or call.idle or not moves:
        return False
    return not (are_spatial(groups) and is_pointwise(call))


def _pushed(
    recording: Recording, calls: Sequence[Call], groups: Sequence[OneParameterGroup]
) -> Tensor:
    """``C_i`` of some calls from one evaluation, ``[len(calls), G, N, ...]``."""
    zero = recording.inputs[0].new_zeros(len(calls), len(groups))
    everything = recording.evaluation.calls

    def function(epsilon: Tensor) -> Tensor:
        # In-place operations may only write to tensors of vmap's own kind: make the images such,
        # without a tangent.
        none = forward_ad.unpack_dual(epsilon).primal.sum()
        images = tuple(x + none.to(x.dtype) for x in recording.inputs)
        epsilons = dict(zip(calls, epsilon, strict=True))
        with replayed(recording.model, everything, _displacing(epsilons, groups)):
            return recording.function(*images)

    def along(direction: Tensor) -> Tensor:
        derivative: Tensor = torch.func.jvp(function, (zero,), (direction,))[1]
        return derivative

    directions = torch.eye(zero.numel()).to(zero).view(-1, *zero.shape)
    with without_fallback_warnings(), recording.evaluation.aside():
        derivatives: Tensor = torch.func.vmap(along, randomness="same")(directions)
    unflattened: Tensor = derivatives.detach().unflatten(0, zero.shape)
    return unflattened


def _displacing(epsilons: Mapping[Call, Tensor], groups: Sequence[OneParameterGroup]) -> Meet:
    """Adds ``ε ξ(x)`` to the inputs of the given calls and takes it off their outputs."""

    def meet(call: Call, side: Side, boundary: Boundary, x: Tensor) -> Tensor:
        if call not in epsilons or not boundary.layout.moves:
            return x
        here = forward_ad.unpack_dual(x).primal  # ξ need not be differentiated: times zero
        signed = epsilons[call] if side == "input" else -epsilons[call]
        for e, group in zip(signed.to(x.dtype), groups, strict=True):
            x = x + e * boundary.layout.generator(group, here)
        return x

    return meet
