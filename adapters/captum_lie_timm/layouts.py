"""Layouts of timm's modules, registered by class when the adapter is imported.

Only what the shapes cannot tell is said here and beside: which axis is the channels' where it may
be as long as the image is high, how tokens lie on a non-square grid (:mod:`captum_lie_timm.heads`,
:mod:`captum_lie_timm.regrouping`: where tokens are those of heads, or not in the order of the
image). Everything else (prefix and distillation tokens, registers, class attention) follows from
the shapes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_lie.layouts import (
    NCHW,
    NHWC,
    Evidence,
    Layout,
    channels_last,
    image_or_trivial,
    register,
    register_passing,
)
from captum_lie_timm.classes import classes, classes_in


def channels_last_image(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules between which images are ``[N, h, w, C]``, also where C = h = w."""
    return NHWC if x.ndim == 4 else None


def patch_embedding(module: Any, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of patch embeddings: the number of patches along each side, and the output's format.

    An embedding behind a convolutional stem sees a smaller image: there the shape has to tell.
    """
    if x.ndim == 4:
        return NHWC if module.output_fmt == "NHWC" else NCHW
    turned = module.output_fmt == "NCL"
    grid = module.dynamic_feat_size(evidence.image)
    layout = Layout("tokens_first" if turned else "tokens", grid=grid)
    return layout if layout.fits(x) else None


# Stochastic depth and the like do nothing in evaluation mode.
register_passing(
    *classes("layers.drop", "DropPath", "DropBlock2d"),
    *classes("layers.patch_dropout", "PatchDropout"),
)

# These subclass nn.LayerNorm, whose own rule is channels last, but normalise [N, C, h, w].
register(
    *classes("layers.norm", "LayerNorm2d", "LayerNorm2dFp32", "LayerNormExp2d"),
    *classes("layers.norm", "RmsNorm2d", "RmsNorm2dFp32", "SimpleNorm2d", "SimpleNorm2dFp32"),
    *classes("layers.norm_act", "LayerNormAct2d", "LayerNormAct2dFp32", "FrozenBatchNormAct2d"),
    *classes("layers.norm_act", "RmsNormAct2d", "RmsNormAct2dFp32"),
    *classes("layers.layer_scale", "LayerScale2d"),
    *classes("models.fastvit", "LayerScale2d"),
    *classes("models.swiftformer", "LayerScale2d"),
    input=image_or_trivial,
    output=image_or_trivial,
)

# Unpadded convolutions leave maps that are no whole stride of the image.
register(
    *classes_in("models.inception_v3"),
    *classes_in("models.inception_v4"),
    *classes_in("models.inception_resnet_v2"),
    input=image_or_trivial,
    output=image_or_trivial,
)

# Norms and scales over the last axis.
register(
    *classes("layers.norm", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"),
    *classes("layers.layer_scale", "LayerScale"),
    input=channels_last,
)

register(
    *classes("layers.patch_embed", "PatchEmbed"), input=image_or_trivial, output=patch_embedding
)
register(*classes("models.crossvit", "PatchEmbed"), input=image_or_trivial)

# Stages and blocks whose images are [N, h, w, C].
_SWIN = "models.swin_transformer"
register(
    *classes(_SWIN, "SwinTransformerStage", "SwinTransformerBlock", "PatchMerging"),
    *classes(f"{_SWIN}_v2", "SwinTransformerV2Stage", "SwinTransformerV2Block", "PatchMerging"),
    *classes(f"{_SWIN}_v2_cr", "SwinTransformerV2CrBlock", "PatchMerging"),
    *classes("models.maxxvit", "PartitionAttentionCl"),
    *classes("models.gcvit", "GlobalContextVitBlock"),
    *classes("models.tiny_vit", "TinyVitBlock"),
    *classes("models.mambaout", "MambaOutStage", "GatedConvBlock"),
    *classes("models.mambaout", "Downsample", "DownsampleNormFirst"),
    *classes("models.sequencer", "Sequencer2dStage", "Sequencer2dBlock", "Downsample2d"),
    *classes("models.volo", "Outlooker", "OutlookAttention", "Transformer", "Attention"),
    *classes("models.vision_transformer_sam", "Block"),
    *classes("models.hieradet_sam2", "MultiScaleBlock"),
    input=channels_last_image,
    output=channels_last_image,
)
register(
    *classes("models.mambaout", "Stem"),
    *classes("models.hieradet_sam2", "HieraPatchEmbed"),
    output=channels_last_image,
)
register(*classes("models.mambaout", "MlpHead"), input=channels_last_image)
