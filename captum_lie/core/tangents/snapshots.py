"""What is kept of duals for a backward pass: the tensors alone, as they were.

Tensor and tangents share a stack, and whoever keeps the one keeps the other. A backward pass needs
no tangents: with copies of the tensors in their place a stack lives for as long as the model itself
needs it, and what is held at the end of an evaluation is what it would be without tangents.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from captum_lie.core.tangents.dual import Dual


def snapshot(x: Tensor) -> Tensor:
    """The tensor of a dual as it is now, in memory of its own; any other tensor itself.

    Snapshots of one tensor, and of views of it, share their memory, unless it was overwritten in
    between. They are not to be written to.
    """
    if not isinstance(x, Dual):
        return x
    if x.run.exposed:  # whether it was overwritten cannot be told
        return x.stack[0].clone()
    version = x._version
    if x.kept is None or x.kept[0] != version:
        base = x._base
        part = None if base is None else _part(base, x)
        x.kept = version, x.stack[0].clone() if part is None else part
    return x.kept[1]


def _part(base: Tensor, view: Dual) -> Tensor | None:
    """A view's snapshot as a view of its base's, if it is one in memory as well."""
    if not isinstance(base, Dual) or not _share_memory(base.stack, view.stack):
        return None
    whole = snapshot(base)
    if whole.stride() != base.stack.stride()[1:]:
        return None
    offset = view.stack.storage_offset() - base.stack.storage_offset()
    return whole.as_strided(view.shape, view.stack.stride()[1:], whole.storage_offset() + offset)


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return bool(a.untyped_storage()._cdata == b.untyped_storage()._cdata) and a.dtype == b.dtype


def hand_on(x: Tensor, clone: Tensor) -> None:
    """A clone has the snapshot of what it was made from."""
    if isinstance(x, Dual) and isinstance(clone, Dual) and not x.run.exposed:
        clone.kept = clone._version, snapshot(x)


def saved_as_snapshots() -> AbstractContextManager[Any]:
    """Autograd saves snapshots of duals, and minds of all others that they are as they were."""
    return saved_tensors_hooks(_pack, _unpack)


def _pack(x: Tensor) -> tuple[Tensor, int]:
    with torch.no_grad():
        saved = snapshot(x).detach()
    return saved, saved._version


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    saved, version = packed
    if saved._version != version:
        raise RuntimeError(
            "A tensor that is needed for the backward pass was modified by an in-place operation: "
            f"it is at version {saved._version}, but was saved at {version}."
        )
    return saved
