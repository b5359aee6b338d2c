"""Attributions to the tensors at a layer's boundary, and what they must sum to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.core.captum_compat import sum_per_example
from captum_lie.core.groups import OneParameterGroup
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.visits import Crossing, Visit
from captum_lie.layouts import Layout


@dataclass(frozen=True)
class Terms:
    """Attributions to a layer's tensors, with their layouts, and their sum by the other mode."""

    attributions: tuple[Tensor, ...]
    expected: Tensor  # [N]
    layouts: tuple[Layout, ...]

    def delta(self, attributions: tuple[Tensor, ...]) -> Tensor:
        """The sums of attributions to these tensors minus what the other mode expects, ``[N]``."""
        return sum_per_example(attributions, len(self.expected)) - self.expected


def terms_of(visit: Visit, group: OneParameterGroup, *, to_input: bool, check: bool) -> Terms:
    """The terms of one call.

    Args:
        to_input: attribute to the layer's inputs, ``g ⊙ ξ(x)``, instead of to its outputs,
            ``g ⊙ (J ξ(x) - ξ(y))``.
        check: whether the sum by the other mode is wanted.

    Raises:
        ValueError: a layout that is needed is unknown.
    """
    layouts = tuple(c.layout for c in (visit.inputs if to_input else visit.outputs))
    if visit.call.idle and not to_input:  # exactly zero, whatever the layout
        zeros = tuple(torch.zeros_like(c.value) for c in visit.outputs)
        return Terms(zeros, sum_per_example(zeros, visit.n), layouts)
    entering = visit.generators("input", group)
    inflow = _weighted(visit.inputs, entering)
    if to_input and not check:
        return Terms(inflow, sum_per_example(inflow, visit.n), layouts)
    moved = visit.pushforward(entering)
    if to_input:
        return Terms(inflow, sum_per_example(_weighted(visit.outputs, moved), visit.n), layouts)
    leaving = visit.generators("output", group)
    error = [m - t for m, t in zip(moved, leaving, strict=True)]
    outflow = sum_per_example(_weighted(visit.outputs, leaving), visit.n)
    return Terms(
        _weighted(visit.outputs, error), sum_per_example(inflow, visit.n) - outflow, layouts
    )


def _weighted(crossings: list[Crossing], tangents: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(c.gradient * t for c, t in zip(crossings, tangents, strict=True))


def summed(terms: Sequence[Terms]) -> Terms:
    """The sum over all calls of a layer.

    Raises:
        ValueError: the calls' tensors differ in shape.
    """
    shapes = [[tuple(a.shape) for a in t.attributions] for t in terms]
    if any(shape != shapes[0] for shape in shapes):
        raise InvalidValueError(
            f"The layer is called {len(terms)} times, on tensors of shapes {shapes}: there is no "
            "map of one shape that sums them. Take a module around each call instead."
        )
    attributions = tuple(
        torch.stack(parts).sum(0) for parts in zip(*(t.attributions for t in terms), strict=True)
    )
    expected = torch.stack([t.expected for t in terms]).sum(0)
    return Terms(attributions, expected, terms[0].layouts)


def concatenated(parts: Sequence[Terms]) -> Terms:
    """Consecutive examples as one."""
    attributions = zip(*(part.attributions for part in parts), strict=True)
    return Terms(
        tuple(torch.cat(maps) for maps in attributions),
        torch.cat([part.expected for part in parts]),
        parts[0].layouts,
    )
