"""Everything that one batch of images tells of a model, each derivative taken once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from captum_lie.attribution.control import agrees_with_forward_mode
from captum_lie.core.captum_compat import ForwardFunc
from captum_lie.core.derivative import OutputFn, OutputLayout, lie_derivatives
from captum_lie.core.gram import grams_of
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.spectral_control import Control
from captum_lie.results import LeeResult


def of_batch(
    forward_func: ForwardFunc,
    images: Tensor,
    groups: Sequence[OneParameterGroup],
    fields: Sequence[OneParameterGroup],
    known: Control | None,
    *,
    reduce: Callable[[Tensor], Tensor],
    output_fn: OutputFn | None,
    output_layout: OutputLayout,
    internal_batch_size: int | None,
) -> LeeResult:
    """LEE of each image, its control if known, and the Gram matrices of the fields, if any.

    Derivatives that came with the control serve for all, where forward mode confirms them.

    Args:
        known: the control of all groups and fields, in this order.
        reduce: norm of derivatives ``[G, N, ...]``, ``[G, N]``.
    """
    everything = [*groups, *fields]
    derivatives: Iterable[Tensor] = []
    if known is not None and known.derivative is not None:
        if agrees_with_forward_mode(forward_func, (images,), everything, known, output_fn):
            derivatives = [known.derivative]
        else:
            warnings.warn(
                "Forward and reverse mode disagree: LEE is by forward mode, its control by reverse "
                "mode. An operator's derivative is wrong, or hidden from one of them.",
                stacklevel=4,
            )
    n = len(groups)
    scores, grams = [], []
    for derivative in derivatives or lie_derivatives(
        forward_func,
        (images,),
        everything,
        output_fn=output_fn,
        output_layout=output_layout,
        internal_batch_size=internal_batch_size,
    ):
        own, along_fields = derivative.split([n, len(fields)])
        scores.append(reduce(own))
        if fields:
            grams.append(grams_of(along_fields).double().cpu())
    return LeeResult(
        tuple(g.name for g in groups),
        torch.cat(scores, dim=1).T.double().cpu(),
        None if known is None else known.mean[:, :n].cpu(),
        None if known is None else known.stderr[:, :n].cpu(),
        torch.cat(grams) if fields else None,
    )
