"""Memory that is reused rather than mapped and unmapped, and shared rather than copied."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from captum_lie.core.shared import Shared

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
# Mapping as glibc sets it by itself once a buffer of 32 MB was freed. A quarter of a gigabyte stays
# for the next call: the activations of an image and its tangents.
_AFTERWARDS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**28}


def _find_mallopt() -> Callable[[int, int], int] | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    function = ctypes.CDLL(None).mallopt
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    result: Callable[[int, int], int] = function
    return result


_mallopt = _find_mallopt()


def kept_buffers() -> AbstractContextManager[None]:
    """Freed memory stays with the process, however large the buffer; on leaving up to 256 MB of it.

    glibc maps every buffer over 32 MB afresh and returns the end of its heap whenever 64 MB are
    free: the kernel then clears each page again at each operation, which can take longer than the
    operation. May be nested and entered by several threads. Without glibc nothing is changed.

    Example:
        >>> with kept_buffers():
        ...     buffer = bytearray(2**26)  # from the heap
    """
    return nullcontext() if _mallopt is None else _kept


@contextmanager
def _keeping() -> Iterator[None]:
    assert _mallopt is not None
    for option, value in _KEEPING.items():
        _mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _AFTERWARDS.items():
            _mallopt(option, value)


_kept = Shared(_keeping)


def lazy_clone(x: Tensor) -> Tensor:
    """A clone that shares the memory of ``x`` until one of the two is written to.

    Differentiable like :meth:`torch.Tensor.clone`, which it is where memory cannot be shared.

    Example:
        >>> x = torch.ones(2)
        >>> y = lazy_clone(x)
        >>> _ = x.zero_()
        >>> y
        tensor([1., 1.])
    """
    try:
        return torch._lazy_clone(x)
    except (AttributeError, RuntimeError):  # PyTorch's own name may go; memory may be another's
        return x.clone()
