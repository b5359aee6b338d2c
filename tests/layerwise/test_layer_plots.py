"""Layerwise pictures: what they show can be read back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from captum_lie.layerwise import LayerwiseEquivarianceError, layer_maps
from captum_lie.layerwise.kinds import module_kind
from captum_lie.layouts import NCHW, TRIVIAL, Layout
from captum_lie.plotting import boxes, icicle, plot_depth, plot_icicle, plot_layer_maps
from captum_lie.results import leading_calls
from tests.toy_models import build, images


def test_bars_along_depth_sum_to_the_total() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(3), "rotation")
    figure = plot_depth(result, result, titles=["a", "b"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    bars = [p.get_height() for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert sum(bars) == pytest.approx(result.total.mean().item())
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"convolution", "non-linearity", "pooling/downsampling"} <= set(legend)


def test_icicle_boxes_nest_and_show_their_contribution() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(), "rotation")
    box = icicle(result).data[0]
    values = dict(zip(box.ids, box.values, strict=True))
    table = result.to_dataframe()
    children = sum(v for v, parent in zip(box.values, box.parents, strict=True) if parent == "0")
    assert values["0"] == pytest.approx(children + abs(table["self_contribution"][0]))
    colours = np.array(box.marker.colors)
    assert colours == pytest.approx(table["contribution"].to_numpy())
    assert box.marker.cmid == 0
    assert "act #2" in box.labels


def test_static_icicle_tiles_the_same_tree() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(), "rotation")
    tree = boxes(result)
    assert [box.width for box in tree] == pytest.approx(list(icicle(result).data[0].values))
    at = {box.row: box for box in tree}
    for before, box in pairwise(tree):
        around = at[result.rows[box.row].parent]
        assert box.level == around.level + 1
        assert box.left >= around.left
        assert box.left + box.width <= (around.left + around.width) * (1 + 1e-12)
        if box.level == before.level:  # side by side
            assert box.left == pytest.approx(before.left + before.width)
    panel = plot_icicle(result, titles=["resnet"]).axes[0]
    drawn: list[Any] = list(panel.patches)
    assert len(drawn) == len(tree)
    root = drawn[0].get_facecolor()
    assert root[0] > root[2]  # the whole error is positive: red
    assert result.rows[0].type in {text.get_text() for text in panel.texts}


def test_maps_lie_over_the_image() -> None:
    tokens = torch.randn(1, 1 + 6, 4)
    maps = [
        ("conv", torch.ones(1, 5, 3, 4), NCHW),
        ("tokens", tokens, Layout("tokens", 1, (2, 3))),
    ]
    figure = plot_layer_maps(torch.rand(3, 8, 12), maps)
    overlay = figure.axes[2].get_images()[1]
    values = np.asarray(overlay.get_array())
    assert values == pytest.approx(tokens[0, 1:].sum(1).double().view(2, 3).numpy())
    assert tuple(overlay.get_extent()) == (0, 12, 8, 0)
    low, high = overlay.get_clim()
    assert low == -high
    with pytest.raises(ValueError, match="no spatial axes"):
        plot_layer_maps(torch.rand(3, 8, 12), [("head", torch.zeros(1, 4), TRIVIAL)])


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_maps_of_modules_sum_to_their_aligned_contributions(name: str) -> None:
    model, x = build(name), images()
    result = LayerwiseEquivarianceError(model).attribute(x, "rotation")
    leading = leading_calls(result, 4)
    assert len(leading) == 4
    rows = {(row.module, row.call): i for i, row in enumerate(result.rows)}
    drawn = {}
    for found in layer_maps(model, x, list({name for name, _ in leading}), "rotation"):
        i = rows[found.module, found.call]
        torch.testing.assert_close(found.attribution.flatten(1).sum(1), result.contributions[i])
        assert (found.layout,) == result.rows[i].output_layout
        drawn[found.module, found.call] = found.layout.moves
    assert all(drawn[key] for key in leading)
    with pytest.raises(ValueError, match="module"):
        layer_maps(model, x, ["nothing"])


def test_leading_calls_are_the_largest_in_order_of_depth() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(3))
    table = result.to_dataframe()
    drawn = table[table["is_leaf"] & (table["output_layout"] == "nchw")]
    size = result.self_contributions[drawn.index.to_list()].abs().mean(1).numpy()
    chosen = drawn.iloc[np.argsort(-size)[:3]].sort_index()
    largest = list(zip(chosen["module"], chosen["call"], strict=True))
    assert leading_calls(result, 3) == largest


@pytest.mark.parametrize(
    ("module", "leaf", "kind"),
    [
        (torch.nn.Conv2d(3, 4, 3), True, "convolution"),
        (torch.nn.Conv2d(3, 4, 3, stride=2), True, "pooling/downsampling"),
        (torch.nn.Conv2d(3, 4, 4, stride=4), True, "patch embedding"),
        (torch.nn.MaxPool2d(2), True, "pooling/downsampling"),
        (torch.nn.BatchNorm2d(3), True, "normalisation"),
        (torch.nn.GELU(), True, "non-linearity"),
        (torch.nn.Linear(3, 4), True, "MLP"),
        (torch.nn.MultiheadAttention(4, 2), False, "attention"),
        (torch.nn.Sequential(), False, "functional"),
        (torch.nn.Flatten(), True, "functional"),
    ],
)
def test_kinds(module: torch.nn.Module, leaf: bool, kind: str) -> None:
    assert module_kind(module, is_leaf=leaf) == kind
