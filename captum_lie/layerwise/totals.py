"""Totals of several groups by forward mode, at the price of one tangent.

A decomposition by reverse mode is checked against forward mode, which costs one tangent for each
group. Where there are several groups, one tangent checks them all: the sum of their motions with
random weights. Only where it disagrees is every group followed alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_lie.core.derivative import ModelFunction, derivatives_along, lie_derivatives
from captum_lie.core.groups import OneParameterGroup

#: Disagreement taken for rounding, in units of the machine precision and of the terms' sizes.
ROUNDING = 1000.0


def totals(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    sums: Tensor,
    sizes: Tensor,
) -> Tensor:
    """Lie derivatives of one output by forward mode.

    Args:
        function: gives one number for each example.
        sums: the same by reverse mode, ``[G, N]``.
        sizes: sums of the absolute values of its terms, ``[G, N]``: what rounding is relative to.

    Returns:
        ``[G, N]`` in double precision. For one group, and for all where the modes disagree, its own
        derivative. Otherwise ``sums`` and the gap along the weighted sum of all motions, each
        taken at unit norm, scaled back to each group's norm.
    """
    if len(groups) > 1:
        gap = _joint_gap(function, inputs, groups, sums)
        if (gap.abs() <= ROUNDING * torch.finfo(inputs[0].dtype).eps * sizes).all():
            return sums + gap
    chunks = lie_derivatives(function, inputs, groups)
    return torch.cat(list(chunks), 1).double().reshape(len(groups), -1)


def _joint_gap(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    sums: Tensor,
) -> Tensor:
    """Forward minus reverse mode along all motions together, scaled to each of them: ``[G, N]``."""
    motions = [torch.stack([g.generator(x) for g in groups]) for x in inputs]  # [G, N, C, H, W]
    squares = torch.stack([m.double().flatten(2).square().sum(2) for m in motions])
    norms = squares.sum(0).sqrt()
    weights = torch.randn(len(groups), 1, generator=torch.Generator().manual_seed(0)).to(norms)
    weights = (weights / weights.norm() / norms).nan_to_num(posinf=0, neginf=0)

    def tangents(xs: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
        rows = slice(first, first + len(xs[0]))
        return tuple(
            torch.einsum("gn,gnchw->nchw", weights[:, rows].to(m), m[:, rows])[None]
            for m in motions
        )

    chunks = derivatives_along(function, inputs, tangents, 1)
    derivative = torch.cat([d for _, d in chunks], 1)
    gap: Tensor = (derivative.double().flatten() - (weights * sums).sum(0)) * norms
    return gap
