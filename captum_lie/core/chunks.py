"""How many examples and tangents to carry at once, where nobody says so.

On a CPU small chunks are the *faster* ones: what does not fit the memory that the process keeps
(:mod:`captum_lie.core.memory`) is mapped and cleared anew at every operation, which can cost more
than the arithmetic. On a GPU a chunk should fill the free memory, and is halved where that was too
much. Results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from captum_lie.core.autodiff import differentiable
from captum_lie.core.captum_compat import ForwardFunc, TargetType, take
from captum_lie.core.validation import is_out_of_memory

#: Largest tensor that a chunk should make on a CPU, in bytes. The tangents of one example go
#: together up to four times that: a part of them costs another evaluation of the model.
CPU_BYTES, TOGETHER = 60 * 2**20, 4
#: Share of a GPU's free memory to use, and how many tensors of the largest size live at a time.
GPU_SHARE, GPU_COPIES = 0.5, 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Chunk:
    """Consecutive examples, with their arguments and targets.

    ``first`` is the index of the first one; ``tangents`` is how many to carry at once, None for
    all.
    """

    inputs: tuple[Tensor, ...]
    args: tuple[object, ...] | None
    target: TargetType
    first: int
    tangents: int | None


def in_chunks(
    work: Callable[[Chunk], Result],
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    args: object = None,
    target: TargetType = None,
    *,
    internal_batch_size: int | None = None,
    n_tangents: int = 1,
) -> Iterator[Result]:
    """Results of some work on consecutive examples.

    Args:
        work: done on each chunk; runs again on half of it where memory runs out.
        forward_func: the model; one example is run to see how large its activations are, once.
        internal_batch_size: at most so many examples × tangents at a time; None chooses.
        n_tangents: that the work carries for each example.
    """
    total = len(inputs[0])
    size, tangents = total, None
    rows = None
    if internal_batch_size is None and total * n_tangents > 1:
        rows = _rows_at_once(forward_func, inputs, args)
    if internal_batch_size is not None:
        size = min(total, max(1, internal_batch_size // n_tangents))
        tangents = internal_batch_size if internal_batch_size < n_tangents else None
    elif rows is not None:
        carried = 1 + n_tangents  # the example itself goes along
        size = min(total, max(1, rows // carried))
        parts = -(-carried // (TOGETHER * rows))
        tangents = -(-n_tangents // parts) if parts > 1 else None
    first = 0
    while first < total:
        examples, arguments, chosen = take(inputs, args, target, first, min(first + size, total))
        try:
            result = work(Chunk(examples, arguments, chosen, first, tangents))
        except RuntimeError as error:
            smallest = size == 1 and (tangents or n_tangents) == 1
            if smallest or internal_batch_size is not None or not is_out_of_memory(error):
                raise
        else:
            yield result
            first += size
            continue
        # Outside of the handler, which holds the failed attempt's tensors.
        if size > 1:
            size //= 2
        else:
            tangents = (tangents or n_tangents) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _rows_at_once(
    forward_func: ForwardFunc, inputs: tuple[Tensor, ...], args: object
) -> int | None:
    """Examples × tangents that fit; None where that cannot be told."""
    device = inputs[0].device
    if device.type not in ("cpu", "cuda"):
        return None
    key = (device, *((x.shape[1:], x.dtype) for x in inputs))
    known = _recall(forward_func)
    if key not in known:
        one, arguments, _ = take(inputs, args, None, 0, 1)
        try:
            known[key] = largest_activation(forward_func, one, arguments or ())
        except Exception:  # it may not take one example alone; it says what is wrong when it runs
            return None
    largest = max(1, known[key])
    if device.type == "cpu":
        return max(1, CPU_BYTES // largest)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, int(free * GPU_SHARE) // (GPU_COPIES * largest))


def largest_activation(
    function: Callable[..., object], inputs: tuple[Tensor, ...], args: tuple[object, ...] = ()
) -> int:
    """Bytes of the largest tensor that a function makes.

    Example:
        >>> widen = torch.nn.Conv2d(3, 64, 1)
        >>> largest_activation(widen, (torch.rand(1, 3, 8, 8),)) == 64 * 8 * 8 * 4
        True
    """
    watch = _Largest()
    with differentiable(), torch.no_grad(), watch:
        function(*inputs, *args)
    return watch.bytes


class _Largest(TorchDispatchMode):
    """Notes the largest tensor made, views of what was there before not counted."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {_place(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for x in pytree.tree_leaves(result):
            if isinstance(x, Tensor) and _place(x) not in known:
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


_known: WeakKeyDictionary[Any, dict[Any, int]] = WeakKeyDictionary()


def _recall(forward_func: object) -> dict[Any, int]:
    """What is known of a model; nothing of one that cannot be remembered."""
    with suppress(TypeError):  # not hashable or not weakly referable
        return _known.setdefault(forward_func, {})
    return {}
