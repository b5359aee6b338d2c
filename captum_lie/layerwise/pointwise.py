"""Modules that mix the channels of each pixel alone, and so commute with every motion of pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from captum_lie.core.groups import OneParameterGroup, SpatialGroup
from captum_lie.layerwise.tracing import Call
from captum_lie.layouts import NCHW, Layout


def is_pointwise(call: Call) -> bool:
    """Whether a call is an affine map of each pixel's channels: ``f(x)(p) = W x(p) + b``.

    A spatial generator is linear and takes constants to zero, so ``J ξ(x) = W ξ(x) = ξ(f(x))``: the
    contribution is zero exactly, and the flux behind the module is that in front of it. To be asked
    once the call has ended. Said of PyTorch's own classes alone, as long as nothing of the user's
    (a subclass, a hook, a forward method of its own) may add to what they do.
    """
    module = call.module
    if len(call.inputs) != 1 or len(call.outputs) != 1 or not _is_plain(module):
        return False
    layout = call.inputs[0].layout
    if not layout.moves or layout != call.outputs[0].layout:
        return False
    if type(module) is nn.Linear:
        return _ends_in_channels(layout)
    if type(module) is nn.Conv2d:
        within_pixels = (module.kernel_size, module.stride) == ((1, 1), (1, 1))
        return layout == NCHW and within_pixels and module.padding in ((0, 0), "valid", "same")
    # With fixed statistics:
    fixed = isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    return type(module) is nn.BatchNorm2d and layout == NCHW and fixed and not module.training


def are_spatial(groups: Sequence[OneParameterGroup]) -> bool:
    """Whether all groups move pixels: to others, a constant is not always still."""
    return all(isinstance(group, SpatialGroup) for group in groups)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module runs its class's forward method and no hooks but the evaluation's two."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return "forward" not in vars(module) and all(len(each) <= 1 for each in hooks)


def _ends_in_channels(layout: Layout) -> bool:
    """Whether the last axis of such tensors holds channels and nothing else."""
    if layout.pattern is None:
        return False
    return all(factor.startswith("c") for factor in layout.pattern.on_axis(-1).split())
