"""Squared change of outputs under finite transformations of one-parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.groups import (
    Brightness,
    OneParameterGroup,
    Rotation,
    Scale,
    SpatialGroup,
    Stretch,
    Translation,
)
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.settings import Evaluation
from captum_lie.metrics.streaming import Images, Model, evaluated, squared_change
from captum_lie.results.metrics import Array


def parameter_unit(group: OneParameterGroup, height: int, width: int) -> tuple[float, str]:
    """How large one natural unit of a group is in its own parameter, and the unit's name.

    Pixels for translations, radians for rotation, the parameter itself (``"1"``) for the rest.

    Example:
        >>> parameter_unit(Translation("x"), 5, 9)
        (0.25, 'px')
    """
    if isinstance(group, Translation):
        side = width if group.axis == "x" else height
        return 2 / max(side - 1, 1), "px"
    return 1.0, "rad" if isinstance(group, Rotation) else "1"


@dataclass(frozen=True)
class GroupErrors:
    """Errors ``[N, K]`` of one group at ``t [N, K]`` in ``unit``, each ``scale`` of its own t."""

    group: OneParameterGroup
    errors: Array
    t: Array
    index: Array
    scale: float
    unit: str


def group_errors(
    model: Model,
    images: Images,
    groups: Sequence[OneParameterGroup],
    draw: Callable[[OneParameterGroup, Array], Array],
    how: Evaluation,
) -> list[GroupErrors]:
    """Squared change of the output under each group.

    Args:
        draw: ``(group, index [n]) -> t [n, K]`` in the group's natural unit.
    """
    errors: list[list[Array]] = [[] for _ in groups]
    drawn: list[list[Array]] = [[] for _ in groups]
    index: list[Array] = []
    units: list[tuple[float, str]] = []
    for block, reference in evaluated(model, images, "group-sample error", how):
        index.append(block.index)
        units = [parameter_unit(g, *block.images.shape[-2:]) for g in groups]
        for i, group in enumerate(groups):
            natural = draw(group, block.index)
            t = natural * units[i][0]

            def act(
                x: Tensor,
                example: Array,
                sample: Array,
                group: OneParameterGroup = group,
                t: Array = t,
            ) -> Tensor:
                return group.act(x, torch.from_numpy(t[example, sample]))

            def undo(
                output: Tensor, sample: int, group: OneParameterGroup = group, t: Array = t
            ) -> Tensor:
                inverse = torch.from_numpy(_inverse(group, t[:, sample]))
                return how.layout.transform(output, lambda image: group.act(image, inverse))

            change = squared_change(
                model, block, act, t.shape[1], evaluation=how, reference=reference, undo=undo
            )
            errors[i].append(change.numpy())
            drawn[i].append(natural)
    return [
        GroupErrors(
            group, np.concatenate(errors[i]), np.concatenate(drawn[i]), np.concatenate(index), *unit
        )
        for i, (group, unit) in enumerate(zip(groups, units, strict=True))
    ]


def _inverse(group: OneParameterGroup, t: Array) -> Array:
    """The parameter of the inverse transformation."""
    linear_in_t = {Stretch: 1, Brightness: 1, Scale: -1}.get(type(group), 0)
    inverse: Array = -t / (1 + linear_in_t * t)
    return inverse


def radius_of(radius: float | Mapping[str, float] | None, group: OneParameterGroup) -> float:
    default = {"px": 2.0, "rad": pi / 16, "1": 1 / 16}[parameter_unit(group, 2, 2)[1]]
    if radius is None:
        return default
    value = radius.get(group.name, default) if isinstance(radius, Mapping) else float(radius)
    if not (np.isfinite(value) and value > 0):
        raise InvalidValueError(f"radius must be positive; got {value} for {group.name}.")
    return value


def border_of(group: OneParameterGroup) -> str:
    return group.rule[1] if isinstance(group, SpatialGroup) else "none"


def interpolation_of(group: OneParameterGroup) -> str:
    return group.rule[0] if isinstance(group, SpatialGroup) else "none"
