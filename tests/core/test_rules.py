"""Each rule of the tangent engine against torch.func.jvp of the same function in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_lie.core.autodiff import differentiable
from captum_lie.core.tangents import fallbacks, pushforward
from tests.core import cases, drawing
from tests.core.cases import constant
from tests.core.drawing import ONE, few, points

# Left to PyTorch's forward mode of the operation, which is right and rarely needed.
WITHOUT_RULE = {
    *("maximum", "atan2", "lerp", "addcmul", "hypot"),  # of two
    *("norm_1", "norm_inf", "amax", "amin"),
    *("norm_scalar", "max_all", "cumprod", "logsumexp", "prod", "fft"),
    *("setitem_list", "setitem_mask", "addcmul_", "lerp_", "index_add_"),
}


def check(value: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> None:
    """Equal derivatives, to rounding, and the arguments as they were.

    Of ``y (1 + mean y)``, so that a wrong value y shows as well.
    """

    def function(x: Tensor) -> Tensor:
        y = value(x)
        return y * (1 + y.mean())

    x_before, tangents_before = x.clone(), tangents.clone()
    with differentiable(), torch.no_grad():
        expected = torch.stack([torch.func.jvp(function, (x,), (t,))[1] for t in tangents])
        found = pushforward(function, (x,), (tangents,))
    assert type(found) is Tensor
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(x, x_before)
    assert torch.equal(tangents, tangents_before)


@pytest.mark.parametrize("name", ONE)
@given(point=points())
@few
def test_functions_of_one_tensor(name: str, point: Any) -> None:
    x, tangents, layout = point
    check(lambda x: ONE[name](layout(x)), x, tangents)


@pytest.mark.parametrize("name", cases.IN_PLACE)
@given(point=points(), part=st.booleans())
@few
def test_in_place(name: str, point: Any, part: bool) -> None:
    """What is written to a view reaches its base, tangents too."""
    x, tangents, _ = point
    check(drawing.in_place(name, point, part=part), x, tangents)


@pytest.mark.parametrize("name", cases.TWO)
@pytest.mark.parametrize("moving", ["both", "first", "second"])
@given(point=points(), data=st.data())
@few
def test_functions_of_two_tensors(name: str, moving: str, point: Any, data: Any) -> None:
    x, tangents, _ = point
    check(drawing.of_two(name, moving, point, data), x, tangents)


@pytest.mark.parametrize("name", ["add", "sub", "rsub", "mul", "div"])
@given(point=points(), number=st.sampled_from([2, 0.5, -1.5]))
@few
def test_numbers(name: str, point: Any, number: Any) -> None:
    x, tangents, layout = point
    check(lambda x: cases.TWO[name](layout(x), number), x, tangents)
    check(lambda x: number - layout(x), x, tangents)
    check(lambda x: number / (layout(x) ** 2 + 1), x, tangents)


@pytest.mark.parametrize("case", [cases.convolution, cases.attention, cases.multihead])
@given(point=points(), data=st.data())
@settings(few, max_examples=40)
def test_with_options(case: cases.Case, point: Any, data: Any) -> None:
    x, tangents, _ = point
    check(drawing.with_options(case, point, data), x, tangents)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mixed_dtypes(dtype: Any) -> None:
    """Tensors without axes do not decide the dtype, as ever."""
    x, tangents = constant(2, 3).to(dtype), constant(2, 2, 3).to(dtype)
    scalar = constant().double()

    def function(x: Tensor) -> Tensor:
        x = x * scalar + scalar - x.double().sum() * x
        return torch.cat([x / (2 + x.double().mean()), x * torch.ones(2, 3, dtype=x.dtype)])

    with differentiable():
        expected = torch.stack([torch.func.jvp(function, (x,), (t,))[1] for t in tangents])
    found = pushforward(function, (x,), (tangents,))
    assert found.dtype == dtype
    tolerance = 16 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("name", [*ONE, *cases.IN_PLACE])
def test_what_is_left_to_pytorch(name: str) -> None:
    """An operation that loses its rule is noticed, as is one that gains one."""
    x = constant(2, 2, 4, 4)

    def function(x: Tensor) -> Tensor:
        if name in ONE:
            return ONE[name](x)
        x = x * 1
        cases.IN_PLACE[name](x)
        return x

    with differentiable():
        fallen = fallbacks(function, (x,))
    assert bool(fallen) == (name.split(": ")[-1] in WITHOUT_RULE), fallen
