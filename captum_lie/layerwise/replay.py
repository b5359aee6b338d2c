"""Another evaluation of a model with the same calls: their boundaries are met again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie.layerwise.hooks import Leaves, hooked
from captum_lie.layerwise.tracing import Boundary, Call, Side

#: What goes on in place of a tensor that is met at a boundary.
Meet = Callable[[Call, Side, Boundary, Tensor], Tensor]


@contextmanager
def replayed(model: nn.Module, calls: Sequence[Call], meet: Meet) -> Iterator[None]:
    """Meet the boundaries of known calls in whatever evaluations of the model happen within.

    Tensors need not say which of them depend on the images (under transforms of ``torch.func`` they
    do not): the calls do. As when they were recorded, every call receives clones of its inputs.
    """
    known = {(call.name, call.index): call for call in calls}
    counts: Counter[str] = Counter()
    running: list[tuple[str, Call | None]] = []

    def enter(name: str, _module: nn.Module, arguments: Leaves) -> list[Any] | None:
        if not torch.is_grad_enabled():  # the model's own no_grad: such calls are not recorded
            return None
        call = known.get((name, counts[name]))
        counts[name] += 1
        running.append((name, call))
        if call is None:
            return None
        values = list(arguments.values)
        for boundary in call.inputs:
            values[boundary.leaf] = meet(call, "input", boundary, values[boundary.leaf].clone())
        return values

    def leave(name: str, output: Leaves) -> list[Any] | None:
        if not torch.is_grad_enabled() or all(name != other for other, _ in running):
            return None
        while (top := running.pop())[0] != name:
            pass
        call = top[1]
        if call is None:
            return None
        values = list(output.values)
        for boundary in call.outputs:
            values[boundary.leaf] = meet(call, "output", boundary, values[boundary.leaf])
        return values

    with hooked(model, enter, leave):
        yield
