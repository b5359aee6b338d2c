"""Calling a module that has more to it than its forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

Work = Callable[..., Any]


def inside(model: Callable[..., Any], work: Work, *tensors: Tensor) -> Any:
    """``work(model, *tensors)``, for a distributed module within its forward pass.

    ``DistributedDataParallel`` prepares the exchange of gradients there from what its module
    returns: that must be tensors which autograd knows.
    """
    if not isinstance(model, DistributedDataParallel):
        return work(model, *tensors)
    module = model.module
    model.module = _Working(module, work)
    try:
        return model(*tensors)
    finally:
        model.module = module


class _Working(nn.Module):
    """A module in whose place some work with it is done."""

    def __init__(self, module: nn.Module, work: Work) -> None:
        super().__init__()
        self.module = module
        self._work = work

    def forward(self, *tensors: Tensor) -> Any:
        return self._work(self.module, *tensors)


def on_copied_buffers(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model, such that what it writes into its buffers (running statistics) is lost.

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm1d(2)
        >>> _ = on_copied_buffers(norm)(torch.rand(8, 2))
        >>> norm.running_mean, norm.num_batches_tracked
        (tensor([0., 0.]), tensor(0))
    """
    if not isinstance(model, nn.Module) or not any(m.training for m in model.modules()):
        return model
    copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return lambda *inputs: functional_call(model, copies, inputs)
