"""Directions of the output along which contributions are read: L f itself, or one output."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lie.core.captum_compat import TargetType, select_targets
from captum_lie.core.groups import OneParameterGroup
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.fluxes import Recording


def aligned(
    recording: Recording,
    derivative: Tensor,
    basis: list[OneParameterGroup],
    mixing: Tensor | None,
) -> Tensor:
    """``⟨L_g f, C_i⟩`` for each call and group, ``[R, G, N]``.

    It is bilinear in the direction and in the motion: a backward pass for each basis tangent,
    paired with all of them, serves every combination.

    Args:
        derivative: Lie derivatives along the basis, in units of the result, ``[T, N, ...]``.
        mixing: the groups as combinations of the basis, ``[G, T]``; None for the basis itself.
    """
    if mixing is None:
        each = [recording.contributions(d, [b]) for b, d in zip(basis, derivative, strict=True)]
        return torch.cat(each, 1)
    total: Tensor | None = None
    for weights, direction in zip(mixing.T, derivative, strict=True):
        along = recording.contributions(direction, basis)  # [R, T, N]
        rows = mixing.to(along)
        part = weights.to(along)[:, None] * torch.einsum("gb,rbn->rgn", rows, along)
        total = part if total is None else total + part
    assert total is not None
    return total


def one_hot(output: Tensor, target: TargetType) -> Tensor:
    """The cotangent that selects a target from an output, for each example."""
    leaf = output.detach().clone().requires_grad_()
    with torch.enable_grad():
        selected = select_targets(leaf, target)
    if selected.shape[0] != len(output) or selected.numel() != len(output):
        raise InvalidValueError("The target must select one number for each example.")
    (cotangent,) = torch.autograd.grad(selected.sum(), leaf)
    return cotangent
