"""The graph of a Lie derivative beside exact derivatives by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_lie import lie_derivative
from captum_lie.errors import InvalidValueError
from captum_lie.extending.tensors import to_model
from captum_lie_onnx.derivative import LieDerivativeModel
from captum_lie_onnx.verification import difference

#: Outputs ``[N, K]`` and their derivatives ``[N, K]`` or ``[N, G, K]``.
Jets = tuple[Tensor, Tensor]

#: Share of the images that may lie at a kink, and by how many tolerances they may differ.
_SHARE_AT_KINKS, _JUMP = 0.25, 100


def check_derivative(
    graph: LieDerivativeModel, model: nn.Module, parts: Sequence[Tensor], tolerance: float
) -> None:
    """Compare a graph with exact derivatives.

    Where a unit lies at a kink (a ReLU at zero), rounding decides on which side, here or there:
    the derivative of that image then differs by a jump. It may on one image in four, by no more
    than a hundred times the tolerance; a graph that is wrong is wrong on all.

    Args:
        parts: batches of images.
        tolerance: relative to the largest output or derivative.

    Raises:
        ValueError: they differ by more.
    """
    given, expected = [], []
    for images in parts:
        given.append(graph(images))
        expected.append(_exact(graph, model, to_model(model, images)))
        for one, other in zip(given[-1], expected[-1], strict=True):
            difference(one, other)  # their shapes
    check_alike(_joined(given), _joined(expected), tolerance)


def _exact(graph: LieDerivativeModel, model: nn.Module, images: Tensor) -> Jets:
    """What the graph should give, on the CPU."""

    def outputs(x: Tensor) -> Tensor:
        return graph.output_fn(model(x))

    with torch.no_grad():
        expected = outputs(images).cpu()
    exact = lie_derivative(outputs, images, graph.groups).cpu()
    return expected, exact[0] if graph.single else exact.transpose(0, 1)


def _joined(parts: Sequence[Jets]) -> Jets:
    outputs, derivatives = (torch.cat(column) for column in zip(*parts, strict=True))
    return outputs, derivatives


def check_alike(given: Jets, expected: Jets, tolerance: float) -> None:
    """Raise unless outputs and derivatives agree, see :func:`check_derivative`."""
    outputs = float(expected[0].double().abs().max())
    for what, values, exact, share in (
        ("outputs", given[0], expected[0], 0.0),
        ("Lie derivative", given[1], expected[1], _SHARE_AT_KINKS),
    ):
        largest = float(exact.double().abs().max())
        # A derivative that vanishes is known to the rounding of the outputs.
        most = tolerance * max(largest, 1e-3 * outputs)
        apart = (values.double() - exact.double()).abs().flatten(1).amax(1)
        apart = apart.nan_to_num(nan=torch.inf).sort().values
        jumps = int(share * len(apart))
        typical, worst = float(apart[len(apart) - 1 - jumps]), float(apart[-1])
        if typical > most or worst > (_JUMP * most if jumps else most):
            raise InvalidValueError(
                f"The exported graph's {what} differ by {worst:.3g} from the model's, more than "
                f"{tolerance:g} of the largest, {largest:.3g}. Nothing was written."
            )
