"""Layouts of timm's modules, registered by class when the adapter is imported.

Only what the shapes cannot tell is said here: which axis is the channels' where it may be as long
as the image is high, how tokens lie on a non-square grid, and where tokens are not in the order of
the image. Everything else (prefix and distillation tokens, registers, class attention, windows,
which stay unknown and fold into their block) follows from the shapes.
"""

from __future__ import annotations

from importlib import import_module

from timm.layers.attention import Attention, AttentionRope
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
    coat,
    crossvit,
    eva,
    fastvit,
    gcvit,
    hiera,
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
    UNKNOWN,
    Evidence,
    Layout,
    channels_last,
    image_or_trivial,
    register,
    token_layouts,
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


def heads(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules that act on ``[N, heads, tokens, C]``, fewer heads than tokens."""
    if x.ndim != 4 or x.shape[1] >= x.shape[2]:
        return UNKNOWN
    tokens = next(token_layouts("tokens", x.shape[2], evidence), None)
    return UNKNOWN if tokens is None else Layout("heads", tokens.prefix, tokens.grid)


def queries_and_keys(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule within attention over all tokens: its norms of rank four act on each head.

    Elsewhere a norm of that rank may act on windows, ``[N, windows, tokens, C]``.
    """
    is_norm = isinstance(module, nn.LayerNorm | RmsNorm | RmsNormFp32 | SimpleNorm | SimpleNormFp32)
    return heads(module, x, evidence) if is_norm and x.ndim == 4 else None


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
register(Attention, AttentionRope, eva.EvaAttention, inside=queries_and_keys)

register(PatchEmbed, input=image_or_trivial, output=patch_embedding)
register(crossvit.PatchEmbed, input=image_or_trivial)
register(coat.ConvRelPosEnc, input=heads, output=heads)

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


def mask_units(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule within Hiera: until the last stage, tokens lie in the order of its mask units."""
    return UNKNOWN if x.ndim > 2 else None


register(hiera.Unroll, output=mask_units)
register(hiera.HieraBlock, input=mask_units, output=mask_units, inside=mask_units)
