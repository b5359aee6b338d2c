"""Pictures: what they show can be read back from the figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from captum_lie.plotting import plot_attribution, plot_lee, plot_maps


def shown(axes: Axes) -> AxesImage:
    return axes.get_images()[0]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_colours_are_diverging_and_centred_at_zero(scale: float) -> None:
    attribution = torch.zeros(3, 6, 9)
    attribution[0, 1, 2], attribution[1, 4, 7] = scale, -scale
    figure = plot_attribution(attribution, outlier_percentage=0, title="map")
    picture = shown(figure.axes[0])
    values: Any = picture.get_array()
    assert values.shape == (6, 9)
    assert (values[1, 2], values[4, 7]) == (pytest.approx(1), pytest.approx(-1))
    assert picture.get_clim() == (-1, 1)
    red, _, blue, _ = picture.get_cmap()(1.0)
    assert red > blue
    assert picture.get_cmap()(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.05)


def test_a_map_of_zeros_is_drawn_and_says_so() -> None:
    figure = plot_attribution(torch.zeros(3, 5, 7))
    assert [t.get_text() for t in figure.axes[0].texts] == ["zero everywhere"]
    sparse = torch.zeros(3, 40, 40)
    sparse[0, 0, 0] = 1.0
    figure = plot_attribution(sparse)
    assert [t.get_text() for t in figure.axes[0].texts] == ["almost all zero"]


def test_captums_methods_and_colour_bar() -> None:
    attribution = torch.randn(3, 6, 8)
    image = torch.rand(3, 6, 8)
    figure = plot_attribution(attribution, image, method="blended_heat_map", colorbar=True)
    assert len(figure.axes) == 2  # the map and its colour bar


def test_maps_are_laid_out_by_model_and_group() -> None:
    maps = [("rotation", torch.randn(3, 8, 8), 0.5), ("scale", torch.zeros(3, 8, 8), 0.0)]
    figure = plot_maps(torch.rand(3, 8, 8), [("cnn", maps), ("vit", maps)])
    grid = np.array(figure.axes).reshape(2, 3)
    assert [a.get_title() for a in grid[0]] == ["", "rotation", "scale"]
    assert [a.get_ylabel() for a in grid[:, 0]] == ["cnn", "vit"]
    assert [a.get_xlabel() for a in grid[1, 1:]] == ["0.5", "0"]


def test_bars_show_lee_and_its_standard_error() -> None:
    table = pd.DataFrame(
        [
            ("cnn", "rotation", 1.0, 0.25),
            ("cnn", "scale", 0.1, np.nan),
            ("cnn (untrained)", "rotation", 1e-4, 1e-5),
            ("cnn (untrained)", "scale", 1e-3, 2.0),
            ("vit", "rotation", 0.5, 0.1),
            ("vit", "scale", 0.0, 0.0),
        ],
        columns=["model", "group", "lee", "stderr"],
    )
    table["control_of"] = table["model"].map({"cnn (untrained)": "cnn"})
    figure = plot_lee(table)
    axes = figure.axes[0]
    bars: Any = axes.containers
    trained, untrained, vit = (container.patches for container in bars[1:6:2])
    assert [p.get_height() for p in trained] == [1.0, 0.1]
    assert [p.get_height() for p in untrained] == [1e-4, 1e-3]
    assert [p.get_height() for p in vit] == [0.5, 0.0]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["cnn", "vit", "untrained"]
    assert axes.get_yscale() == "log"
    segments = bars[0].lines[2][0].get_segments()
    assert segments[0][:, 1].tolist() == pytest.approx([0.75, 1.25])


def test_plots_say_what_they_cannot_draw() -> None:
    for bad in (torch.zeros(2, 3, 8, 8), torch.full((3, 8, 8), torch.nan)):
        with pytest.raises(ValueError, match=r"one finite map .* attribution\[0\]"):
            plot_attribution(bad)
