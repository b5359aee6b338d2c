"""Layouts found in timm's models: the image is where they say, also off the beaten track."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")

from timm.layers.drop import DropBlock2d, DropPath
from timm.layers.patch_dropout import PatchDropout
from timm.layers.patch_embed import PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.hiera import HieraBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

import captum_lie_timm  # noqa: F401 (registers the layouts)
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.fluxes import recorded
from captum_lie.layerwise.tracing import Call
from captum_lie.layouts import NCHW, NHWC, TRIVIAL, UNKNOWN, Evidence, Layout, infer, passes_on
from captum_lie.results.rows import Row as TreeRow
from captum_lie_timm.classes import classes
from tests.timm.families import Row, block_share, is_element, make, measure

TALL = (224, 160)


def calls_of(model: nn.Module, images: Tensor) -> dict[str, Call]:
    """The first call of every module by name, outside of which nothing is kept."""
    with recorded(model.eval(), (images,), output_fn=None) as recording:
        return {call.name: call for call in recording.calls if call.index == 0}


def layouts_of(model: nn.Module, size: tuple[int, int]) -> dict[str, tuple[str, str]]:
    """The layouts at each module's input and output."""
    torch.manual_seed(0)
    calls = calls_of(model, torch.rand(2, 3, *size))
    return {
        name: (str(call.inputs[0].layout), str(call.outputs[0].layout))
        for name, call in calls.items()
        if call.inputs and call.outputs
    }


def vit(cls: type[nn.Module] = VisionTransformer, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    small = {"img_size": TALL, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 7}
    return cls(**small | options)


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        (vit(class_token=False, global_pool="avg"), 0),
        (vit(), 1),
        (vit(VisionTransformerDistilled), 2),
        (vit(reg_tokens=4), 5),
    ],
    ids=["none", "class", "distillation", "registers"],
)
def test_prefix_tokens_on_a_tall_image(model: nn.Module, prefix: int) -> None:
    found = layouts_of(model, TALL)
    tokens = str(Layout("tokens", prefix, (14, 10)))
    assert found["patch_embed"] == ("nchw", "tokens[14x10]")
    for name in ("blocks.0", "blocks.1.attn", "blocks.1.mlp.fc1", "norm"):
        assert found[name] == (tokens, tokens), name


def test_norms_of_queries_and_keys() -> None:
    attention_of: Any = vars(timm.models.vision_transformer)["Attention"]  # moved since 1.0.9
    attention = attention_of(32, num_heads=2, qk_norm=True, norm_layer=nn.LayerNorm)
    within = Evidence(2, TALL, ancestors=(attention,))
    queries = torch.zeros(2, 2, 141, 16)
    assert infer(attention.q_norm, queries, within, "input") == Layout("heads", 1, (14, 10))
    # Before heads and tokens are swapped, four heads are no grid of 2 x 2.
    swapped = torch.zeros(2, 141, 4, 16)
    assert infer(attention.q_norm, swapped, within, "input") == UNKNOWN
    # Blocks of tokens, as in NesT, are no heads.
    assert infer(nn.LayerNorm(16), queries, Evidence(2, TALL), "input") == UNKNOWN


def test_channels_as_many_as_rows() -> None:
    swin = SwinTransformer(
        img_size=64, embed_dim=16, depths=(2, 1), num_heads=(2, 2), window_size=4, num_classes=7
    )
    found = layouts_of(swin, (64, 64))  # [N, 16, 16, 16]
    for name in ("layers.0", "layers.0.blocks.1", "layers.0.blocks.0.norm1", "layers.1.downsample"):
        assert found[name] == ("nhwc", "nhwc"), name
    bare = Evidence(2, (64, 64))
    assert infer(swin.layers[0], torch.zeros(2, 16, 16, 16), bare, "input") == NHWC
    convnext = ConvNeXt(depths=(1, 1, 1, 1), dims=(16, 16, 16, 16), num_classes=7)
    found = layouts_of(convnext, (64, 64))
    for name in ("stages.0.blocks.0", "stages.1.downsample.0", "stages.0.blocks.0.conv_dw"):
        assert found[name] == ("nchw", "nchw"), name
    assert found["stages.0.blocks.0.norm"] == ("nhwc", "nhwc")
    x = torch.zeros(2, 16, 16, 16)
    for norm in classes("layers.norm", "LayerNorm2d", "RmsNorm2d", "SimpleNorm2d"):
        assert infer(norm(16), x, Evidence(2, (64, 64)), "input") == NCHW


def test_channels_as_many_as_a_grid_of_tokens() -> None:
    found = layouts_of(vit(img_size=64, embed_dim=64), (64, 64))  # 1 + 4 x 4 tokens, or 8 x 8
    for name in ("blocks.0", "blocks", "blocks.1", "blocks.0.mlp"):
        assert found[name] == ("tokens[1+4x4]", "tokens[1+4x4]"), name


def test_unpadded_convolutions() -> None:
    found = layouts_of(make("inception_v4"), (139, 139))
    for name in ("features.3", "features.5", "features.10"):
        assert found[name] == ("nchw", "nchw"), name


def test_patch_embeddings_say_how_they_flatten() -> None:
    tall = Evidence(2, TALL)
    for output_fmt, expected in (
        (None, Layout("tokens", grid=(14, 10))),
        ("NHWC", NHWC),
        ("NCHW", NCHW),
        ("NCL", Layout("tokens_first", grid=(14, 10))),
    ):
        # As many channels as tokens, or as rows: the shape alone cannot tell.
        channels = 140 if output_fmt in (None, "NCL") else 14
        embed = PatchEmbed(img_size=TALL, embed_dim=channels, output_fmt=output_fmt)
        assert infer(embed, embed(torch.zeros(2, 3, *TALL)), tall, "output") == expected


def test_windows_and_the_blocks_around_them() -> None:
    swin = SwinTransformer(
        img_size=(64, 96), embed_dim=12, depths=(2, 2), num_heads=(2, 2), window_size=4
    )
    result = decompose(swin, (64, 96))
    rows = {row.module: row for row in result}
    windows = "regrouped[16x24: (n y0 x0) (y1 x1) c"
    (entering,) = rows["layers.0.blocks.0.attn.qkv"].input_layout
    (leaving,) = rows["layers.0.blocks.1.attn.qkv"].output_layout
    assert str(entering) == windows + "]"
    assert str(leaving) == windows + " rolled -2 -2]"
    blocks = [row for row in result if row.type == "SwinTransformerBlock"]
    assert len(blocks) == 4
    for row in blocks:
        assert row.resolved
        assert (row.input_layout, row.output_layout) == ((NHWC,), (NHWC,))


def decompose(model: nn.Module, size: tuple[int, int]) -> list[TreeRow]:
    torch.manual_seed(0)
    result = LayerwiseEquivarianceError(model.eval()).attribute(torch.rand(2, 3, *size))
    assert block_share(result) == 1
    torch.testing.assert_close(
        result.self_contributions.nansum(0), result.total, rtol=1e-4, atol=1e-12
    )
    return result.rows


def test_what_only_drops_in_training_passes_its_input_on() -> None:
    for module, shape in (
        (DropPath(0.5), (2, 9, 4)),
        (DropBlock2d(0.5), (2, 4, 8, 8)),
        (PatchDropout(0.5), (2, 9, 4)),
    ):
        x = torch.rand(shape)
        assert not torch.equal(module.train()(x), x)
        assert torch.equal(module.eval()(x), x)
        assert passes_on(module)


def test_class_attention_does_not_move() -> None:
    cait = timm.create_model("cait_xxs24_224", img_size=64, embed_dim=32, depth=1)
    rows = {row.module: row for row in decompose(cait, (64, 64))}
    assert rows["blocks_token_only.1.mlp.fc1"].output_layout == (TRIVIAL,)
    assert rows["blocks_token_only.0.attn"].output_layout == (TRIVIAL,)


def test_mask_units_are_not_read_as_a_grid() -> None:
    block = HieraBlock(dim=32, dim_out=32, heads=2)
    within = Evidence(2, (64, 64), ancestors=(block,))
    tokens = torch.zeros(2, 256, 32)
    assert infer(block, tokens, within, "input") == UNKNOWN  # outside of Hiera, their order is not
    assert infer(block.norm1, tokens, within, "output") == UNKNOWN


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet10t", (96, 64), {}),
        ("convnext_zepto_rms", (96, 64), {}),
        ("swin_tiny_patch4_window7_224", (112, 112), {"img_size": 112}),
        ("nest_tiny", (112, 112), {"img_size": 112}),
        ("tnt_s_legacy_patch16_224", (96, 64), {"img_size": (96, 64)}),
        ("tnt_s_patch16_224", (96, 64), {"img_size": (96, 64)}),
        ("mobilevit_xxs", (128, 192), {}),
        ("hiera_tiny_224", (96, 64), {"img_size": (96, 64)}),
        ("maxvit_pico_rw_256", (64, 64), {"img_size": 64}),
        ("vit_tiny_patch16_dinov3_qkvb", (96, 64), {"img_size": (96, 64)}),
        ("mixer_s16_224", (96, 96), {"img_size": 96}),
    ],
)
def test_a_change_in_one_corner_is_in_that_corner_of_every_block(
    name: str, size: tuple[int, int], options: dict[str, Any]
) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = make(name, **options)
    torch.manual_seed(0)
    plain = torch.rand(2, 3, *size)
    changed = plain.clone()
    changed[:, :, : size[0] // 2, size[1] // 2 :] += 0.1 * torch.rand(
        2, 3, size[0] // 2, size[1] // 2
    )
    before, after = calls_of(model, plain), calls_of(model, changed)
    checked = 0
    for module, call in before.items():
        for old, new in zip(call.outputs, after[module].outputs, strict=True):
            if not (old.layout.moves and call.has_children and is_element(module)):
                continue
            image = old.layout.to_image(new.value - old.value)
            height, width = image.shape[2] // 2, image.shape[3] // 2
            if min(height, width) < 2:
                continue
            energy = image.square().sum((0, 1))
            corners = torch.stack(
                [
                    energy[-height:, :width].sum(),
                    energy[-height:, -width:].sum(),
                    energy[:height, :width].sum(),
                    energy[:height, -width:].sum(),
                ]
            )
            assert corners.argmax() == 3, (module, str(old.layout), corners)
            checked += 1
    assert checked >= 2


NAMED = {
    "resnet10t": 0.95,
    "convnext_zepto_rms": 0.95,
    "mobilenetv2_035": 0.95,
    "vit_tiny_patch16_224": 0.95,
    "deit_tiny_distilled_patch16_224": 0.95,
    "mixer_s32_224": 0.95,
    "resmlp_12_224": 0.95,
    "swin_tiny_patch4_window7_224": 0.8,
    "swinv2_tiny_window8_256": 0.8,
    "maxvit_pico_rw_256": 0.8,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "leaves"), NAMED.items())
def test_decompositions_are_complete_and_resolved(name: str, leaves: float) -> None:
    row: Row = measure(name)
    assert row.status == "ok", row
    assert row.leaves >= leaves, row
    assert row.blocks == 1, row
