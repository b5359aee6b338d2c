"""Batch normalisation with fixed statistics, evaluated as the affine map that it is."""

from __future__ import annotations

import inspect
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_lie.core import differentiable
from captum_lie.core.normalisation import fixed_statistics
from captum_lie.core.tangents import Dual


class AffineBatchNorm(TorchFunctionMode):
    """Batch normalisation with fixed statistics, evaluated as the affine map that it is.

    PyTorch's own CPU kernel (seen in 2.13 and 2.15) silently returns a wrong input gradient when
    the batch size is 1 and the incoming gradient has strides ``(C, 1, W·C, C)``, and its
    forward-mode formula costs as much as a convolution. Two pointwise operations have neither
    problem.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            bound = _BATCH_NORM.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            x, mean = given["input"], given["running_mean"]
            if not given["training"] and mean is not None and not _has_rule(x):
                scale, shift = fixed_statistics(
                    mean, given["running_var"], given["weight"], given["bias"], given["eps"]
                )
                channels = (-1, *[1] * (x.ndim - 2))
                scaled = x * scale.reshape(channels)
                return scaled.add_(shift.reshape(channels))  # in place: half the memory to write
        return func(*args, **kwargs)


def _has_rule(x: Tensor) -> bool:
    """Whether duals arrive at their own rule: not below autograd, which would take its kernel."""
    return isinstance(x, differentiable.Dual) or (isinstance(x, Dual) and not x.requires_grad)


_BATCH_NORM = inspect.signature(F.batch_norm)
