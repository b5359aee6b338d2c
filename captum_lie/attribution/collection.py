"""LEE of a data set, image by image: each batch's derivatives are taken once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from captum_lie.attribution.control import agrees_with_forward_mode, control
from captum_lie.attribution.norms import Norm
from captum_lie.core.derivative import ModelFunction, lie_derivatives
from captum_lie.core.gram import grams_of
from captum_lie.core.groups import (
    DEFAULT_GROUP,
    OneParameterGroup,
    SpatialGroup,
    basis_fields,
)
from captum_lie.core.loaders import over_batches
from captum_lie.core.probes import Probes
from captum_lie.core.spectral_control import Control
from captum_lie.results import LeeResult


class CollectionOptions(TypedDict, total=False):
    """Keywords of :class:`Collection`."""

    relative: bool
    n_probes: int
    seed: int
    first_index: int
    internal_batch_size: int | None
    show_progress: bool
    description: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """How LEE is collected over a data set.

    Attributes:
        relative: also measure the control.
        n_probes, seed: of the control.
        first_index: position of the first image, for a part of a larger set.
        internal_batch_size: at most so many examples × tangents at a time; None chooses.
        show_progress: show a progress bar, labelled ``description``.
    """

    relative: bool = True
    n_probes: int = 8
    seed: int = 0
    first_index: int = 0
    internal_batch_size: int | None = None
    show_progress: bool = False
    description: str = "LEE"

    @property
    def probes(self) -> Probes:
        return Probes(self.n_probes, seed=self.seed)


def fields_beside(groups: Sequence[OneParameterGroup]) -> list[OneParameterGroup]:
    """The six fields of aff(2) under the rule of the first spatial group."""
    spatial = next((g for g in groups if isinstance(g, SpatialGroup)), DEFAULT_GROUP)
    interpolation, border = spatial.rule
    return basis_fields(interpolation=interpolation, border=border)


def collect(
    function: ModelFunction,
    loader: Iterable[Any],
    groups: Sequence[OneParameterGroup],
    fields: Sequence[OneParameterGroup],
    *,
    reduce: Norm,
    how: Collection,
) -> LeeResult:
    """LEE of each image of a data set, its control, and the Gram matrices of the fields, if any.

    Args:
        loader: yields images ``[N, C, H, W]``, or tuples whose first member they are.
        reduce: norm of derivatives.
    """
    probes = how.probes
    parts = []
    batches = over_batches(
        function.forward_func, loader, how.description, show_progress=how.show_progress
    )
    with closing(batches):  # also where a model fails: what is said next is a line of its own
        for first, images, _ in batches:
            known = None
            if how.relative:
                known = control(
                    function,
                    (images,),
                    [*groups, *fields],
                    reduce=reduce,
                    probes=probes,
                    first_index=how.first_index + first,
                    internal_batch_size=how.internal_batch_size,
                )
            size = how.internal_batch_size
            parts.append(
                of_batch(
                    function, images, groups, fields, known, reduce=reduce, internal_batch_size=size
                )
            )
    return LeeResult.concatenate(parts)


def of_batch(
    function: ModelFunction,
    images: Tensor,
    groups: Sequence[OneParameterGroup],
    fields: Sequence[OneParameterGroup],
    known: Control | None,
    *,
    reduce: Norm,
    internal_batch_size: int | None,
) -> LeeResult:
    """LEE of each image, its control if known, and the Gram matrices of the fields, if any.

    Derivatives that came with the control serve for all, where forward mode confirms them.

    Args:
        known: the control of all groups and fields, in this order.
        reduce: norm of derivatives.
    """
    everything = [*groups, *fields]
    derivatives: Iterable[Tensor] = []
    if known is not None and known.derivative is not None:
        if agrees_with_forward_mode(function, (images,), everything, known):
            derivatives = [known.derivative]
        else:
            warnings.warn(
                "Forward and reverse mode disagree: LEE is by forward mode, its control by reverse "
                "mode. An operator's derivative is wrong, or hidden from one of them.",
                stacklevel=5,
            )
    n = len(groups)
    scores, grams = [], []
    for derivative in derivatives or lie_derivatives(
        function, (images,), everything, internal_batch_size=internal_batch_size
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
