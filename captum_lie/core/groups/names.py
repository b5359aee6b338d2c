"""Groups by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from captum_lie.core.groups.affine import (
    HyperbolicRotation,
    Rotation,
    Scale,
    Shear,
    Stretch,
    Translation,
)
from captum_lie.core.groups.base import OneParameterGroup
from captum_lie.core.groups.brightness import Brightness
from captum_lie.core.groups.spatial import SpatialGroup
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError

#: The group of every ``attribute`` call that names none.
DEFAULT_GROUP: SpatialGroup = Translation("x")

_FACTORIES: dict[str, Callable[..., OneParameterGroup]] = {
    "translation_x": lambda **rule: Translation("x", **rule),
    "translation_y": lambda **rule: Translation("y", **rule),
    "rotation": Rotation,
    "shear_x": lambda **rule: Shear("x", **rule),
    "shear_y": lambda **rule: Shear("y", **rule),
    "stretch_x": lambda **rule: Stretch("x", **rule),
    "stretch_y": lambda **rule: Stretch("y", **rule),
    "scale": Scale,
    "hyperbolic_rotation": HyperbolicRotation,
    "brightness": lambda **_: Brightness(),
}

#: Names of all groups, in the order in which they are reported.
GROUP_NAMES: tuple[str, ...] = tuple(_FACTORIES)

GroupLike = OneParameterGroup | str
Groups = GroupLike | Sequence[GroupLike]


def get_group(
    group: GroupLike, *, interpolation: Interpolation = "bilinear", border: Border | None = None
) -> OneParameterGroup:
    """A group from its name; an instance is returned as it is (and keeps its own rule).

    Raises:
        ValueError: no group has that name.
        TypeError: neither a name nor a group.

    Example:
        >>> get_group("shear_y")
        Shear(interpolation='bilinear', border=None, axis='y')
    """
    if isinstance(group, OneParameterGroup):
        return group
    if not isinstance(group, str):
        raise InvalidTypeError(
            f"A group is an instance such as Rotation() or a name such as 'rotation'; "
            f"got {type(group).__name__}."
        )
    one_of("group", group, GROUP_NAMES)
    return _FACTORIES[group](interpolation=interpolation, border=border)


def get_groups(
    groups: GroupLike | Sequence[GroupLike],
    *,
    interpolation: Interpolation = "bilinear",
    border: Border | None = None,
) -> list[OneParameterGroup]:
    """Several groups from names or instances; ``"all"`` stands for every name.

    Raises:
        ValueError: an unknown name, or no group at all.

    Example:
        >>> [group.name for group in get_groups(["rotation", Scale()])]
        ['rotation', 'scale']
        >>> len(get_groups("all"))
        10
    """
    if groups == "all":
        groups = GROUP_NAMES
    if isinstance(groups, str | OneParameterGroup):
        groups = [groups]
    resolved = [get_group(g, interpolation=interpolation, border=border) for g in groups]
    if not resolved:
        raise InvalidValueError(f"No group given. Name at least one of {', '.join(GROUP_NAMES)}.")
    return resolved


def is_single(group: GroupLike | Sequence[GroupLike]) -> bool:
    """Whether one group is meant, by name or instance, rather than a sequence or ``"all"``."""
    return isinstance(group, str | OneParameterGroup) and group != "all"
