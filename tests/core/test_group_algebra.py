"""Laws of the generators: linear in image and field, derivations, and closed under commutators.

Over drawn directions, sizes and rules; the laws of finite motions are in ``test_group_laws.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_lie import BASIS, Affine, Brightness, SpatialGroup, Translation, get_group
from tests.core.group_cases import (
    SMOOTH,
    directions,
    equal,
    frequencies,
    many,
    names,
    noise,
    polynomials,
    positions,
    rules,
    seeds,
    sizes,
    small,
    wave,
)

Size = tuple[int, int]

#: ``[v·∇, w·∇] = (v·∇w - w·∇v)·∇`` of the fields v and w on a square image, worked out by hand.
BRACKETS: list[tuple[str, str, dict[str, float]]] = [
    ("translation_x", "translation_y", {}),
    ("rotation", "translation_x", {"translation_y": 1}),
    ("rotation", "translation_y", {"translation_x": -1}),
    ("scale", "translation_x", {"translation_x": 1}),
    ("scale", "translation_y", {"translation_y": 1}),
    ("scale", "rotation", {}),
    ("scale", "hyperbolic_rotation", {}),
    ("stretch_x", "stretch_y", {}),
    ("shear_x", "translation_x", {}),
    ("shear_x", "translation_y", {"translation_x": -1}),
    ("shear_y", "translation_x", {"translation_y": -1}),
    ("shear_x", "shear_y", {"stretch_y": 1, "stretch_x": -1}),
    ("stretch_x", "shear_x", {"shear_x": -1}),
    ("stretch_y", "shear_x", {"shear_x": 1}),
    ("hyperbolic_rotation", "rotation", {"stretch_x": 2, "stretch_y": -2}),
    ("hyperbolic_rotation", "translation_x", {"translation_y": -1}),
]


def bracket(first: SpatialGroup, second: SpatialGroup, x: Tensor) -> Tensor:
    """``[ξ_1, ξ_2](x)`` at the pixels where two slopes in a row read no border."""
    found = first.generator(second.generator(x)) - second.generator(first.generator(x))
    return found[..., 2:-2, 2:-2]


def central(name: str) -> SpatialGroup:
    """Under the rule whose slope of a quadratic image is its derivative."""
    group = get_group(name, interpolation="central")
    assert isinstance(group, SpatialGroup)
    return group


@pytest.mark.parametrize(("first", "second", "expected"), BRACKETS)
@given(side=st.integers(6, 10), seed=seeds)
@many
def test_commutators(
    first: str, second: str, expected: dict[str, float], side: int, seed: int
) -> None:
    x = polynomials((side, side), seed)
    total = torch.zeros_like(x)
    for name, coefficient in expected.items():
        total += coefficient * central(name).generator(x)
    equal(bracket(central(first), central(second), x), total[..., 2:-2, 2:-2])


@given(first=directions, second=directions, size=sizes(6, 10), seed=seeds)
@many
def test_the_algebra_is_closed(first: Any, second: Any, size: Size, seed: int) -> None:
    """On any aspect ratio: ``v(p) = V p`` in homogeneous pixels, and the bracket is ``WV - VW``."""
    half_y, half_x = ((side - 1) / 2 for side in size)

    def matrix(c: Any) -> Tensor:
        rows = [[c[2], c[3], c[0] * half_x], [c[4], c[5], c[1] * half_y], [0, 0, 0]]
        return torch.tensor(rows, dtype=torch.float64)

    v, w = matrix(first), matrix(second)
    (xx, yx, dx), (xy, yy, dy), _ = (w @ v - v @ w).tolist()
    x = polynomials(size, seed)
    closed = Affine((dx / half_x, dy / half_y, xx, yx, xy, yy), interpolation="central")
    one, other = (Affine(c, interpolation="central") for c in (first, second))
    equal(bracket(one, other, x), closed.generator(x)[..., 2:-2, 2:-2])


@given(rule=rules, name=names, size=sizes(1, 9), seed=seeds, t=small)
@many
def test_translations_commute_with_each_other_and_brightness_with_all(
    rule: Any, name: str, size: Size, seed: int, t: float
) -> None:
    """At every pixel, whatever the border."""
    x, along_x, along_y = noise(size, seed), Translation("x", **rule), Translation("y", **rule)
    equal(along_x.generator(along_y.generator(x)), along_y.generator(along_x.generator(x)))
    equal(along_x.act(along_y.act(x, 0.4), t), along_y.act(along_x.act(x, t), 0.4))
    group = get_group(name, **rule)
    assert torch.equal(group.generator(Brightness().generator(x)), group.generator(x))


@given(rule=rules, name=names, size=sizes(1, 9), seed=seeds, a=small, b=small)
@many
def test_generators_are_linear_in_the_image(
    rule: Any, name: str, size: Size, seed: int, a: float, b: float
) -> None:
    x, y = noise(size, seed), noise(size, seed + 1)
    generator = get_group(name, **rule).generator
    equal(generator(a * x + b * y), a * generator(x) + b * generator(y))


@given(rule=rules, direction=directions, size=sizes(1, 9), seed=seeds)
@many
def test_generators_are_linear_in_the_field(
    rule: Any, direction: Any, size: Size, seed: int
) -> None:
    """Of every direction the combination of the basis fields, under every rule."""
    x = noise(size, seed)
    unit = torch.eye(len(BASIS)).tolist()
    total = sum(c * Affine(u, **rule).generator(x) for c, u in zip(direction, unit, strict=True))
    equal(Affine(direction, **rule).generator(x), torch.as_tensor(total))


@given(direction=directions, size=sizes(5, 9), f=frequencies, g=frequencies)
@many
def test_generators_differentiate_waves_along_the_field(
    direction: Any, size: Size, f: Any, g: Any
) -> None:
    """Exactly, under the band-limited rule; and by Leibniz' rule, as products still fit."""
    generator = Affine(direction, interpolation="fourier").generator
    dx, dy, xx, yx, xy, yy = direction
    column, row = positions(size)
    velocity_x = dx * (size[1] - 1) / 2 + xx * column + yx * row
    velocity_y = dy * (size[0] - 1) / 2 + xy * column + yy * row
    (x, slope_x, slope_y), (y, *_) = wave(size, f, 0.3), wave(size, g, 1.1)
    equal(generator(x), velocity_x * slope_x + velocity_y * slope_y)
    equal(generator(x * y), generator(x) * y + x * generator(y))


@pytest.mark.parametrize("rule", SMOOTH)
@given(name=names, direction=directions, size=sizes(5, 9), frequency=frequencies)
@many
def test_generators_are_finite_differences_of_the_action(
    rule: Any, name: str, direction: Any, size: Size, frequency: Any
) -> None:
    """Of smooth images, by steps so short that their own error is below the tolerance."""
    x, step = wave(size, frequency, 0.3)[0], 1e-6
    for group in (get_group(name, **rule), Affine(direction, **rule)):
        difference = (group.act(x, step) - group.act(x, -step)) / (2 * step)
        equal(difference, group.generator(x), 1e-5)
