"""Shifts and rotations against analytic images, and what the masks promise."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_lie import Rotation
from captum_lie.metrics import SincKernel, bandlimit, fractional_shift, integer_shift, rotate
from captum_lie.metrics.sinc import SincBorder
from tests.toy_models import untyped

PRECISE = SincKernel(8, "kaiser")
SIZES = [(96, 96), (96, 97), (90, 97)]


def centred(height: int, width: int) -> tuple[Tensor, Tensor]:
    column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return column, (torch.arange(height, dtype=torch.float64) - (height - 1) / 2)[:, None]


def packets(column: Tensor, row: Tensor) -> Tensor:
    """Wave packets away from the border, up to 0.4 of the Nyquist frequency."""
    parts = [(3, -2, 5.0, 0.6, 0.8), (-6, 4, 6.0, -0.8, 0.6), (0, 8, 4.0, 1.0, 0.0)]
    total = torch.zeros(())
    for x0, y0, sigma, along_x, along_y in parts:
        envelope = torch.exp(-((column - x0) ** 2 + (row - y0) ** 2) / (2 * sigma**2))
        total = total + envelope * torch.cos(1.2 * (along_x * column + along_y * row))
    return total


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.5, -0.25, 3.7, -11.9])
def test_band_limited_image_shifted_by_a_fraction_is_its_analytic_shift(shift: float) -> None:
    column, row = centred(96, 97)
    x = packets(column, row)[None, None]
    moved, _ = fractional_shift(x, numbers(shift), numbers(-0.3 * shift), "zero", PRECISE)
    exact = packets(column + shift, row - 0.3 * shift)
    assert (moved[0, 0] - exact).abs().max() < 1e-4
    # The paper's short kernel is coarser, but moves the same way.
    moved, _ = fractional_shift(x, numbers(shift), numbers(-0.3 * shift), "zero")
    assert (moved[0, 0] - exact).abs().max() < 0.05


def test_periodic_wave_shifted_by_a_fraction_is_its_analytic_shift() -> None:
    place = torch.arange(48, dtype=torch.float64)
    wave = torch.cos(2 * pi * 11 / 48 * place).expand(1, 1, 48, 48)  # just below half Nyquist
    moved, inside = fractional_shift(wave, numbers(0.37), numbers(5.5), "circular", PRECISE)
    assert (moved[0, 0, 0] - torch.cos(2 * pi * 11 / 48 * (place + 0.37))).abs().max() < 1e-4
    assert inside.all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [7, 45, -44.5, 100, 180, 233])
def test_rotated_image_is_the_analytic_rotation(size: tuple[int, int], degrees: float) -> None:
    angle = numbers(np.deg2rad(degrees))
    column, row = centred(*size)
    rotated, _ = rotate(packets(column, row)[None, None], angle, "zero", PRECISE)
    cos, sin = angle.cos(), angle.sin()
    exact = packets(cos * column + sin * row, -sin * column + cos * row)
    assert (rotated[0, 0] - exact).abs().max() < 1e-4


def test_rotation_turns_the_way_the_group_does() -> None:
    x = packets(*centred(40, 53))[None, None]
    by_group = Rotation(interpolation="central").act(x, 0.3)
    by_sinc, _ = rotate(x, numbers(0.3), "reflect", PRECISE)
    middle = (..., slice(12, -12), slice(16, -16))
    assert (by_group - by_sinc)[middle].abs().max() < 0.2 * (by_sinc - x)[middle].abs().max()


@pytest.mark.parametrize("border", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 9)])
def test_quarter_turns_are_exact(border: SincBorder, size: tuple[int, int]) -> None:
    side = max(size)
    x = torch.rand(4, 2, side, side)
    angles = numbers(pi / 2, pi, -pi / 2, 0)
    rotated, inside = rotate(x, angles, border)
    for image, turned, k in zip(x, rotated, (-1, 2, 1, 0), strict=True):
        torch.testing.assert_close(turned, image.rot90(k, (-2, -1)), atol=2e-6, rtol=0)
    assert inside.all()
    half, inside = rotate(torch.rand(1, 2, *size), numbers(pi), border)
    assert half.shape[-2:] == size
    assert inside.all()


@pytest.mark.parametrize("border", ["circular", "reflect", "zero"])
def test_whole_shifts_agree_with_exact_ones(border: SincBorder) -> None:
    x = torch.rand(3, 2, 9, 12, dtype=torch.float64)
    dx, dy = np.array([3, -4, 0]), np.array([-2, 5, 0])
    exact, inside = integer_shift(x, dx, dy, border)
    smooth, known = fractional_shift(x, torch.from_numpy(dx), torch.from_numpy(dy), border)
    torch.testing.assert_close(smooth, exact, atol=1e-12, rtol=0)
    assert torch.equal(inside, known)


def test_integer_shifts_are_what_their_border_rule_says() -> None:
    x = torch.rand(2, 3, 9, 12)
    dx, dy = np.array([3, -4]), np.array([-2, 5])

    def per_image(read: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        return torch.stack([read(x[i], int(dx[i]), int(dy[i])) for i in range(2)])

    def padded(mode: str) -> Tensor:
        wide = F.pad(x, (5, 5, 5, 5), mode=mode)
        return torch.stack(
            [wide[i, :, 5 + dy[i] : 14 + dy[i], 5 + dx[i] : 17 + dx[i]] for i in range(2)]
        )

    circular, everywhere = integer_shift(x, dx, dy, "circular")
    assert torch.equal(circular, per_image(lambda a, u, v: a.roll((-v, -u), (-2, -1))))
    assert everywhere.all()
    assert torch.equal(integer_shift(x, dx, dy, "reflect")[0], padded("reflect"))
    assert torch.equal(integer_shift(x, dx, dy, "zero")[0], padded("constant"))
    dx, dy = np.array([2, -1]), np.array([-2, 2])
    cropped, everywhere = integer_shift(x, dx, dy, "crop", max_shift_pixels=2)
    assert torch.equal(cropped, per_image(lambda a, u, v: a[:, 2 + v : 7 + v, 2 + u : 10 + u]))
    assert everywhere.all()


Resampler = Callable[[Tensor, SincBorder], tuple[Tensor, Tensor]]
RESAMPLERS: dict[str, Resampler] = {
    "integer": lambda x, border: integer_shift(
        x,
        np.array([4]),
        np.array([-3]),
        border,
    ),
    "fraction": lambda x, border: fractional_shift(x, numbers(4.3), numbers(-3.6), border),
    "rotation": lambda x, border: rotate(x, numbers(0.5), border),
    "far rotation": lambda x, border: rotate(x, numbers(2.5), border),
    "bandlimit": lambda x, border: bandlimit(x, numbers(0.5), border),
}


@pytest.mark.parametrize("name", RESAMPLERS)
def test_valid_pixels_do_not_depend_on_what_lies_outside(name: str) -> None:
    x = torch.rand(1, 2, 47, 52, dtype=torch.float64)
    results = {b: RESAMPLERS[name](x, b) for b in ("zero", "reflect", "circular")}
    valid = results["zero"][1]
    assert torch.equal(valid, results["reflect"][1])
    assert results["circular"][1].all()
    assert 0 < valid.double().mean() < 1
    for border in ("reflect", "circular"):
        change = (results[border][0] - results["zero"][0]).abs()
        assert (change * valid).max() < 1e-12
        assert change.max() > 1e-3  # the rule matters where the mask says so


def test_constants_stay_constant() -> None:
    x = torch.full((1, 1, 33, 40), 0.7, dtype=torch.float64)
    for moved, _ in (RESAMPLERS[name](x, "reflect") for name in RESAMPLERS):
        torch.testing.assert_close(moved, x, atol=1e-12, rtol=0)


def test_bandlimit_is_the_identity_at_quarter_turns_and_removes_corners_elsewhere() -> None:
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    kept, _ = bandlimit(x, numbers(0, pi / 2), "circular")
    torch.testing.assert_close(kept, x, atol=1e-12, rtol=0)
    checkerboard = (torch.arange(32) + torch.arange(32)[:, None]).remainder(2).double() - 0.5
    corner, _ = bandlimit(checkerboard.expand(1, 1, 32, 32), numbers(pi / 4), "circular")
    assert corner.abs().max() < 0.05
    stripes = torch.cos(pi / 2 * torch.arange(32.0)).double().expand(1, 1, 32, 32)
    passed, _ = bandlimit(stripes, numbers(pi / 4), "circular")
    assert (passed - stripes).abs().max() < 0.02


def test_bandlimit_removes_what_rotation_cannot_produce() -> None:
    """White noise, rotated, has the spectrum that ``bandlimit`` leaves of white noise."""
    x = torch.randn(64, 1, 64, 64, dtype=torch.float64, generator=torch.manual_seed(0))
    angle = torch.full((64,), 0.6, dtype=torch.float64)
    rotated, _ = rotate(x, angle, "circular", SincKernel(12, "kaiser"))
    limited, _ = bandlimit(x, angle, "circular", SincKernel(12, "kaiser"))

    def spectrum(y: Tensor) -> Tensor:
        return torch.fft.fft2(y[..., 16:48, 16:48]).abs().square().mean((0, 1))

    frequency = torch.fft.fftfreq(32)
    low = (frequency.abs() < 0.2) & (frequency.abs() < 0.2)[:, None]
    mirrored, _ = bandlimit(x, -angle, "circular", SincKernel(12, "kaiser"))
    lost = spectrum(limited) < 0.2 * spectrum(limited)[low].mean()
    wrong = spectrum(mirrored) < 0.2 * spectrum(mirrored)[low].mean()
    assert (lost & ~wrong).sum() > 20
    energy = spectrum(rotated) / spectrum(rotated)[low].mean()
    assert energy[lost & ~wrong].mean() < 0.2
    assert energy[wrong & ~lost].mean() > 0.3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda x: integer_shift(x, np.array([1]), np.array([0]), untyped("mirror")),
            "Choose from",
        ),
        (lambda x: integer_shift(x, np.array([1]), np.array([0]), "crop"), "max_shift"),
        (lambda x: integer_shift(x, np.array([1]), np.array([0]), "crop", 4), "larger"),
        (lambda x: fractional_shift(x, numbers(1), numbers(0), untyped("crop")), "Choose from"),
        (lambda x: rotate(x, numbers(1), untyped("none")), "Choose from"),
        (lambda x: rotate(x[0], numbers(1), "zero"), "unsqueeze"),
        (lambda x: SincKernel(0), "at least 1"),
        (lambda x: SincKernel(3, untyped("hann")), "Choose from"),
    ],
)
def test_wrong_calls_say_what_to_do(call: Callable[[Tensor], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(torch.rand(1, 1, 8, 8))
