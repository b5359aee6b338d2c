"""Random operations: one draw for the tensor and its tangents."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.differentiable.dual import Dual, below
from captum_lie.core.differentiable.registry import RULES, rule
from captum_lie.core.tangents.registry import Operation, aten


@rule(aten.dropout.default)
def dropout(x: Dual, p: float, train: bool) -> Tensor:
    """In evaluation mode the tensor itself; in training mode ``t ↦ mask ∘ t``."""
    if not train or p == 0:
        return x
    mask = torch.empty_like(x.primal).bernoulli_(1 - p)
    if p < 1:
        mask.div_(1 - p)
    with below(x.run):
        return x * mask


def _fill(operation: Operation, x: Dual, *args: Any, **kwargs: Any) -> Dual:
    """What is drawn into a tensor does not move."""
    operation(x.primal, *args, **kwargs)
    if not x.still:
        for t in x.tangents:
            t.zero_()
    return x


for _operation in (aten.uniform_.default, aten.normal_.default, aten.bernoulli_.float):
    RULES[_operation] = partial(_fill, _operation)
