"""Each rule of the tangent engine against torch.func.jvp of the same function in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_lie.core.autodiff import differentiable
from captum_lie.core.tangents import fallbacks, pushforward
from tests.core import cases
from tests.core.cases import Draw, constant

few = settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x * 1,
    "channels last": lambda x: (x * 1).contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: (x.mT.contiguous() * 1).mT,
    "batch last": lambda x: (x.movedim(0, -1).contiguous() * 1).movedim(-1, 0),
    "every other": lambda x: torch.stack([x, -x], -1).flatten(-2)[..., ::2],
}

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


@st.composite
def points(draw: Draw) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """An image batch, its tangents, and a layout of memory to bring it to."""
    shape = [draw(st.integers(1, 3)) for _ in range(2)] + [draw(st.integers(2, 5)) for _ in "hw"]
    count, seed = draw(st.integers(1, 3)), draw(st.integers(0, 1000))
    layout = LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))]
    return constant(*shape, seed=seed), constant(count, *shape, seed=seed + 1), layout


ONE = {
    f"{kind}: {name}": function
    for kind, table in {
        "activation": cases.ACTIVATIONS,
        "product": cases.PRODUCTS,
        "shape": cases.SHAPES,
        "reduction": cases.REDUCTIONS,
        "norm": cases.NORMS,
        "convolution": cases.CONVOLUTIONS,
        "pool": cases.POOLS,
    }.items()
    for name, function in table.items()
}


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
    x, tangents, layout = point

    def function(x: Tensor) -> Tensor:
        base = layout(x)
        cases.IN_PLACE[name](base[:, :1] if part else base)
        return base

    check(function, x, tangents)


@pytest.mark.parametrize("name", cases.TWO)
@pytest.mark.parametrize("moving", ["both", "first", "second"])
@given(point=points(), data=st.data())
@few
def test_functions_of_two_tensors(name: str, moving: str, point: Any, data: Any) -> None:
    """With broadcasting of either to either."""
    x, tangents, layout = point
    n, c, h, w = x.shape
    shapes = [(n, c, h, w), (c, 1, 1), (w,), (n, 1, h, 1), (1, 1), (2, 1, 1, 1, 1), ()]
    shape = data.draw(st.sampled_from(shapes[:5] if name == "where" else shapes))
    swap = data.draw(st.booleans())

    def function(x: Tensor) -> Tensor:
        a: Any = layout(x) if moving != "second" else constant(*x.shape, seed=5)
        b: Any = constant(*shape, seed=6)
        if moving != "first":
            b = b * x.flatten()[0] + x.mean()
        return cases.TWO[name](*((b, a) if swap else (a, b)))

    check(function, x, tangents)


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
    x, tangents, layout = point
    drawn: list[Any] = []

    def function(x: Tensor) -> Tensor:
        """The same draws at every evaluation."""
        queue = iter(drawn.copy())
        return case(layout(x), lambda strategy: next(queue, None) if drawn else draw(strategy))

    def draw(strategy: Any) -> Any:
        fresh.append(data.draw(strategy))
        return fresh[-1]

    fresh: list[Any] = []
    function(x)
    drawn = fresh
    check(function, x, tangents)


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
