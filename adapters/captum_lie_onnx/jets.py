"""A model's outputs and their Lie derivatives as one function that can be traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from captum_lie.extending.tensors import directional_derivative, pushforward, tangent_basis
from captum_lie.groups import OneParameterGroup, SpatialGroup
from captum_lie.resampling import Border, Interpolation, slope

Jet = Callable[[Tensor], tuple[Tensor, Tensor]]


def jet_of(
    model: nn.Module,
    groups: Sequence[OneParameterGroup],
    example: Tensor,
    *,
    softmax: bool,
    single: bool,
) -> Jet:
    """The function to trace: images to outputs ``[N, K]`` and derivatives.

    Args:
        example: images of the size and type that the graph will take.
        softmax: take the derivative of probabilities rather than of scores.
        single: derivatives of the only group, ``[N, K]``, instead of ``[N, G, K]``.
    """
    basis, mixing = tangent_basis(groups)
    generators = [_generator(g, example) for g in basis]
    mixing = None if mixing is None else mixing.to(example)

    def outputs(x: Tensor) -> Tensor:
        scores: Tensor = model(x)
        return scores.softmax(-1) if softmax else scores

    def jet(x: Tensor) -> tuple[Tensor, Tensor]:
        tangents = torch.stack([generator(x) for generator in generators])
        derivative = pushforward(outputs, (x,), (tangents,))
        if mixing is not None:
            derivative = torch.tensordot(mixing, derivative, dims=1)
        return outputs(x), derivative[0] if single else derivative.transpose(0, 1)

    return jet


def _generator(group: OneParameterGroup, example: Tensor) -> Callable[[Tensor], Tensor]:
    """``group.generator`` for images of one size, whose velocities become constants."""
    if not isinstance(group, SpatialGroup):
        return group.generator
    height, width = example.shape[-2:]
    velocity = {dim: v.to(example) for dim, v in group.velocity(height, width).items()}
    slopes = {dim: _slope(dim, *group.rule, example) for dim in velocity}
    return lambda x: directional_derivative(x, velocity, lambda x, dim: slopes[dim](x))


def _slope(
    dim: int, interpolation: Interpolation, border: Border, example: Tensor
) -> Callable[[Tensor], Tensor]:
    if interpolation != "fourier":
        return lambda x: slope(x, dim, interpolation, border)
    # Band-limited slopes become matrices: ONNX runtimes do without complex numbers.
    identity = torch.eye(example.shape[dim], dtype=torch.float64)
    along_rows = slope(identity, -1, interpolation, border).to(example)
    if dim == -1:
        return lambda x: x @ along_rows
    return lambda x: along_rows.T @ x
