"""A convolution that waits for the operation behind it.

Batch normalisation with fixed statistics multiplies each channel of a tensor and its tangents.
Where it comes next, its factors go into the weights of the convolution, which saves a pass over the
whole stack. Any other operation finds the convolution done.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.registry import Operation, aten

#: What a convolution waits for.
SCALING: frozenset[Operation] = frozenset({aten.batch_norm.default})


class Convolution:
    """Of all rows of a stack at once, the bias to the first one alone; computed when called.

    Args:
        stack: ``[1 + T, N, C, ...]``.
        weight, bias: constants.
        options: stride and what else ``torch.convolution`` takes after the bias.
    """

    def __init__(self, stack: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> None:
        self.stack, self.weight, self.bias, self.options = stack, weight, bias, options

    def __call__(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """``w * x + b``, or ``scale (w * x + b) + shift`` with one number for each channel."""
        weight, bias = self.weight, self.bias
        if scale is not None:
            weight = weight * scale.to(weight).view(-1, *[1] * (weight.ndim - 1))
            bias = shift if bias is None or shift is None else bias * scale + shift
        out: Tensor = torch.convolution(self.stack.flatten(0, 1), weight, None, *self.options)
        out = out.unflatten(0, self.stack.shape[:2])
        if bias is not None:
            out[0].add_(bias.view(-1, *[1] * (weight.ndim - 2)))
        return out

    @property
    def can_wait(self) -> bool:
        """Whether the layout of the result is known without it, and its weights can be scaled."""
        stride, padding, dilation, transposed, *_ = self.options
        tensors = (self.stack, self.weight)
        return (
            not transposed
            and len(stride) == len(padding) == len(dilation) == self.weight.ndim - 2
            and all(
                x.is_contiguous() and x.dtype in (torch.float32, torch.float64) for x in tensors
            )
        )

    @property
    def shape(self) -> list[int]:
        """Of one row of the result, ``[N, K, ...]``."""
        stride, padding, dilation, *_ = self.options
        sides = zip(
            self.stack.shape[3:], self.weight.shape[2:], stride, padding, dilation, strict=True
        )
        moved = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides]
        return [self.stack.shape[1], len(self.weight), *moved]
