"""LEE, Gram matrix and pixel attributions of one model."""

from __future__ import annotations

from typing import Any

from captum_lie import (
    BASIS,
    GROUP_NAMES,
    Affine,
    LieDerivative,
    LocalEquivarianceError,
    get_groups,
    lie_derivative,
    principal_directions,
)
from tests.numbers.families import Families, Family, column, digest, named
from tests.numbers.subjects import Subject

#: Rules of resampling beside the default.
RULES: dict[str, dict[str, Any]] = {
    "circular": {"border": "circular"},
    "central": {"interpolation": "central"},
    "fourier": {"interpolation": "fourier"},
}


def lee(subject: Subject, **options: Any) -> Families:
    """Over a data set of two batches, with its control; all groups.

    Args:
        options: of ``LocalEquivarianceError``.
    """
    method = LocalEquivarianceError(subject.model, **options)
    first, rest = subject.images[:1], subject.images[1:]
    table = method.evaluate([first, rest], seed=3).set_index("group")
    names = ("lee", "stderr", "relative_lee", "relative_stderr")
    return {name: column(table, name) for name in names}


def scores(subject: Subject) -> Families:
    """Without a control, by forward mode: all groups under every rule."""
    method = LocalEquivarianceError(subject.model)
    some_direction = Affine((0.3, -0.2, 0.1, 0.5, -0.7, 0.2))
    found = {"some direction": digest(method.score(subject.images, some_direction), 2)}
    for name, rule in {"default": {}, **RULES}.items():
        groups = get_groups("all", **rule)
        found[name] = named(GROUP_NAMES, method.score(subject.images, groups).mean(0))
    return found


def gram(subject: Subject) -> Families:
    """The Gram matrix over aff(2) and its eigenvalues."""
    found = LocalEquivarianceError(subject.model).gram(subject.images)
    pairs = [(a, b) for a in range(len(BASIS)) for b in range(a + 1)]
    eigenvalues = principal_directions(found).eigenvalues
    return {
        "gram": {f"{BASIS[a]}, {BASIS[b]}": found[a, b].item() for a, b in pairs},
        "eigenvalues": named(map(str, range(len(BASIS))), eigenvalues),
    }


def attributions(subject: Subject) -> Families:
    """To the pixels: of LEE, and of the Lie derivative of each image's own class."""
    by_lee = LocalEquivarianceError(subject.model)
    by_class = LieDerivative(subject.model)
    found: dict[str, Family] = {}
    for group in ("translation_y", "rotation", "brightness"):
        found[f"lee, {group}"] = digest(by_lee.attribute(subject.images, group=group))
        attribution = by_class.attribute(subject.images, target=subject.labels, group=group)
        found[f"class, {group}"] = digest(attribution)
    derivative = lie_derivative(subject.model, subject.images, ["rotation", "scale"])
    return {**found, "lie_derivative": digest(derivative)}
