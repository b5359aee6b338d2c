"""Functions that bring their own derivative, which the engines must not see through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.utils.checkpoint
from torch.autograd import Function

from captum_lie.core.shared import Shared
from captum_lie.core.tangents.registry import NoRule

#: Checkpoints pass their inputs through it, in some versions of PyTorch; it has no derivative.
_SAVES_INPUTS = getattr(torch.utils.checkpoint, "_NoopSaveInputs", None)

#: The classes that are refused now, each as often as there are scopes that refuse it.
_refused: list[type] = []


@contextmanager
def refused(kind: type) -> Iterator[None]:
    """``torch.autograd.Function.apply`` raises :class:`NoRule` for arguments of this class.

    What such a function declares as its derivative is what the model is differentiated by,
    whatever its forward pass does. Calls with other arguments, from other threads say, go on as
    ever. Nor may PyTorch's forward mode begin below autograd, which would go unseen there.
    """
    with _watched:
        _refused.append(kind)
        try:
            yield
        finally:
            _refused.remove(kind)


@contextmanager
def _watching() -> Iterator[None]:
    original, enter = Function.__dict__["apply"], vars(forward_ad)["enter_dual_level"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        given, kinds = (*args, *kwargs.values()), tuple(_refused)
        if cls is not _SAVES_INPUTS and any(isinstance(x, kinds) for x in given):
            raise NoRule(f"{cls.__name__} has a derivative of its own")
        return original.__get__(None, cls)(*args, **kwargs)

    def enter_dual_level() -> Any:
        if _is_below_autograd():
            raise NoRule(
                "the function uses PyTorch's forward mode itself, which has no effect here"
            )
        return enter()

    Function.apply = classmethod(apply)
    forward_ad.enter_dual_level = enter_dual_level
    try:
        yield
    finally:
        Function.apply, forward_ad.enter_dual_level = original, enter


def _is_below_autograd() -> bool:
    """Transforms of ``torch.func`` bring autograd's level with them, wherever they begin."""
    excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return bool(excluded(torch._C.DispatchKey.AutogradFunctionality)) and not transformed


_watched = Shared(_watching)
