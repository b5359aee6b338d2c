"""Layouts of timm's modules, registered by class when the adapter is imported.

Only what the shapes cannot tell is said here and beside: which axis is the channels' where it may
be as long as the image is high, how tokens lie on a non-square grid (:mod:`captum_lie_timm.heads`,
:mod:`captum_lie_timm.regrouping`: where tokens are those of heads, or not in the order of the
image). Everything else (prefix and distillation tokens, registers, class attention) follows from
the shapes.
"""

from __future__ import annotations

from importlib import import_module

from timm.layers.format import Format
from timm.layers.layer_scale import LayerScale, LayerScale2d
from timm.layers.norm import (
    LayerNorm2d,
    LayerNorm2dFp32,
    LayerNormExp2d,
    RmsNorm,
    RmsNorm2d,
    RmsNorm2dFp32,
    RmsNormFp32,
    SimpleNorm,
    SimpleNorm2d,
    SimpleNorm2dFp32,
    SimpleNormFp32,
)
from timm.layers.norm_act import (
    FrozenBatchNormAct2d,
    LayerNormAct2d,
    LayerNormAct2dFp32,
    RmsNormAct2d,
    RmsNormAct2dFp32,
)
from timm.layers.patch_embed import PatchEmbed
from timm.models import (
    crossvit,
    fastvit,
    gcvit,
    hieradet_sam2,
    mambaout,
    maxxvit,
    sequencer,
    swiftformer,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    tiny_vit,
    vision_transformer_sam,
    volo,
)
from torch import Tensor, nn

from captum_lie.layouts import (
    NCHW,
    NHWC,
    Evidence,
    Layout,
    channels_last,
    image_or_trivial,
    register,
)


def channels_last_image(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules between which images are ``[N, h, w, C]``, also where C = h = w."""
    return NHWC if x.ndim == 4 else None


def patch_embedding(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of patch embeddings: the number of patches along each side, and the output's format.

    An embedding behind a convolutional stem sees a smaller image: there the shape has to tell.
    """
    assert isinstance(module, PatchEmbed)
    if x.ndim == 4:
        return NHWC if module.output_fmt == Format.NHWC else NCHW
    kind = "tokens_first" if module.output_fmt == Format.NCL else "tokens"
    layout = Layout(kind, grid=module.dynamic_feat_size(evidence.image))  # type: ignore[arg-type]
    return layout if layout.fits(x) else None


# These subclass nn.LayerNorm, whose own rule is channels last, but normalise [N, C, h, w].
register(
    *(LayerNorm2d, LayerNorm2dFp32, LayerNormExp2d),
    *(LayerNormAct2d, LayerNormAct2dFp32, FrozenBatchNormAct2d),
    *(RmsNorm2d, RmsNorm2dFp32, RmsNormAct2d, RmsNormAct2dFp32),
    *(SimpleNorm2d, SimpleNorm2dFp32, LayerScale2d),
    *(fastvit.LayerScale2d, swiftformer.LayerScale2d),
    input=image_or_trivial,
    output=image_or_trivial,
)

# Unpadded convolutions leave maps that are no whole stride of the image.
register(
    *(
        cls
        for name in ("inception_v3", "inception_v4", "inception_resnet_v2")
        for cls in vars(import_module(f"timm.models.{name}")).values()
        if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__.endswith(name)
    ),
    input=image_or_trivial,
    output=image_or_trivial,
)

# Norms and scales over the last axis.
register(
    *(RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32, LayerScale),
    input=channels_last,
)

register(PatchEmbed, input=image_or_trivial, output=patch_embedding)
register(crossvit.PatchEmbed, input=image_or_trivial)

# Stages and blocks whose images are [N, h, w, C].
register(
    *(swin_transformer.SwinTransformerStage, swin_transformer.SwinTransformerBlock),
    *(swin_transformer_v2.SwinTransformerV2Stage, swin_transformer_v2.SwinTransformerV2Block),
    *(swin_transformer.PatchMerging, swin_transformer_v2.PatchMerging),
    *(swin_transformer_v2_cr.SwinTransformerV2CrBlock, swin_transformer_v2_cr.PatchMerging),
    *(maxxvit.PartitionAttentionCl, gcvit.GlobalContextVitBlock, tiny_vit.TinyVitBlock),
    *(mambaout.MambaOutStage, mambaout.GatedConvBlock),
    *(mambaout.Downsample, mambaout.DownsampleNormFirst),
    *(sequencer.Sequencer2dStage, sequencer.Sequencer2dBlock, sequencer.Downsample2d),
    *(volo.Outlooker, volo.OutlookAttention, volo.Transformer, volo.Attention),
    *(vision_transformer_sam.Block, hieradet_sam2.MultiScaleBlock),
    input=channels_last_image,
    output=channels_last_image,
)
register(mambaout.Stem, hieradet_sam2.HieraPatchEmbed, output=channels_last_image)
register(mambaout.MlpHead, input=channels_last_image)
