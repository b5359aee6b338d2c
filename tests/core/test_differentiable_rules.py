"""Rules that autograd records: tangents against torch.func.jvp, gradients against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_lie.core.autodiff import differentiable
from captum_lie.core.differentiable import pushforward
from tests.core import cases, drawing
from tests.core.cases import constant
from tests.core.drawing import ONE, few, points

STEP = 1e-6

# Batch normalisation holds its statistics: see test_differentiable.py.
HELD = {"norm: batch_statistics"}
# PyTorch's own reverse mode forbids to overwrite what a product was made of, and counts an element
# twice that is written twice.
OVERWRITTEN = {"div_", "setitem_list"}
# No differences can be taken at a kink, nor of what is rounded on the way.
ROUGH = {"reduction: norm_zero", "shape: to_float32_and_back"}


def random_like(x: Tensor, seed: int) -> Tensor:
    return constant(*x.shape, seed=seed)


def check(
    value: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor, *, smooth: bool = True
) -> None:
    """Of ``y (1 + mean y)``, so that a wrong value y shows as well."""

    def function(x: Tensor) -> Tensor:
        y = value(x)
        return y * (1 + y.mean())

    with differentiable():
        check_tangents(function, x, tangents)
        if smooth:
            # Some of the cases have a kink at the constants that the points are made of.
            check_gradient(function, x + 0.003, tangents)


def check_tangents(function: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> None:
    """Equal derivatives, to rounding, and the arguments as they were."""
    x_before, tangents_before = x.clone(), tangents.clone()
    output, rows = pushforward(function, (x,), (tangents,))
    torch.testing.assert_close(output, function(x.clone()), rtol=1e-9, atol=1e-10)
    with torch.no_grad():
        expected = [reference(function, x.clone(), t) for t in tangents]
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(x, x_before)
    assert torch.equal(tangents, tangents_before)


def reference(function: Callable[[Tensor], Tensor], x: Tensor, tangent: Tensor) -> Tensor:
    """PyTorch's own derivative; a case for which it has none is passed over."""
    try:
        return torch.func.jvp(function, (x,), (tangent,))[1]
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):  # group_norm, channels last, torch 2.6
            raise
        reject()


def check_gradient(function: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> None:
    """Of a functional of output and derivatives, along one direction of point and tangents."""

    def functional(x: Tensor, tangents: Tensor) -> Tensor:
        output, rows = pushforward(function, (x,), (tangents,))
        return sum((random_like(y, 7 + i) * y).sum() for i, y in enumerate([output, *rows]))

    leaves = x.clone().requires_grad_(), tangents.clone().requires_grad_()
    total = functional(*leaves)
    gradients = (
        torch.autograd.grad(total, leaves, materialize_grads=True)
        if total.requires_grad
        else (torch.zeros_like(x), torch.zeros_like(tangents))
    )
    along = random_like(x, 5), random_like(tangents, 6)
    with torch.no_grad():
        up, down = (
            functional(*(z + s * STEP * d for z, d in zip((x, tangents), along, strict=True)))
            for s in (1, -1)
        )
    found = sum((g * d).sum() for g, d in zip(gradients, along, strict=True))
    scale = float(sum((g * d).abs().sum() for g, d in zip(gradients, along, strict=True)))
    expected = (up - down) / (2 * STEP)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * (scale + abs(float(up))))


@pytest.mark.parametrize("name", [name for name in ONE if name not in HELD])
@given(point=points())
@few
def test_functions_of_one_tensor(name: str, point: Any) -> None:
    x, tangents, layout = point
    check(lambda x: ONE[name](layout(x)), x, tangents, smooth=name not in ROUGH)


@pytest.mark.parametrize("name", cases.IN_PLACE)
@given(point=points(), part=st.booleans())
@few
def test_in_place(name: str, point: Any, part: bool) -> None:
    """What is written to a view reaches its base, tangents too."""
    x, tangents, _ = point
    check(drawing.in_place(name, point, part=part), x, tangents, smooth=name not in OVERWRITTEN)


@pytest.mark.parametrize("name", cases.TWO)
@pytest.mark.parametrize("moving", ["both", "first", "second"])
@given(point=points(), data=st.data())
@few
def test_functions_of_two_tensors(name: str, moving: str, point: Any, data: Any) -> None:
    x, tangents, _ = point
    check(drawing.of_two(name, moving, point, data), x, tangents)


@pytest.mark.parametrize("case", [cases.convolution, cases.attention, cases.multihead])
@given(point=points(), data=st.data())
@settings(few, max_examples=20)
def test_with_options(case: cases.Case, point: Any, data: Any) -> None:
    x, tangents, _ = point
    check(drawing.with_options(case, point, data), x, tangents)
