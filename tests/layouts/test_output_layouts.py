"""Outputs that move: whatever their layout, an equivariant model has no error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_lie import (
    BASIS,
    LocalEquivarianceError,
    Rotation,
    Translation,
    get_groups,
    lie_derivative,
)
from captum_lie.layouts import NCHW, NHWC, TRIVIAL, UNKNOWN, Layout, as_output_layout, regrouped
from captum_lie.metrics import (
    discrete_group_error,
    eq_r,
    eq_t,
    eq_t_frac,
    finite_difference_lee,
    group_sample_error,
)

SIZE = (8, 12)
WINDOWS = regrouped("n (y0 x0) (y1 x1) c", (4, 2), (6, 2), shift=(1, -1))
MIXING = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def images(n: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(n, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def mixed(x: Tensor) -> Tensor:
    """Every pixel by itself, linear: commutes with every motion of the pixels."""
    return torch.einsum("kc,nchw->nkhw", MIXING.to(x), x)


def squared(x: Tensor) -> Tensor:
    """Commutes with none but approximately."""
    return (mixed(x) - x.mean((1, 2, 3), keepdim=True)).square()


def like_of(layout: Layout, image: Tensor) -> Tensor:
    """A tensor in whose shape an image is written in a layout."""
    n, channels, height, width = image.shape
    shapes = {
        "nhwc": (n, height, width, channels),
        "tokens": (n, layout.prefix + height * width, channels),
        "tokens_first": (n, channels, layout.prefix + height * width),
        "regrouped": (n, 24, 4, channels),
    }
    return image.new_empty(shapes[layout.kind])


def written(function: Callable[[Tensor], Tensor], layout: Layout) -> Callable[[Tensor], Tensor]:
    """A function whose image comes out in another layout, pooled values in its prefix tokens."""

    def forward(x: Tensor) -> Tensor:
        image = function(x)
        output = layout.from_image(image, like_of(layout, image))
        if layout.prefix:
            output = output.clone()
            output[:, : layout.prefix] = image.mean((2, 3))[:, None]
        return output

    return forward


LAYOUTS = [NHWC, Layout("tokens", grid=SIZE), Layout("tokens_first", grid=SIZE), WINDOWS]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_equivariant_model_has_no_derivative(layout: Layout) -> None:
    model, x = written(mixed, layout), images()
    groups = [g for g in get_groups("all") if g.name != "brightness"]
    derivative = lie_derivative(model, x, groups, output_layout=layout)
    assert derivative.abs().max() < 1e-12
    still = lie_derivative(model, x, groups)
    assert still.abs().amax(tuple(range(1, still.ndim))).min() > 1e-2
    misread = regrouped("n (y0 x0) (y1 x1) c", (4, 2), (6, 2))  # without the roll
    if layout is WINDOWS:
        assert lie_derivative(model, x, groups, output_layout=misread).abs().max() > 1e-2


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_lee_is_that_of_the_image(layout: Layout) -> None:
    x = images()
    expected = LocalEquivarianceError(squared, output_fn=None, output_layout=NCHW)
    method = LocalEquivarianceError(written(squared, layout), output_fn=None, output_layout=layout)
    score = method.score(x)
    assert score.min() > 1e-4
    torch.testing.assert_close(score, expected.score(x))
    torch.testing.assert_close(method.gram(x), expected.gram(x))
    assert method.gram(x).shape == (len(BASIS),) * 2


def test_prefix_tokens_should_stay() -> None:
    layout = Layout("tokens", prefix=2, grid=SIZE)
    model, x, group = written(mixed, layout), images(), Rotation()
    derivative = lie_derivative(model, x, group, output_layout=layout)
    pooled = lie_derivative(lambda x: mixed(x).mean((2, 3)), x, group)
    assert pooled.abs().min() > 1e-4
    torch.testing.assert_close(derivative[:, 0], pooled)
    torch.testing.assert_close(derivative[:, 1], pooled)
    assert derivative[:, 2:].abs().max() < 1e-12


@pytest.mark.parametrize("function", [mixed, squared])
def test_sampled_metrics_are_those_of_the_image(function: Callable[[Tensor], Tensor]) -> None:
    x, layout = images(size=(12, 12)), Layout("tokens_first", grid=(12, 12))
    model = written(function, layout)
    for measure in (
        lambda f, o: eq_t(f, x, output_fn=None, output_layout=o, n_samples=2).per_example,
        lambda f, o: eq_t_frac(f, x, output_fn=None, output_layout=o, n_samples=2).per_example,
        lambda f, o: (
            eq_r(f, x, output_fn=None, output_layout=o, n_samples=2, border="circular").per_example
        ),
        lambda f, o: np.stack(
            [
                result.per_example
                for result in (
                    *group_sample_error(f, x, output_fn=None, output_layout=o, n_samples=2),
                    *discrete_group_error(f, x, output_fn=None, output_layout=o),
                    *finite_difference_lee(f, x, "rotation", output_fn=None, output_layout=o),
                )
            ]
        ),
    ):
        np.testing.assert_allclose(measure(model, layout), measure(function, NCHW), atol=1e-12)


def test_metrics_tell_of_outputs_that_they_cannot_use() -> None:
    x, layout = images(), Layout("tokens", grid=SIZE)
    model = written(mixed, layout)
    flips = discrete_group_error(
        model, x, ["flip_x", "rot180"], output_fn=None, output_layout=layout
    )
    assert max(result.value for result in flips) < 1e-24
    with pytest.raises(ValueError, match=r"rot90 exchanges.*tokens\[8x12\].*square"):
        discrete_group_error(model, x, output_fn=None, output_layout=layout)
    with pytest.raises(ValueError, match=r"layout tokens\[3x4\]; got shape \(2, 96, 5\)"):
        eq_t(model, x, output_fn=None, output_layout=Layout("tokens", grid=(3, 4)))


def test_the_names_of_before_stand_for_layouts_and_warn() -> None:
    x, group = images(), Translation("y")
    names: dict[Any, Layout] = {"image": NCHW, "trivial": TRIVIAL}
    for name, layout in names.items():
        with pytest.warns(DeprecationWarning, match=rf"layouts\.{str(layout).upper()}") as warned:
            found = lie_derivative(squared, x, group, output_layout=name)
        assert warned[0].filename == __file__  # where the user wrote it
        assert torch.equal(found, lie_derivative(squared, x, group, output_layout=layout))
        with pytest.warns(DeprecationWarning, match="will go"):
            assert as_output_layout(name) == layout


def test_unknown_output_layouts_are_refused() -> None:
    x = images()
    windows = regrouped("(n y0 x0) (y1 x1) c", (4, 2), (6, 2))
    with pytest.raises(ValueError, match=r"Outputs are \[N, ...\].*\(n y0 x0\).*Let the model"):
        lie_derivative(squared, x, output_layout=windows)
    unusable: list[Any] = [UNKNOWN, "nchw", None]
    for layout in unusable:
        with pytest.raises(ValueError, match=r"Unknown output_layout.*TRIVIAL.*NCHW"):
            LocalEquivarianceError(squared, output_layout=layout)
        with pytest.raises(ValueError, match=r"Unknown output_layout"):
            eq_t(squared, x, output_layout=layout)
