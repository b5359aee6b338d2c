"""Functions of a model's output on which equivariance errors are taken."""

from __future__ import annotations

from torch import Tensor

from captum_lie.errors import InvalidValueError


def softmax(output: Tensor) -> Tensor:
    """Class probabilities from scores ``[N, K, ...]``, K at least 2.

    Raises:
        ValueError: there are no two classes along dimension 1.
    """
    if output.ndim < 2 or output.shape[1] < 2:
        raise InvalidValueError(
            "LEE is taken on softmax probabilities over at least two classes; the output has "
            f"shape {tuple(output.shape)}. For other outputs pass output_fn=torch.sigmoid, or "
            "output_fn=None for the plain output."
        )
    return output.softmax(1)
