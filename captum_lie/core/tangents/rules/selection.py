"""Elements chosen by constant indices, or by the tensor's own order."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, axis
from captum_lie.core.tangents.registry import RULES, Operation, aten, rule


@rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(x: Dual, indices: list[Tensor | None]) -> Dual:
    """``t ↦ t[indices]``."""
    out = aten.index.Tensor(x.stack, [None, *indices])
    given = [i for i, chosen in enumerate(indices) if chosen is not None]
    if given[-1] - given[0] >= len(given):
        # Indices with a gap between them put their axes first, before that of the stack.
        out = out.movedim(out.ndim - (x.ndim - _covered(indices)) - 1, 0)
    return Dual(out, x.run)


def _covered(indices: list[Tensor | None]) -> int:
    """How many axes the indices replace: as many as a mask has, else one each."""
    return sum(
        1 if chosen.dtype not in (torch.bool, torch.uint8) else chosen.ndim
        for chosen in indices
        if chosen is not None
    )


def _ordered(operation: Operation, x: Dual, *args: Any, **kwargs: Any) -> Any:
    """Results ``(values, indices)`` along an axis: ``t ↦ t[indices]``."""
    values, indices = operation(x.stack[0], *args, **kwargs)
    names = [a.name for a in operation._schema.arguments[1:]]
    given = dict(zip(names, args, strict=False)) | kwargs
    defaults = {a.name: a.default_value for a in operation._schema.arguments}
    dim = given.get("dim", defaults["dim"])
    keepdim = given.get("keepdim", False) if "keepdim" in names else True
    along = axis(dim, x)
    chosen = indices if keepdim else indices.unsqueeze(dim)
    picked = x.stack[1:].gather(along, chosen.expand(len(x.stack) - 1, *chosen.shape))
    picked = picked if keepdim else picked.squeeze(along)
    return Dual(torch.cat([values[None], picked]), x.run), indices


for _operation in (
    aten.max.dim,
    aten.min.dim,
    aten.median.dim,
    aten.nanmedian.dim,
    aten.mode.default,
    aten.kthvalue.default,
    aten.topk.default,
    aten.sort.default,
    aten.sort.stable,
    aten.cummax.default,
    aten.cummin.default,
):
    RULES[_operation] = partial(_ordered, _operation)
