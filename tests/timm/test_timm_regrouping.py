"""Regrouped tokens of timm's models: the layouts put every pixel where the model's own code did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")

from timm.models.hiera import Hiera

import captum_lie_timm  # noqa: F401 (registers the layouts)
from captum_lie import LayerLieDerivative, Translation
from captum_lie.layerwise import LayerwiseEquivarianceError, LayerwiseSampledError
from captum_lie.layerwise.fluxes import recorded
from captum_lie.layerwise.tracing import Boundary, Call
from captum_lie.layouts import Layout
from tests.timm.families import make

SMALL: dict[str, Any] = {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
NEW_TNT = timm.is_model("tnt_s_legacy_patch16_224")  # else the one of that name is the legacy
MODELS: list[tuple[str, tuple[int, int], dict[str, Any], int]] = [
    ("swin_tiny_patch4_window7_224", (64, 96), {"img_size": (64, 96), **SMALL}, 3),
    ("swinv2_tiny_window8_256", (64, 96), {"img_size": (64, 96), **SMALL}, 3),
    ("swinv2_cr_tiny_224", (64, 96), {"img_size": (64, 96), **SMALL}, 3),
    ("maxvit_pico_rw_256", (64, 64), {"img_size": 64}, 2),
    ("maxxvitv2_nano_rw_256", (64, 64), {"img_size": 64, "depths": (1, 1, 1, 1)}, 2),
    ("gcvit_xxtiny", (224, 224), {}, 2),
    ("davit_tiny", (112, 112), {"depths": (1, 1, 1, 1)}, 2),
    ("efficientvit_m0", (224, 224), {}, 1),
    ("nest_tiny", (112, 112), {"img_size": 112}, 2),
    ("tnt_s_legacy_patch16_224", (96, 64), {"img_size": (96, 64), "depth": 3}, 3),
    ("tnt_s_patch16_224", (96, 64), {"img_size": (96, 64), "depth": 3}, 4 if NEW_TNT else 3),
    ("mobilevit_xxs", (128, 192), {}, 3),
    ("mobilevitv2_050", (128, 192), {}, 3),
    ("hiera_tiny_224", (96, 64), {"img_size": (96, 64)}, 1),
    ("levit_128s", (224, 224), {}, 3),
    ("mvitv2_tiny", (64, 64), {"img_size": 64}, 2),
]


def prepared(name: str, options: dict[str, Any]) -> nn.Module:
    """A model whose code moves tokens without adding positions to them."""
    model = make(name, **options)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.rpartition(".")[2] in ("pos_embed", "pixel_pos"):
            nn.init.zeros_(parameter)
    return model


def holds(whole: Tensor, part: Tensor) -> bool:
    """Whether an image has another one among its channels, in their order."""
    many, few = whole.shape[1], part.shape[1]
    if whole.shape[2:] != part.shape[2:] or many % few:
        return False
    return any(torch.equal(chunk, part) for chunk in whole.split(few, 1))


@pytest.mark.parametrize(("name", "size", "options", "least"), MODELS, ids=[m[0] for m in MODELS])
def test_every_order_is_that_of_an_image_before_it(
    name: str, size: tuple[int, int], options: dict[str, Any], least: int
) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = prepared(name, options)
    torch.manual_seed(0)
    with recorded(model, (torch.rand(2, 3, *size),), output_fn=None) as recording:
        calls = recording.calls
    images: list[Tensor] = []  # in whose places every value is known to be right
    confirmed: set[Layout] = set()
    for call in calls:
        within = call.parent is not None and any(map(is_regrouped, call.parent.inputs))
        for boundary in (*call.inputs, *call.outputs):
            layout = boundary.layout
            if not layout.moves:
                continue
            image = layout.to_image(boundary.value)
            if is_regrouped(boundary):
                found = any(holds(source, image) for source in reversed(images))
                kept = boundary in call.outputs and any(  # as convolutions do
                    b.layout in confirmed and pattern(b) == pattern(boundary) for b in call.inputs
                )
                if found or kept:
                    confirmed.add(layout)
                elif boundary in call.inputs and not within and not pooled(name, call):
                    raise AssertionError(f"The input of {call.name} is not {layout}.")
            if layout in confirmed or not is_regrouped(boundary):
                images.append(image)
    regrouped = {b.layout for c in calls for b in (*c.inputs, *c.outputs) if is_regrouped(b)}
    assert regrouped == confirmed or "hiera" in name
    assert len(confirmed) >= least


def is_regrouped(boundary: Boundary) -> bool:
    return boundary.layout.kind == "regrouped"


def pattern(boundary: Boundary) -> str:
    return "" if boundary.layout.pattern is None else boundary.layout.pattern.axes


def pooled(name: str, call: Call) -> bool:
    """Whether orders come from pooling, which another test looks at."""
    return "hiera" in name and call.name not in ("unroll", "blocks.0")


def test_mask_units_are_rolled_back_as_by_hiera_itself() -> None:
    model = prepared("hiera_tiny_224", {"img_size": (96, 64)})
    assert isinstance(model, Hiera)
    torch.manual_seed(0)
    with recorded(model, (torch.rand(2, 3, 96, 64),), output_fn=None) as recording:
        calls = {call.name: call for call in recording.calls}
    kinds = set()
    for i in range(len(model.blocks)):
        (output,) = calls[f"blocks.{i}"].outputs
        rolled_back = model.reroll(output.value, i).permute(0, 3, 1, 2)
        assert torch.equal(output.layout.to_image(output.value), rolled_back)
        kinds.add(str(output.layout))
    assert len(kinds) == 4


def test_padded_windows_stay_unknown() -> None:
    model = make("swin_tiny_patch4_window7_224", img_size=(72, 96), **SMALL)  # 18 rows
    torch.manual_seed(0)
    result = LayerwiseEquivarianceError(model).attribute(torch.rand(2, 3, 72, 96))
    rows = {row.module: row for row in result.rows}
    assert rows["layers.0.blocks.0"].resolved
    assert not rows["layers.0.blocks.0.attn"].resolved
    torch.testing.assert_close(result.self_contributions.nansum(0), result.total)


def windowed() -> tuple[nn.Module, Tensor]:
    model = make("swin_tiny_patch4_window7_224", img_size=(64, 96), **SMALL, num_classes=5)
    torch.manual_seed(0)
    return model.double(), torch.rand(2, 3, 64, 96, dtype=torch.float64)


def test_one_layer_within_windows_in_both_modes() -> None:
    """Examples are told apart where windows take their place: forward mode = reverse mode."""
    model, images = windowed()
    group = Translation("y")
    name = "layers.0.blocks.1.attn.proj"
    attribution, delta = LayerLieDerivative(model, name).attribute(
        images, target=1, group=group, return_convergence_delta=True
    )
    assert attribution.shape == (2 * 24, 16, 12)
    torch.testing.assert_close(delta, torch.zeros_like(delta), rtol=0, atol=1e-12)
    result = LayerwiseEquivarianceError(model, output_fn=None).attribute(
        images, group, "target", target=1
    )
    row = [r.module for r in result.rows].index(name)
    sums = attribution.reshape(2, -1).sum(1)
    assert sums.abs().min() > 0
    torch.testing.assert_close(sums, result.contributions[row])


def test_norms_within_windows_by_both_modes() -> None:
    model, images = windowed()
    method = LayerwiseEquivarianceError(model)
    (one,) = method.attribute(images, ["rotation"], "norm")
    probed = method.attribute(images, "rotation", "norm", n_probes=4)
    parts = [method.attribute(images[i : i + 1], "rotation", "norm") for i in range(2)]
    alone = torch.cat([part.contributions for part in parts], 1)
    torch.testing.assert_close(one.contributions, alone, equal_nan=True)
    assert torch.isfinite(probed.contributions[0]).all()


def test_sampled_errors_of_windows() -> None:
    """Modules that pass windows on as they are, of an unknown layout, hold as many examples."""
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=24, depths=(2, 2), num_heads=(2, 4), img_size=56,
        num_classes=10,
    ).eval()  # fmt: skip
    x = torch.rand(2, 3, 56, 56)
    (result,) = LayerwiseSampledError(model).evaluate([x], "eq_t", n_samples=1)
    assert result.squared_error.shape == (len(result.rows), 2)
    passing = [i for i, row in enumerate(result.rows) if row.type == "Dropout" and row.resolved]
    assert passing
    assert not result.squared_error[passing].nan_to_num().any()
