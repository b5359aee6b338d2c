"""Drawn groups, rules and sizes, and the images on which a finite motion is exact.

Between its pixels an image is what the rule makes of it: bilinear interpolation reproduces
functions linear in the position, cubic convolution quadratic ones, trigonometric interpolation
waves. On such images, at pixels that no border reaches, laws hold up to rounding alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from captum_lie import BASIS, GROUP_NAMES

many = settings(max_examples=10, derandomize=True, deadline=None, database=None)

RULES: list[dict[str, Any]] = [
    {"interpolation": "bilinear", "border": "reflect"},
    {"interpolation": "bilinear", "border": "circular"},
    {"interpolation": "central", "border": "reflect"},
    {"interpolation": "central", "border": "circular"},
    {"interpolation": "fourier", "border": "circular"},
]
LOCAL = [rule for rule in RULES if rule["interpolation"] != "fourier"]
SMOOTH = [rule for rule in RULES if rule["interpolation"] != "bilinear"]

rules, local_rules = map(st.sampled_from, (RULES, LOCAL))
names = st.sampled_from(GROUP_NAMES)
axes: Any = st.sampled_from(["x", "y"])
seeds = st.integers(0, 1000)
#: Motions of at most two pixels of the largest images below.
small = st.floats(-0.2, 0.2)
_coefficient = st.floats(-0.5, 0.5)
directions = st.tuples(*[_coefficient] * len(BASIS)).filter(lambda c: max(map(abs, c)) > 0.01)
frequencies = st.tuples(st.integers(0, 1), st.integers(-1, 1))


def sizes(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """Heights and widths, odd and even, square or not."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def noise(size: tuple[int, int], seed: int) -> Tensor:
    """Two images of independent pixels, ``[2, 2, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 2, *size, generator=generator, dtype=torch.float64)


def positions(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Columns ``[W]`` and rows ``[H, 1]`` from the centre, in pixels."""
    row, column = (torch.arange(side).double() - (side - 1) / 2 for side in size)
    return column, row[:, None]


def polynomials(size: tuple[int, int], seed: int, degree: int = 2) -> Tensor:
    """Two images of linear or quadratic functions of the position, ``[2, 1, H, W]``."""
    column, row = positions(size)
    one = torch.ones(size).double()
    terms = [one, one * column, one * row, one * column**2, column * row, one * row**2]
    chosen = torch.stack(terms[: 3 if degree == 1 else 6])
    weights = noise((1, len(chosen)), seed)[:, 0, 0] - 0.5
    return torch.tensordot(weights, chosen, 1)[:, None]


def exact_images(rule: dict[str, Any], size: tuple[int, int], seed: int) -> Tensor:
    """Images that a local rule reproduces between the pixels."""
    return polynomials(size, seed, 1 if rule["interpolation"] == "bilinear" else 2)


def wave(size: tuple[int, int], frequency: tuple[int, int], phase: float) -> tuple[Tensor, ...]:
    """A plane wave and its slopes along columns and rows, ``[1, 1, H, W]`` each."""
    column, row = positions(size)
    kx, ky = 2 * math.pi * frequency[0] / size[1], 2 * math.pi * frequency[1] / size[0]
    argument = kx * column + ky * row + phase
    values = argument.cos(), -kx * argument.sin(), -ky * argument.sin()
    return tuple(value[None, None] for value in values)


def middle(x: Tensor) -> Tensor:
    """The pixels around the centre, which a few small motions leave far from the border."""
    height, width = x.shape[-2:]
    rows = slice((height - 1) // 2 - 1, height // 2 + 2)
    columns = slice((width - 1) // 2 - 1, width // 2 + 2)
    return x[..., rows, columns]


def equal(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """Equal up to rounding, relative to the largest number or to one."""
    largest = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)
