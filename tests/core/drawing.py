"""What hypothesis draws for the rules of both engines: points, and functions to differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core import cases
from tests.core.cases import Draw, constant

Function = Callable[[Tensor], Tensor]
#: An image batch, its tangents, and a layout of memory to bring it to.
Point = tuple[Tensor, Tensor, Function]

few = settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

LAYOUTS: dict[str, Function] = {
    "contiguous": lambda x: x * 1,
    "channels last": lambda x: (x * 1).contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: (x.mT.contiguous() * 1).mT,
    "batch last": lambda x: (x.movedim(0, -1).contiguous() * 1).movedim(-1, 0),
    "every other": lambda x: torch.stack([x, -x], -1).flatten(-2)[..., ::2],
}


@st.composite
def points(draw: Draw) -> Point:
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


def in_place(name: str, point: Point, *, part: bool) -> Function:
    """Writes to the tensor, or to a view of it."""
    layout = point[2]

    def function(x: Tensor) -> Tensor:
        base = layout(x)
        cases.IN_PLACE[name](base[:, :1] if part else base)
        return base

    return function


def of_two(name: str, moving: str, point: Point, data: Any) -> Function:
    """With broadcasting of either tensor to either; ``moving`` are "both", "first" or "second"."""
    x, _, layout = point
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

    return function


def with_options(case: cases.Case, point: Point, data: Any) -> Function:
    """With the same draws at every evaluation."""
    x, _, layout = point
    drawn: list[Any] = []

    def draw(strategy: Any) -> Any:
        drawn.append(data.draw(strategy))
        return drawn[-1]

    def function(x: Tensor) -> Tensor:
        queue = iter(drawn)
        return case(layout(x), lambda _: next(queue, None))

    case(layout(x), draw)
    return function
