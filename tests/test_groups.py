"""Laws of the groups: action and generator belong together, and to the formulas of the table."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_lie import (
    GROUP_NAMES,
    Affine,
    HyperbolicRotation,
    OneParameterGroup,
    Rotation,
    Scale,
    Shear,
    Stretch,
    Translation,
    get_group,
    get_groups,
)
from captum_lie.groups import SpatialGroup, basis_fields
from captum_lie.resampling import BORDERS, INTERPOLATIONS, Border, Interpolation
from tests.toy_models import images, untyped

RULES = [(i, b) for i in INTERPOLATIONS for b in BORDERS if (i, b) != ("fourier", "reflect")]
SIZES = [(8, 12), (9, 7), (1, 5), (6, 6)]


def every_group(interpolation: Interpolation, border: Border) -> list[OneParameterGroup]:
    some_direction = Affine(
        (0.3, -0.2, 0.1, 0.5, -0.7, 0.2), interpolation=interpolation, border=border
    )
    return [*get_groups("all", interpolation=interpolation, border=border), some_direction]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("interpolation", "border"), RULES)
def test_generator_is_the_derivative_of_the_action(
    interpolation: Interpolation,
    border: Border,
    size: tuple[int, int],
    dtype: Any,
    tolerance: float,
) -> None:
    x = images(2, size, dtype)
    zero, one = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    for group in every_group(interpolation, border):
        primal, derivative = torch.func.jvp(partial(group.act, x), (zero,), (one,))[:2]
        generator = group.generator(x)
        assert generator.dtype == dtype
        assert (primal - x).norm() <= tolerance * x.norm(), group
        assert (derivative - generator).norm() <= tolerance * generator.norm(), group


@pytest.mark.parametrize("interpolation", ["central", "fourier"])
def test_generator_is_the_finite_difference_of_smooth_actions(
    interpolation: Interpolation,
) -> None:
    x = images(2, (9, 6))
    for group in every_group(interpolation, "circular"):
        step = 1e-5
        difference = (group.act(x, step) - group.act(x, -step)) / (2 * step)
        generator = group.generator(x)
        assert (difference - generator).norm() < 1e-4 * generator.norm(), group


def test_bilinear_generator_is_the_right_hand_difference_of_the_action() -> None:
    x = images(1, (5, 9), torch.float32)
    for border in BORDERS:
        for axis in ("x", "y"):
            group = Translation(axis, border=border)
            step = 2.0**-8
            difference = (group.act(x, step) - x) / step
            torch.testing.assert_close(difference, group.generator(x), atol=1e-3, rtol=1e-4)


# The table of transformations A(t), written once more by hand, in isotropic coordinates.
MAPS: dict[Any, Any] = {
    Rotation: lambda t, x, y: (
        math.cos(t) * x + math.sin(t) * y,
        -math.sin(t) * x + math.cos(t) * y,
    ),
    Scale: lambda t, x, y: ((1 - t) * x, (1 - t) * y),
    HyperbolicRotation: lambda t, x, y: (
        math.cosh(t) * x + math.sinh(t) * y,
        math.sinh(t) * x + math.cosh(t) * y,
    ),
    lambda **k: Shear("x", **k): lambda t, x, y: (x + t * y, y),
    lambda **k: Shear("y", **k): lambda t, x, y: (x, y + t * x),
    lambda **k: Stretch("x", **k): lambda t, x, y: ((1 + t) * x, y),
    lambda **k: Stretch("y", **k): lambda t, x, y: (x, (1 + t) * y),
}


@pytest.mark.parametrize("size", [(8, 12), (7, 5)])
def test_finite_action_moves_a_band_limited_image_analytically(size: tuple[int, int]) -> None:
    height, width = size

    def wave(column: Tensor, row: Tensor) -> Tensor:
        phase = 2 * math.pi * (2 * column / width - row / height)
        return torch.cos(phase + 0.4) + torch.sin(2 * math.pi * column / width)

    rows = torch.arange(height).double()[:, None]
    columns = torch.arange(width).double()
    x = wave(columns, rows).expand(1, 1, -1, -1)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    half = (max(size) - 1) / 2
    for make, transform in MAPS.items():
        group = make(interpolation="fourier")
        moved_x, moved_y = transform(0.3, (columns - centre_x) / half, (rows - centre_y) / half)
        expected = wave(moved_x * half + centre_x, moved_y * half + centre_y)
        assert torch.allclose(group.act(x, 0.3)[0, 0], expected, atol=1e-12), group
    for axis, shift_x, shift_y in (("x", 0.3 * centre_x, 0.0), ("y", 0.0, 0.3 * centre_y)):
        group = get_group(f"translation_{axis}", interpolation="fourier")
        expected = wave(columns + shift_x, rows + shift_y)
        assert torch.allclose(group.act(x, 0.3)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_quarter_turn_and_a_whole_pixel_shift_are_exact(interpolation: Interpolation) -> None:
    x = images(2, (7, 7))
    turned = Rotation(interpolation=interpolation).act(x, math.pi / 2)
    assert torch.allclose(turned, torch.rot90(x, -1, (-2, -1)), atol=1e-10)
    shifted = Translation("x", interpolation=interpolation, border="circular").act(x, 2 / 3)
    assert torch.allclose(shifted, x.roll(-2, -1), atol=1e-10)


def test_reflection_is_about_the_edge_pixel() -> None:
    x = torch.arange(4.0).expand(1, 1, 3, 4)
    pixel = 2 / 3
    assert Translation("x").act(x, 2 * pixel)[0, 0, 0].tolist() == pytest.approx([2, 3, 2, 1])
    assert Translation("x").act(x, -pixel)[0, 0, 0].tolist() == pytest.approx([1, 0, 1, 2])


@pytest.mark.parametrize(("interpolation", "border"), RULES)
def test_one_parameter_per_example(interpolation: Interpolation, border: Border) -> None:
    x = images(3)
    t = torch.tensor([0.1, -0.2, 0.05])
    for group in every_group(interpolation, border):
        together = group.act(x, t)
        one_by_one = torch.cat([group.act(x[i : i + 1], t[i].item()) for i in range(3)])
        torch.testing.assert_close(together, one_by_one)


def test_exponential_groups_compose() -> None:
    x = images(1, (6, 8))
    one = Translation("x", interpolation="fourier")
    odd = x[..., :7]  # no Nyquist wave, which no shift can move
    assert torch.allclose(one.act(one.act(odd, 0.3), 0.5), one.act(odd, 0.8), atol=1e-12)


def test_generators_are_linear_in_the_direction_and_spanned_by_the_basis() -> None:
    x = images()
    basis = torch.stack([g.generator(x) for g in basis_fields()])
    for group in every_group("bilinear", "reflect")[:-2]:
        assert isinstance(group, SpatialGroup)
        c = torch.tensor(group.direction).double()
        assert torch.allclose(group.generator(x), torch.tensordot(c, basis, 1), atol=1e-13)


def test_central_translation_is_skew_adjoint_and_blind_at_nyquist() -> None:
    a, b = images(1, seed=2), images(1, seed=3)
    group = Translation("x", interpolation="central", border="circular")
    assert torch.allclose((a * group.generator(b)).sum(), -(group.generator(a) * b).sum())
    nyquist = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    assert group.generator(nyquist).abs().max() == 0
    assert Translation("x", border="circular").generator(nyquist).abs().max() > 1


def test_names_give_groups_and_back() -> None:
    assert len(GROUP_NAMES) == 10
    assert [g.name for g in get_groups("all")] == list(GROUP_NAMES)
    assert get_group("rotation", interpolation="fourier") == Rotation(interpolation="fourier")
    given = Shear("y", interpolation="central")
    assert get_group(given, interpolation="fourier") is given


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_group("rotatoin"), "Did you mean 'rotation'"),
        (lambda: get_groups([]), "Name at least one"),
        (lambda: Translation(untyped("z")), "Unknown axis 'z'. Choose from x, y"),
        (lambda: Rotation(interpolation=untyped("cubic")), "Unknown interpolation"),
        (lambda: Rotation(border=untyped("zeros")), "Unknown border"),
        (lambda: Rotation(interpolation="fourier", border="reflect"), "periodic"),
        (lambda: Affine((1, 2, 3)), "six finite coefficients"),
        (lambda: Affine((0,) * 6), "not all zero"),
        (lambda: Affine((math.nan,) * 6), "six finite coefficients"),
        (lambda: Rotation().generator(torch.rand(3, 8, 8)), r"x\.unsqueeze\(0\)"),
        (
            lambda: Rotation().act(torch.rand(2, 3, 8, 8), torch.zeros(3)),
            r"one parameter per image",
        ),
    ],
)
def test_bad_input_is_explained(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_explained() -> None:
    with pytest.raises(TypeError, match=r"x\.float\(\) / 255"):
        Rotation().generator(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match="instance such as"):
        get_group(untyped(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_groups_run_where_the_images_are() -> None:
    x = images()
    for interpolation, border in RULES:
        for group in every_group(interpolation, border):
            torch.testing.assert_close(group.generator(x.cuda()).cpu(), group.generator(x))
            torch.testing.assert_close(group.act(x.cuda(), 0.1).cpu(), group.act(x, 0.1))
