"""The fluxes that one backward pass meets on its way from the output to the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.core.groups import OneParameterGroup, SpatialGroup
from captum_lie.core.pairing import Pairing, PairingQueue
from captum_lie.layerwise.pointwise import are_spatial, is_pointwise
from captum_lie.layerwise.tracing import Boundary, Call, Side


@dataclass(frozen=True)
class _Step:
    """The boundary met last, and the narrowest of those before it that have the same flux."""

    call: Call
    side: Side
    boundary: Boundary
    gradient: Tensor
    flux: Pairing
    narrowest: tuple[Boundary, Tensor]

    def is_joined_by(self, before: Boundary, gradient: Tensor) -> bool:
        """Whether this tensor is what came out of the boundary before, with the same gradient.

        So it is wherever nothing happens between two modules, or between a module and the
        container it begins or ends: half of all boundaries and more. A clone hands its gradient on
        as it is; where others join it, autograd makes their sum another tensor.
        """
        here = self.boundary
        return (
            gradient is self.gradient and here.is_next_to(before) and here.layout == before.layout
        )

    def is_left_by(self, call: Call, side: Side) -> bool:
        """Whether a call that changes no spatial flux lies between here and its input."""
        return (
            side == "input" and self.side == "output" and call is self.call and is_pointwise(call)
        )


class Walk:
    """Fluxes ``⟨g, ξ(x)⟩`` of some groups, found boundary by boundary.

    Many are the same along the way: each of these is paired once, where the tensor is smallest.

    Args:
        groups: G groups, all spatial or none.
        keep: keep the tangents at all boundaries, for many passes. Costs the memory of one more
            copy of the activations for each group.
    """

    def __init__(self, groups: Sequence[OneParameterGroup], *, keep: bool) -> None:
        self.groups = groups
        self._are_spatial = are_spatial(groups)
        self._tangents: dict[Boundary, list[Tensor]] | None = {} if keep else None
        self.begin()

    def begin(self) -> None:
        """Forget the fluxes of the pass before."""
        self._fluxes: dict[tuple[Call, Side], list[Pairing]] = {}
        self._queue = PairingQueue(self.groups)
        self._last: _Step | None = None

    def meet(self, call: Call, side: Side, boundary: Boundary, gradient: Tensor) -> None:
        """Take note of a boundary whose gradient has arrived."""
        last, narrowest = self._last, (boundary, gradient)
        if last is not None and self._continues(last, call, side, boundary, gradient):
            flux = last.flux
            if last.boundary.shape.numel() <= boundary.shape.numel():
                narrowest = last.narrowest
        else:
            self._settle()
            flux = Pairing()
        self._last = _Step(call, side, boundary, gradient, flux, narrowest)
        self._fluxes.setdefault((call, side), []).append(flux)

    def _continues(
        self, last: _Step, call: Call, side: Side, boundary: Boundary, gradient: Tensor
    ) -> bool:
        joined = last.is_joined_by(boundary, gradient)
        return joined or (self._are_spatial and last.is_left_by(call, side))

    def finish(self) -> None:
        """Compute what has not been computed on the way."""
        self._settle()
        self._queue.finish()

    def terms(self) -> Iterator[tuple[Call, float, Tensor]]:
        """Each call with the fluxes into it (sign 1) and out of it (sign -1), ``[G, N]``."""
        for (call, side), fluxes in self._fluxes.items():
            for flux in fluxes:
                yield call, 1.0 if side == "input" else -1.0, flux.value

    def _settle(self) -> None:
        """Compute the flux met last: it does not go on."""
        if self._last is None:
            return
        flux, (boundary, gradient) = self._last.flux, self._last.narrowest
        self._last = None
        layout = boundary.layout
        if self._tangents is None:
            image = layout.to_image(boundary.value)
            self._queue.put(flux, layout.to_image(gradient), image)
        else:
            n = layout.examples(gradient)
            products = [gradient * tangent for tangent in self._kept(boundary)]
            sums = [p.reshape(n, -1).sum(1, dtype=torch.float64) for p in products]
            flux.value = torch.stack(sums)

    def _kept(self, boundary: Boundary) -> list[Tensor]:
        assert self._tangents is not None
        if boundary not in self._tangents:
            x = boundary.value
            self._tangents[boundary] = [boundary.layout.generator(g, x) for g in self.groups]
        return self._tangents[boundary]


def walks_of(
    groups: Sequence[OneParameterGroup], *, keep: bool = False
) -> list[tuple[list[int], Walk]]:
    """A walk for the spatial groups and one for the others, with the places of their groups."""
    spatial = [i for i, group in enumerate(groups) if isinstance(group, SpatialGroup)]
    others = [i for i in range(len(groups)) if i not in spatial]
    return [
        (places, Walk([groups[i] for i in places], keep=keep))
        for places in (spatial, others)
        if places
    ]
