"""Groups as a file's metadata hold them."""

from __future__ import annotations

from typing import Any

from captum_lie.errors import InvalidValueError
from captum_lie.groups import Affine, OneParameterGroup, SpatialGroup, get_group
from captum_lie.resampling import Border, Interpolation


def entry_of(group: OneParameterGroup) -> dict[str, Any]:
    """A group as JSON.

    Raises:
        ValueError: neither a named group nor a spatial one.

    Example:
        >>> entry_of(get_group("brightness"))
        {'name': 'brightness'}
        >>> group_of(entry_of(get_group("rotation", border="circular"))).rule
        ('bilinear', 'circular')
    """
    if isinstance(group, SpatialGroup):
        rule = {"interpolation": group.interpolation, "border": group.border}
        if _named(group.name, group.interpolation, group.border) == group:
            return {"name": group.name, **rule}
        label = group.label if isinstance(group, Affine) else group.name
        return {"coefficients": list(group.direction), "label": label, **rule}
    if _named(group.name) == group:
        return {"name": group.name}
    raise InvalidValueError(
        f"A file cannot hold the group {group!r}: only the named groups and spatial ones."
    )


def group_of(entry: dict[str, Any]) -> OneParameterGroup:
    """The inverse of :func:`entry_of`.

    Raises:
        TypeError, ValueError, KeyError: no such entry.
    """
    interpolation, border = entry.get("interpolation", "bilinear"), entry.get("border")
    if "coefficients" in entry:
        coefficients = tuple(entry["coefficients"])
        return Affine(coefficients, entry["label"], interpolation=interpolation, border=border)
    return get_group(entry["name"], interpolation=interpolation, border=border)


def _named(
    name: str, interpolation: Interpolation = "bilinear", border: Border | None = None
) -> OneParameterGroup | None:
    try:
        return get_group(name, interpolation=interpolation, border=border)
    except ValueError:
        return None
