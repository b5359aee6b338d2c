"""Smoothed maps: what they sum to stays, whatever the kernel and wherever the values lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage

from captum_lie.plotting import legible_sigma, plot_attribution, plot_maps, smooth_map


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0, 50.0])
@pytest.mark.parametrize("shape", [(1, 5), (7, 12), (3, 40, 25)])
def test_the_sum_is_kept(shape: tuple[int, ...], sigma: float) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape)
    found = smooth_map(values, sigma)
    assert found.shape == values.shape
    expected = values.double().sum((-2, -1))
    torch.testing.assert_close(found.sum((-2, -1)), expected, atol=1e-12, rtol=1e-12)


def pixels(drawn: AxesImage) -> np.ndarray:
    return np.asarray(drawn.get_array())


def test_a_corner_keeps_its_mass_and_spreads_as_a_gaussian() -> None:
    spike = torch.zeros(61, 61)
    spike[30, 30] = 1.0
    found = smooth_map(spike, 4.0)
    place = torch.arange(61) - 30.0
    kernel = torch.exp(-place.double().square() / 32)
    kernel = torch.where(place.abs() <= 17, kernel, 0) / kernel[13:48].sum()
    torch.testing.assert_close(found, torch.outer(kernel, kernel))
    corner = torch.zeros(61, 61)
    corner[0, 0] = 1.0
    found = smooth_map(corner, 4.0)
    assert found.sum().item() == pytest.approx(1, abs=1e-14)
    # Reflected at the pixel's outer edge: the first pixel gets its own share and its mirror's.
    assert found[0, 0].item() == pytest.approx(((kernel[30] + kernel[31]) ** 2).item())


def test_one_large_kernel_gives_the_mean() -> None:
    values = torch.rand(6, 9)
    found = smooth_map(values, 200.0)
    torch.testing.assert_close(found, values.double().mean().expand(6, 9), atol=1e-2, rtol=0)


def test_bad_kernels_are_refused() -> None:
    for sigma in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sigma must be a number of pixels"):
            smooth_map(torch.rand(3, 3), sigma)


def test_overlays_show_the_smoothed_values_over_the_grey_image() -> None:
    attribution = torch.zeros(3, 80, 80)
    attribution[1, 20, 60] = 5.0
    image = torch.rand(3, 80, 80)
    sigma = legible_sigma(80, 80)
    (axes,) = plot_attribution(
        attribution, image, method="overlay", smooth=sigma, outlier_percentage=0
    ).axes
    grey, shown = axes.get_images()
    assert pixels(grey).shape == (80, 80)
    values = torch.as_tensor(shown.get_array())
    expected = smooth_map(attribution, sigma).sum(0)
    torch.testing.assert_close(values, expected / expected.max())
    with pytest.raises(ValueError, match="pass it as the second"):
        plot_attribution(attribution, method="overlay")


def test_maps_of_models_of_different_sizes_lie_over_their_own_views() -> None:
    images = [torch.rand(1, 16, 16), torch.rand(5, 96, 96)]
    rows = [
        (name, [("rotation", torch.randn(x.shape), 0.0)])
        for name, x in zip(("a", "b"), images, strict=True)
    ]
    figure = plot_maps(images, rows)
    shapes = [[pixels(i).shape[:2] for i in a.get_images()] for a in figure.axes]
    assert shapes == [[(16, 16)], [(16, 16)], [(96, 96)], [(96, 96), (96, 96)]]
    raw = plot_maps(images, rows, smooth=0)
    assert len(raw.axes[3].get_images()) == 1
