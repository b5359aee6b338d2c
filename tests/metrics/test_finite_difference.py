"""Finite-difference LEE: within its own error bar of the exact one, and bars worth having."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_lie import GROUP_NAMES, LocalEquivarianceError, get_groups
from captum_lie.examples import MODEL_NAMES, load_images, load_model
from captum_lie.layouts import NCHW
from captum_lie.metrics import MetricTable, finite_difference_lee
from captum_lie.metrics.finite_difference import Curve
from captum_lie.metrics.settings import EvaluationOptions
from captum_lie.resampling import Interpolation
from tests.toy_models import build, images


def exact(name: str, x: Tensor) -> NDArray[np.float64]:
    groups = get_groups("all")
    model = load_model(name).double()
    return LocalEquivarianceError(model).score(x.double(), groups).numpy()


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_within_its_error_bar_of_the_exact_lee_for_every_group(name: str) -> None:
    x = load_images(64)[0][::4]
    truth = exact(name, x)
    table = finite_difference_lee(load_model(name), x)
    assert [r.variant for r in table] == list(GROUP_NAMES)
    covered = []
    for i, result in enumerate(table):
        assert result.error_bar is not None
        assert result.numerical_error is not None
        assert abs(result.value - truth[:, i].mean()) <= result.error_bar
        # Kinks make bars wide, but never useless.
        assert result.error_bar < 0.25 * result.value
        covered.append(np.abs(result.per_example - truth[:, i]) <= result.numerical_error)
    assert np.mean(covered) > 0.95  # image by image


@pytest.mark.parametrize("name", ["vit", "mixer"])
def test_bars_of_smooth_models_are_narrow(name: str) -> None:
    x = load_images(8)[0]
    for result in finite_difference_lee(load_model(name), x):
        assert result.error_bar is not None
        assert result.error_bar < 0.05 * result.value


@pytest.mark.parametrize("interpolation", ["bilinear", "central", "fourier"])
def test_every_rule_in_double_precision(interpolation: Interpolation) -> None:
    model, x = build("resnet_smooth"), images(3)
    groups = get_groups("all", interpolation=interpolation)
    truth = LocalEquivarianceError(model).score(x, groups).numpy()
    for i, result in enumerate(finite_difference_lee(model, x, groups)):
        assert result.numerical_error is not None
        gap = np.abs(result.per_example - truth[:, i])
        assert (gap <= result.numerical_error).all()
        assert (result.numerical_error < 1e-4 * truth[:, i] + 1e-18).all()


def test_moving_the_image_gives_the_same_derivative_under_smooth_rules() -> None:
    model, x = build("vit"), images(2)
    for interpolation in ("central", "fourier"):
        groups = get_groups("all", interpolation=interpolation)
        truth = LocalEquivarianceError(model).score(x, groups).numpy()
        for i, result in enumerate(finite_difference_lee(model, x, groups, path="act")):
            assert result.numerical_error is not None
            assert (np.abs(result.per_example - truth[:, i]) <= result.numerical_error).all()
            assert np.allclose(result.per_example, truth[:, i], rtol=1e-3)
            assert result.parameters["path"] == "act"


def test_moving_the_image_is_refused_where_the_rule_has_kinks() -> None:
    with pytest.raises(ValueError, match="path='generator'"):
        finite_difference_lee(build("vit"), images(), "rotation", path="act")


def test_dense_outputs() -> None:
    model, x = build("dense"), images(2, (8, 8))
    groups = get_groups("all", interpolation="central", border="circular")
    options: EvaluationOptions = {"output_fn": None, "output_layout": NCHW}
    method = LocalEquivarianceError(model, output_fn=None, output_layout=NCHW)
    truth = method.score(x, groups).numpy()
    for i, result in enumerate(finite_difference_lee(model, x, groups, **options)):
        assert result.numerical_error is not None
        assert (np.abs(result.per_example - truth[:, i]) <= result.numerical_error + 1e-15).all()
        assert np.allclose(result.per_example, truth[:, i], rtol=1e-5, atol=1e-10)


def test_a_kink_at_the_image_itself_is_inside_the_bar() -> None:
    """|s| at s = 0 has one-sided slopes only: the central difference 0 must not look certain."""
    x = images(1)

    def model(z: Tensor) -> Tensor:
        s = (z - x).mean((2, 3))
        return s.abs()

    result = finite_difference_lee(model, x, "brightness", output_fn=None)[0]
    one_sided = x.mean((2, 3)).square().mean().item()
    assert result.value < 1e-12
    assert result.error_bar is not None
    assert result.error_bar > one_sided


def test_a_kink_beside_the_image_is_inside_the_bar() -> None:
    for distance in (1e-5, 1e-4, 1e-3, 1e-2):
        x = torch.full((1, 1, 2, 2), 1.0)

        def model(z: Tensor, distance: float = distance) -> Tensor:
            return (z.mean((2, 3)) - 1 - distance).relu() + 0.1 * z.mean((2, 3))

        result = finite_difference_lee(model, x, "brightness", output_fn=None)[0]
        assert result.error_bar is not None
        assert abs(result.value - 0.1**2) <= result.error_bar


def test_a_slope_that_only_the_finest_steps_see_is_inside_the_bar() -> None:
    """Slope 1.5 next to the image, 1 beyond: the coarse steps agree, and are wrong."""
    x = torch.ones(1, 1, 2, 2)
    for reach in (2.0**-9, 2.0**-11):

        def model(z: Tensor, reach: float = reach) -> Tensor:
            t = z.mean((2, 3)) - 1
            return t + 0.5 * t.clamp(-reach, reach)

        result = finite_difference_lee(model, x, "brightness", output_fn=None)[0]
        assert result.error_bar is not None
        assert abs(result.value - 1.5**2) <= result.error_bar


def test_a_slope_lost_in_rounding_is_inside_the_bar() -> None:
    """Steps of 1/1024 hide a slope of 1/1000: no difference is ever seen."""

    def model(z: Tensor) -> Tensor:
        return 1 + ((z.mean((2, 3)) - 1) / 1000 * 1024).round() / 1024

    x = torch.ones(1, 1, 2, 2)
    result = finite_difference_lee(model, x, "brightness", output_fn=None, precision=1e-3)[0]
    assert result.value == 0
    assert result.error_bar is not None
    assert result.error_bar > 1e-6


def test_moving_the_image_shows_the_model_moved_images() -> None:
    """Fourier translation of an odd size is orthogonal; a step along the tangent is not."""
    x, lengths = images(1, (7, 9)), []

    def spy(z: Tensor) -> Tensor:
        lengths.append(z.flatten(1).norm(dim=1))
        return z.mean((2, 3))

    paths: list[tuple[Curve, bool]] = [("act", True), ("generator", False)]
    for path, same in paths:
        lengths.clear()
        finite_difference_lee(
            spy,
            x,
            "translation_x",
            path=path,
            interpolation="fourier",
        )
        assert torch.allclose(torch.cat(lengths), lengths[0], rtol=1e-9) == same


def test_coarse_outputs_are_measured_with_larger_steps() -> None:
    """A model whose scores are rounded to multiples of 1/1024, as a quantised one's."""
    model, x = build("vit"), images(2)

    def coarse(z: Tensor) -> Tensor:
        return (model(z) * 1024).round() / 1024

    truth = LocalEquivarianceError(model).score(x, ["rotation", "scale"]).numpy()
    for i, result in enumerate(
        finite_difference_lee(coarse, x, ["rotation", "scale"], precision=1e-3)
    ):
        assert result.numerical_error is not None
        assert (np.abs(result.per_example - truth[:, i]) <= result.numerical_error).all()
        assert result.error_bar is not None
        assert result.error_bar < 10 * result.value


def test_an_image_that_cannot_move_has_no_lee() -> None:
    model = build("vit")
    for level in (0.0, 0.5):
        x = torch.full((1, 3, 8, 12), level, dtype=torch.float64)
        result = finite_difference_lee(model, x, "rotation")[0]
        assert result.value < 1e-20
        assert result.error_bar is not None
        assert result.error_bar < 1e-6


def test_loader_and_batches_do_not_matter() -> None:
    model, x = build("mixer"), images(5)
    whole = finite_difference_lee(model, x, ["shear_x", "brightness"])
    parts = finite_difference_lee(model, [x[:2], x[2:]], ["shear_x", "brightness"], batch_size=3)
    for a, b in zip(whole, parts, strict=True):
        assert np.allclose(a.per_example, b.per_example, rtol=1e-6, atol=0)


def test_wrong_precision_is_refused() -> None:
    def run() -> MetricTable:
        return finite_difference_lee(build("vit"), images(), precision=0.0)

    with pytest.raises(ValueError, match="precision"):
        run()
