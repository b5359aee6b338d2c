"""Laws of the finite motions: identity, composition, inverse, periods, symmetries.

Over drawn parameters, sizes and rules; the formulas themselves are in ``tests/test_groups.py``, the
laws of the generators in ``test_group_algebra.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import captum_lie
from captum_lie import (
    GROUP_NAMES,
    Affine,
    Brightness,
    Rotation,
    Scale,
    SpatialGroup,
    Stretch,
    Translation,
    get_group,
    get_groups,
)
from tests.core.group_cases import (
    axes,
    directions,
    equal,
    exact_images,
    local_rules,
    many,
    middle,
    names,
    noise,
    polynomials,
    rules,
    seeds,
    sizes,
    small,
)

Size = tuple[int, int]
Law = Callable[[float, float], float]
Inverse = Callable[[float], float]

#: ``T_s T_t = T_law(s, t)``: a sum for every exponential. The paper's stretch and scale are linear
#: in t, like brightness, so that their parameters only add up to first order.
LAWS: dict[str, Law] = dict.fromkeys(GROUP_NAMES, lambda s, t: s + t) | {
    "stretch_x": lambda s, t: s + t + s * t,
    "stretch_y": lambda s, t: s + t + s * t,
    "scale": lambda s, t: s + t - s * t,
    "brightness": lambda s, t: s + t + s * t,
}
#: What each law takes to zero.
INVERSES: dict[str, Inverse] = dict.fromkeys(GROUP_NAMES, lambda t: -t) | {
    "stretch_x": lambda t: -t / (1 + t),
    "stretch_y": lambda t: -t / (1 + t),
    "scale": lambda t: -t / (1 - t),
    "brightness": lambda t: -t / (1 + t),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@given(name=names, rule=local_rules, size=sizes(1, 9), seed=seeds)
@many
def test_the_identity_is_at_zero(dtype: Any, name: str, rule: Any, size: Size, seed: int) -> None:
    """Exactly: no pixel is read but one's own, in every precision."""
    x = noise(size, seed).to(dtype)
    group = get_group(name, **rule)
    assert torch.equal(group.act(x, 0), x)
    assert torch.equal(group.act(x, torch.tensor([0.0, 0.3]))[0], x[0])


@given(name=names, size=sizes(1, 9), seed=seeds)
@many
def test_the_identity_is_at_zero_between_two_transforms(name: str, size: Size, seed: int) -> None:
    x = noise(size, seed)
    equal(get_group(name, interpolation="fourier").act(x, 0), x, 1e-14)


@given(name=names, rule=rules, size=sizes(2, 9), seed=seeds, t=small)
@many
def test_single_precision_is_double_precision_rounded(
    name: str, rule: Any, size: Size, seed: int, t: float
) -> None:
    """The parameter and all positions are double; only pixels and weights are not."""
    x = noise(size, seed)
    group = get_group(name, **rule)
    found = group.act(x.float(), t), group.generator(x.float())
    assert [value.dtype for value in found] == [torch.float32] * 2
    equal(found[0].double(), group.act(x, t), 1e-6)
    equal(found[1].double(), group.generator(x), 1e-6)


@pytest.mark.parametrize("name", GROUP_NAMES)
@given(rule=local_rules, size=sizes(15, 20), seed=seeds, s=small, t=small)
@many
def test_one_parameter_law(name: str, rule: Any, size: Size, seed: int, s: float, t: float) -> None:
    x = exact_images(rule, size, seed)
    group, law, back = get_group(name, **rule), LAWS[name], INVERSES[name](t)
    twice = middle(group.act(group.act(x, t), s))
    equal(twice, middle(group.act(x, law(s, t))))
    equal(twice, middle(group.act(group.act(x, s), t)))
    equal(middle(group.act(group.act(x, t), back)), middle(x))
    assert law(t, back) == pytest.approx(0, abs=1e-15)


@given(direction=directions, rule=local_rules, size=sizes(15, 20), seed=seeds, s=small, t=small)
@many
def test_every_direction_is_a_one_parameter_group(
    direction: Any, rule: Any, size: Size, seed: int, s: float, t: float
) -> None:
    x = exact_images(rule, size, seed)
    group = Affine(direction, **rule)
    equal(middle(group.act(group.act(x, t), s)), middle(group.act(x, s + t)))
    equal(middle(group.act(group.act(x, t), -t)), middle(x))


@given(size=sizes(2, 9), rule=rules, seed=seeds, t=small, axis=axes)
@many
def test_stretch_and_scale_are_exponentials_in_another_parameter(
    size: Size, rule: Any, seed: int, t: float, axis: Any
) -> None:
    """``1 + t = exp(log(1 + t))``, of the same generator."""
    x = noise(size, seed)
    for group, u in ((Stretch(axis, **rule), math.log1p(t)), (Scale(**rule), -math.log1p(-t))):
        exponential = Affine(group.direction, **rule)
        equal(exponential.act(x, u), group.act(x, t))
        assert torch.equal(exponential.generator(x), group.generator(x))


@given(slant=small, size=sizes(1, 4), seed=seeds, s=st.floats(-1, 1), t=st.floats(-1, 1))
@many
def test_shifts_of_periodic_images_compose_at_every_pixel(
    slant: float, size: Size, seed: int, s: float, t: float
) -> None:
    """By any fraction of a pixel; odd sides have no Nyquist wave to lose."""
    x = noise((2 * size[0] + 1, 2 * size[1] + 1), seed)
    group = Affine((1, slant, 0, 0, 0, 0), interpolation="fourier")
    equal(group.act(group.act(x, t), s), group.act(x, s + t))
    equal(group.act(group.act(x, t), -t), x)


@given(rule=rules, size=sizes(2, 9), seed=seeds, axis=axes, pixels=st.integers(-20, 20))
@many
def test_a_whole_pixel_is_a_roll(rule: Any, size: Size, seed: int, axis: Any, pixels: int) -> None:
    x = noise(size, seed)
    dim = -1 if axis == "x" else -2
    group = Translation(axis, **rule | {"border": "circular"})
    equal(group.act(x, 2 * pixels / (x.shape[dim] - 1)), x.roll(-pixels, dim), 1e-11)


@given(rule=rules, size=sizes(2, 9), seed=seeds, axis=axes, t=st.floats(-1, 1))
@many
def test_translation_has_the_period_of_its_border(
    rule: Any, size: Size, seed: int, axis: Any, t: float
) -> None:
    """A circle of as many pixels as the side has; there and back between two mirrors."""
    x = noise(size, seed)
    side = x.shape[-1 if axis == "x" else -2]
    pixels = side if rule["border"] == "circular" else 2 * (side - 1)
    group = Translation(axis, **rule)
    equal(group.act(x, t + 2 * pixels / (side - 1)), group.act(x, t), 1e-11)


@given(rule=rules, side=st.integers(1, 9), seed=seeds)
@many
def test_four_quarter_turns_are_the_identity(rule: Any, side: int, seed: int) -> None:
    x = noise((side, side), seed)
    group = Rotation(**rule)
    turned = group.act(x, math.pi / 2)
    equal(turned, x.rot90(-1, (-2, -1)), 1e-11)
    for _ in range(3):
        turned = group.act(turned, math.pi / 2)
    equal(turned, x, 1e-11)


@given(rule=rules, size=sizes(1, 9), seed=seeds)
@many
def test_a_half_turn_is_both_reflections_on_any_aspect(rule: Any, size: Size, seed: int) -> None:
    x = noise(size, seed)
    group = Rotation(**rule)
    equal(group.act(x, math.pi), x.flip(-2, -1), 1e-11)
    equal(group.act(x, 2 * math.pi), x, 1e-11)


@given(size=sizes(20, 24), seed=seeds, angle=st.floats(-0.1, 0.1), shift=st.floats(-0.1, 0.1))
@many
def test_a_rotation_turns_the_direction_of_a_translation(
    size: Size, seed: int, angle: float, shift: float
) -> None:
    """``T_R⁻¹`` first, then ``T_v`` and ``T_R`` read at ``R⁻¹(R p + v) = p + R⁻¹ v``."""
    x = polynomials(size, seed)
    rotation = Rotation(interpolation="central")
    along_x = Translation("x", interpolation="central")
    found = rotation.act(along_x.act(rotation.act(x, -angle), shift), angle)
    units = (size[1] - 1) / (size[0] - 1)  # a unit along y is that of x on square images
    turned = (math.cos(angle), math.sin(angle) * units, 0, 0, 0, 0)
    equal(middle(found), middle(Affine(turned, interpolation="central").act(x, shift)))


@given(rule=rules, direction=directions, size=sizes(1, 9), seed=seeds, t=small)
@many
def test_exchanging_the_axes_exchanges_the_fields(
    rule: Any, direction: Any, size: Size, seed: int, t: float
) -> None:
    dx, dy, xx, yx, xy, yy = direction
    x = noise(size, seed)
    group, exchanged = Affine(direction, **rule), Affine((dy, dx, yy, xy, yx, xx), **rule)
    equal(exchanged.act(x.mT, t), group.act(x, t).mT)
    equal(exchanged.generator(x.mT), group.generator(x).mT)


@given(rule=rules, direction=directions, size=sizes(1, 9), seed=seeds, t=small)
@many
def test_reflecting_the_image_reflects_the_field(
    rule: Any, direction: Any, size: Size, seed: int, t: float
) -> None:
    dx, dy, xx, yx, xy, yy = direction
    x = noise(size, seed)
    group, mirrored = Affine(direction, **rule), Affine((-dx, dy, xx, -yx, -xy, yy), **rule)
    equal(mirrored.act(x.flip(-1), t), group.act(x, t).flip(-1))
    if rule["interpolation"] != "bilinear":  # its slope at a pixel is that of one side
        equal(mirrored.generator(x.flip(-1)), group.generator(x).flip(-1))


@given(name=names, rule=rules, size=sizes(2, 9), seed=seeds, a=small, b=small, t=small)
@many
def test_motions_are_linear_and_commute_with_brightness(
    name: str, rule: Any, size: Size, seed: int, a: float, b: float, t: float
) -> None:
    x, y = noise(size, seed), noise(size, seed + 1)
    group = get_group(name, **rule)
    equal(group.act(a * x + b * y, t), a * group.act(x, t) + b * group.act(y, t))
    equal(group.act(Brightness().act(x, a), t), Brightness().act(group.act(x, t), a))
    equal(Brightness().act(x, t), (1 + t) * x)


@given(name=names, rule=rules)
@many
def test_names_instances_and_spellings_go_round(name: str, rule: Any) -> None:
    group = get_group(name, **rule)
    assert group.name == name
    assert get_groups([name, group], **rule) == [group, group]
    assert len({group, get_group(name, **rule), get_group(group)}) == 1
    assert eval(repr(group), vars(captum_lie)) == group
    if isinstance(group, SpatialGroup):
        assert group.rule == (rule["interpolation"], rule["border"])
        assert Affine(group.direction, name, **rule).name == name
