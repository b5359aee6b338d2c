"""Functions that bring their own derivative, which the engine must not see through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint
from torch.autograd import Function

from captum_lie.core.tangents.registry import NoRule

#: Checkpoints pass their inputs through it, in some versions of PyTorch; it has no derivative.
_SAVES_INPUTS = getattr(torch.utils.checkpoint, "_NoopSaveInputs", None)

_lock = threading.Lock()
_depth = 0
_original: Any = None


@contextmanager
def refused(kind: type) -> Iterator[None]:
    """``torch.autograd.Function.apply`` raises :class:`NoRule` for arguments of this class.

    What such a function declares as its derivative is what the model is differentiated by,
    whatever its forward pass does. Calls with other arguments, from other threads say, go on as
    ever.
    """
    global _depth, _original
    with _lock:
        if _depth == 0:
            _original = original = Function.__dict__["apply"]

            def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
                given = (*args, *kwargs.values())
                if cls is not _SAVES_INPUTS and any(isinstance(x, kind) for x in given):
                    raise NoRule(f"{cls.__name__} has a derivative of its own")
                return original.__get__(None, cls)(*args, **kwargs)

            Function.apply = classmethod(apply)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                Function.apply = _original
                _original = None
