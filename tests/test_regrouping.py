"""Laws of regrouped layouts: an image in another order is the same image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_lie import LayerLieDerivative, Rotation, Translation
from captum_lie.layerwise import (
    LayerwiseEquivarianceError,
    LayerwiseSampledError,
    SubnetworkEquivarianceError,
    layer_maps,
)
from captum_lie.layerwise.decomposition import Measure
from captum_lie.layouts import UNKNOWN, Evidence, Layout, Regrouping, infer, regrouped
from captum_lie.layouts.rules import after_linear

WINDOWS = regrouped("(n y0 x0) c (y1 x1)", height=(4, 2), width=(6, 2))
ORDERS = [
    WINDOWS,
    regrouped("n (y0 x0) (y1 x1) c", (4, 2), (6, 2), shift=(-1, 3)),
    regrouped("(n y1 x1) (y0 x0) c", (4, 2), (6, 2)),
    regrouped("n (y1 x1 y0 x0) c", (4, 2), (6, 2)),
    regrouped("(n c0) c1 y0 x0", (8,), (12,), channels=(2,)),
    regrouped("n c (x0 y0)", (8,), (12,)),
    regrouped("n (c y0) x0", (8,), (12,)),
]
SHAPES = {
    "(n y0 x0) c (y1 x1)": (48, 6, 4),
    "n (y0 x0) (y1 x1) c": (2, 24, 4, 6),
    "(n y1 x1) (y0 x0) c": (8, 24, 6),
    "n (y1 x1 y0 x0) c": (2, 96, 6),
    "(n c0) c1 y0 x0": (4, 3, 8, 12),
    "n c (x0 y0)": (2, 6, 96),
    "n (c y0) x0": (2, 48, 12),
}


def order(x: Tensor) -> Tensor:
    """``WINDOWS``, as a model would write it."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4)


@pytest.mark.parametrize("layout", ORDERS, ids=str)
def test_there_and_back(layout: Layout) -> None:
    image = torch.randn(2, 6, 8, 12)
    assert layout.pattern is not None
    like = torch.empty(SHAPES[layout.pattern.axes])
    x = layout.from_image(image, like)
    assert x.shape == like.shape
    assert torch.equal(layout.to_image(x), image)
    assert layout.examples(x) == 2
    assert layout.extent(x) == (8, 12)
    moved = layout.generator(Rotation(), x)
    assert torch.equal(layout.to_image(moved), Rotation().generator(image))


def test_every_pixel_is_where_the_pattern_says() -> None:
    layout = regrouped("n (y1 x0) (x1 y0) c", (2, 3), (3, 2), shift=(1, -2))
    image = torch.randn(2, 5, 6, 6)
    x = layout.from_image(image, torch.empty(2, 9, 4, 5))
    for row in range(6):
        for column in range(6):
            y, z = (row + 1) % 6, (column - 2) % 6  # after the roll
            first, second = (y % 3) * 3 + z // 2, (z % 2) * 2 + y // 3
            assert torch.equal(x[:, first, second], image[:, :, row, column])


def test_windows_are_those_of_a_model() -> None:
    image = torch.randn(2, 6, 8, 12)
    assert torch.equal(WINDOWS.to_image(order(image)), image)
    assert not WINDOWS.fits(torch.empty(47, 6, 4))
    assert not WINDOWS.fits(torch.empty(48, 6, 5))
    assert not WINDOWS.fits(torch.empty(48, 24))
    with pytest.raises(ValueError, match=r"\(48, 6, 5\).*does not have the layout"):
        WINDOWS.to_image(torch.empty(48, 6, 5))


@pytest.mark.parametrize(
    ("pattern", "height", "width", "channels", "message"),
    [
        ("y0 n x0 c", (2,), (2,), (), "n, which comes first"),
        ("n y0 x0 z", (2,), (2,), (), "n, which comes first"),
        ("n y0 y0 x0 c", (2,), (2,), (), "each once"),
        ("n (y0 y1) x0 c", (2,), (2,), (), "every y needs a height"),
        ("n y0 x0 c", (2, 2), (2,), (), "no others"),
        ("n y0 x0 c", (2,), (2,), (3,), "fewer channel factors"),
        ("(n c0) c1 y0 x0", (2,), (2,), (), "sizes of the c"),
    ],
)
def test_what_is_no_regrouping_says_why(
    pattern: str,
    height: tuple[int, ...],
    width: tuple[int, ...],
    channels: tuple[int, ...],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Regrouping(pattern, height, width, channels)


def test_inference_knows_whose_the_first_axis_is() -> None:
    x = torch.zeros(48, 6, 4)
    assert infer(nn.GELU(), x, Evidence(2, (8, 12), known=WINDOWS), "input") == WINDOWS
    assert infer(nn.GELU(), x, Evidence(4, (8, 12), known=WINDOWS), "input") == UNKNOWN
    assert infer(nn.GELU(), x, Evidence(2, (8, 12)), "input") == UNKNOWN


def test_linear_maps_of_channels_keep_the_order() -> None:
    blocks = regrouped("n (y0 x0) (y1 x1) c", (4, 2), (6, 2))
    x = torch.zeros(2, 24, 4, 9)
    assert after_linear(nn.Linear(6, 9), x, Evidence(2, (8, 12), sources=(blocks,))) == blocks
    mixing = Evidence(2, (8, 12), sources=(WINDOWS,))  # whose last axis are the pixels
    assert after_linear(nn.Linear(4, 4), torch.zeros(48, 6, 4), mixing) == UNKNOWN


class Windowed(nn.Module):
    """A map within windows, where the batch axis is not that of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(order(x))
        n, c, h, w = x.shape
        back = mixed.reshape(n, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return back.reshape(x.shape)


class Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean((2, 3))


@pytest.fixture(name="model")
def model_with_windows() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3, padding=1), Windowed(), nn.Tanh(), Head())
    return nn.Sequential(*layers).double().eval()


IMAGES = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LAYOUTS = {"1.mix": WINDOWS, "1.mix.0": WINDOWS, "1.mix.1": WINDOWS}


@pytest.mark.parametrize("measure", ["aligned", "target", "norm"])
def test_reordering_contributes_nothing(model: nn.Sequential, measure: Measure) -> None:
    """A container that only puts windows around a module has its contribution, in all measures."""
    method = LayerwiseEquivarianceError(model, layouts=LAYOUTS)
    result = method.attribute(
        IMAGES,
        Translation("y"),
        measure,
        target=1 if measure == "target" else None,
    )
    names = [row.module for row in result.rows]
    container, mix = (result.contributions[names.index(name)] for name in ("1", "1.mix"))
    assert mix.abs().min() > 0
    torch.testing.assert_close(mix, container)
    own = result.self_contributions[names.index("1")]
    torch.testing.assert_close(own, torch.zeros_like(own), rtol=0, atol=1e-15)
    assert result.resolved_share == 1


def test_one_layer_is_the_same_from_within_windows_and_from_outside(model: nn.Sequential) -> None:
    method = LayerLieDerivative(model, ["1", "1.mix"], layouts=LAYOUTS)
    (outside, inside), deltas = method.attribute(
        IMAGES, target=2, group="rotation", return_convergence_delta=True
    )
    torch.testing.assert_close(WINDOWS.to_image(inside), outside)
    for delta in deltas:
        torch.testing.assert_close(delta, torch.zeros_like(delta), rtol=0, atol=1e-14)


def test_baselines_and_subnetworks_are_the_same_from_within(model: nn.Sequential) -> None:
    sampled = LayerwiseSampledError(model, layouts=LAYOUTS)
    for result in sampled.evaluate([IMAGES], n_samples=2):
        means = dict(result.to_dataframe()[["module", "mean"]].to_numpy())
        assert means["1"] > 0
        assert means["1.mix"] == pytest.approx(means["1"])
    heads = SubnetworkEquivarianceError(model, layouts=LAYOUTS).attribute(IMAGES, "rotation")
    rows = heads.to_dataframe().set_index("module")
    numbers = rows.select_dtypes("number").drop(columns=["call", "depth"]).to_numpy()
    names = list(rows.index)
    assert numbers[names.index("1.mix")] == pytest.approx(numbers[names.index("1")], nan_ok=True)


def test_maps_of_windows_can_be_drawn(model: nn.Sequential) -> None:
    outside, inside = layer_maps(model, IMAGES, ["1", "1.mix"], layouts=LAYOUTS)
    torch.testing.assert_close(
        inside.layout.to_image(inside.attribution), outside.attribution, rtol=1e-9, atol=1e-15
    )
