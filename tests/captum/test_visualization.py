"""Captum's image visualiser draws our maps; where it refuses or misleads, ours draws them."""

from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from captum.attr import visualization
from matplotlib.axes import Axes
from torch import Tensor, nn

from captum_lie import LieDerivative, LocalEquivarianceError, Translation
from captum_lie.plotting import plot_attribution
from tests.toy_models import build, images

matplotlib.use("Agg")


def channels_last(x: Tensor) -> Any:
    return x.permute(1, 2, 0).numpy()


def shown(axes: Axes, image: int = 0) -> Any:
    return np.asarray(axes.get_images()[image].get_array())


def scaled(values: Any, outliers: float = 2) -> Any:
    """Captum's scale: the value up to which the magnitudes add up to 98 % of their sum."""
    sizes = np.sort(np.abs(values).flatten())
    scale = sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() * (1 - outliers / 100))]
    return np.clip(values / scale, -1, 1)


@pytest.mark.parametrize("cls", [LieDerivative, LocalEquivarianceError])
@pytest.mark.parametrize("use_pyplot", [False, True])
def test_the_heat_map_shows_the_attribution(cls: Any, use_pyplot: bool) -> None:
    model, x = build("resnet"), images()
    attribution = cls(model).attribute(x, target=1, group="rotation")[0]
    attribution = attribution / attribution.abs().max()  # Captum warns of small values
    _, axes = visualization.visualize_image_attr(
        channels_last(attribution),
        channels_last(x[0]),
        method="heat_map",
        sign="all",
        show_colorbar=True,
        use_pyplot=use_pyplot,
    )
    expected = scaled(attribution.sum(0).numpy())
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(shown(axes), expected, atol=1e-12)
    plt.close("all")


def test_several_methods_side_by_side() -> None:
    model, x = build("resnet"), images()
    attribution = LieDerivative(model).attribute(x, target=1, group="scale")[0]
    figure, _ = visualization.visualize_image_attr_multiple(
        channels_last(attribution),
        channels_last(x[0]),
        methods=["original_image", "heat_map", "blended_heat_map", "masked_image"],
        signs=["all", "positive", "absolute_value", "positive"],
        use_pyplot=False,
    )
    original, positive, blended, masked = figure.axes[:4]
    values = attribution.sum(0).numpy()
    pixels = (channels_last(x[0]) * 255).astype(np.uint8)
    np.testing.assert_array_equal(shown(original), pixels)
    heat = scaled(np.maximum(values, 0))
    np.testing.assert_allclose(shown(positive), heat, atol=1e-12)
    np.testing.assert_allclose(shown(blended, -1), scaled(np.abs(values)), atol=1e-12)
    kept = shown(masked)
    assert (kept[heat == 0] == 0).all()
    assert (kept[heat == 1] == pixels[heat == 1]).all()


def test_a_map_of_zeros_stops_captums_visualiser_and_not_ours() -> None:
    x = images()
    attribution = LocalEquivarianceError(nn.Flatten(), output_fn=lambda y: 0 * y).attribute(x)[0]
    assert attribution.abs().max() == 0
    with pytest.raises(AssertionError, match="scale factor = 0"):
        visualization.visualize_image_attr(channels_last(attribution), sign="all", use_pyplot=False)
    (axes,) = plot_attribution(attribution, x[0]).axes
    assert [t.get_text() for t in axes.texts] == ["zero everywhere"]


def test_an_equivariant_models_rounding_is_not_shown_as_a_signal() -> None:
    """A circular convolution, pooled, is invariant to circular translation: J ξ = 0."""
    model = nn.Sequential(build("dense"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = images(1, (9, 9))
    group = Translation("x", interpolation="fourier")
    attribution = LocalEquivarianceError(model).attribute(x, group=group)[0]
    signal = LocalEquivarianceError(build("resnet")).attribute(x, group=group)[0]
    assert 0 < attribution.abs().max() < 1e-12 * signal.abs().max()
    with pytest.warns(UserWarning, match="approximately 0"):
        _, axes = visualization.visualize_image_attr(
            channels_last(attribution), sign="all", use_pyplot=False
        )
    assert np.abs(shown(axes)).max() == 1  # full colour, out of rounding
    (ours,) = plot_attribution(attribution).axes
    assert [t.get_text() for t in ours.texts] == ["zero everywhere"]
    assert np.abs(shown(ours)).max() < 1e-12
