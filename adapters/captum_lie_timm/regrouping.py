"""Layouts of tokens that timm's modules regroup: windows, blocks, patches, mask units, heads.

Each rule says in which order a module's own code puts the factors of the image, and leaves all
other tensors to the other rules. Padded windows stay unknown: they hold more than the image.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isqrt, prod
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from captum_lie.layouts import UNKNOWN, Evidence, Layout, Rule, register, regrouped
from captum_lie_timm.classes import Classes, classes
from captum_lie_timm.heads import heads

Sizes = tuple[int, int]


def inside(module: nn.Module, evidence: Evidence, kinds: Classes) -> bool:
    """Whether a module is of these classes or called within one that is."""
    return isinstance(module, kinds) or evidence.within(*kinds) is not None


def among(*candidates: Layout, x: Tensor, evidence: Evidence) -> Layout | None:
    """The first candidate that a tensor can have."""
    return next((c for c in candidates if evidence.allows(c, x)), None)


def windows(
    blocks: Classes,
    size: Callable[[Any], Sizes],
    shift: Callable[[Any], Sizes] = lambda _: (0, 0),
    is_grid: Callable[[Any], bool] = lambda _: False,
) -> Rule:
    """Rule of attention within windows, which take the place of examples.

    Args:
        blocks: classes that cut their input into windows.
        size: of its windows.
        shift: rows and columns by which it rolls the image before.
        is_grid: whether its windows take every so many-th pixel rather than neighbours.
    """

    def rule(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
        enclosing = evidence.within(*blocks)
        if enclosing is None or enclosing[1] is None:
            return None
        owner, image = enclosing[0], enclosing[1]
        window = size(owner)
        if any(length % side for length, side in zip(image, window, strict=True)):
            return None
        many = [length // side for length, side in zip(image, window, strict=True)]
        height, width = zip(many, window, strict=True)
        outer, inner = "y0 x0", "y1 x1"
        if is_grid(owner):
            outer, inner, height, width = inner, outer, height[::-1], width[::-1]
        patterns = (f"(n {outer}) ({inner}) c", f"(n {outer}) {inner} c", f"(n {outer}) c {inner}")
        candidates = [regrouped(p, height, width, shift=shift(owner)) for p in patterns]
        return among(*candidates, x=x, evidence=evidence)

    return rule


def rolled(block: Any) -> Sizes:
    """Swin rolls up and to the left."""
    rows, columns = block.shift_size
    return -rows, -columns


def strided(block: Any) -> bool:
    """MaxViT's grid attention."""
    return not block.partition_block


_SWIN = "models.swin_transformer"
WINDOWED: list[tuple[Classes, Rule]] = [
    (
        classes(_SWIN, "WindowAttention"),
        windows(classes(_SWIN, "SwinTransformerBlock"), attrgetter("window_size"), rolled),
    ),
    (
        classes(f"{_SWIN}_v2", "WindowAttention"),
        windows(
            classes(f"{_SWIN}_v2", "SwinTransformerV2Block"), attrgetter("window_size"), rolled
        ),
    ),
    (
        classes(f"{_SWIN}_v2_cr", "WindowMultiHeadAttention"),
        windows(
            classes(f"{_SWIN}_v2_cr", "SwinTransformerV2CrBlock"), attrgetter("window_size"), rolled
        ),
    ),
    (
        classes("models.gcvit", "WindowAttentionGlobal"),
        windows(classes("models.gcvit", "GlobalContextVitBlock"), attrgetter("window_size")),
    ),
    (
        classes("models.davit", "WindowAttention"),
        windows(classes("models.davit", "SpatialBlock"), attrgetter("window_size")),
    ),
    *(
        (
            classes("models.maxxvit", attention),
            windows(
                classes("models.maxxvit", block), attrgetter("partition_size"), is_grid=strided
            ),
        )
        for attention, block in (
            ("AttentionCl", "PartitionAttentionCl"),
            ("Attention2d", "PartitionAttention2d"),
        )
    ),
    (
        classes("models.efficientvit_msra", "CascadedGroupAttention"),
        windows(
            classes("models.efficientvit_msra", "LocalWindowAttention"),
            lambda block: (min(block.window_resolution, block.resolution),) * 2,
        ),
    ),
]
for attentions, rule in WINDOWED:
    register(*attentions, input=rule, output=rule, inside=rule)


NEST_LEVEL = classes("models.nest", "NestLevel")
NEST_LAYER = classes("models.nest", "TransformerLayer")


def image_blocks(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of NesT's encoder: ``[N, blocks, tokens, C]``, square blocks of a square image."""
    enclosing: tuple[Any, Any] | None = evidence.within(*NEST_LEVEL)
    if enclosing is None:
        return None
    level = enclosing[0]
    is_encoder = module is level.transformer_encoder
    if not is_encoder and not inside(module, evidence, NEST_LAYER):
        return None
    sides = isqrt(level.pos_embed.shape[1]), level.block_size
    layout = regrouped("n (y0 x0) (y1 x1) c", sides, sides)
    return among(layout, x=x, evidence=evidence)


register(*NEST_LEVEL, inside=image_blocks)


TNT = classes("models.tnt", "TNT")


def pixels_of_patches(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of TNT: the pixels of each patch take the place of an example, or of its channels."""
    enclosing: tuple[Any, Any] | None = evidence.within(*TNT)
    if enclosing is None:
        return None
    embed, owner = enclosing[0].pixel_embed, evidence.ancestors[0]
    inner = embed.new_patch_size
    patterns = ["(n y0 x0) (y1 x1) c"]
    joins = module is getattr(owner, "proj", None) and evidence.side == "input"
    if joins or module is getattr(owner, "norm1_proj", None):
        patterns += ["n (y0 x0) (y1 x1 c)"]
    if isinstance(module, nn.Unfold) and evidence.side == "output":
        size = module.kernel_size
        inner = (size, size) if isinstance(size, int) else size
        patterns = ["n (c y1 x1) (y0 x0)"]
    if isinstance(module, nn.Conv2d):
        inner, patterns = x.shape[2:], ["(n y0 x0) c y1 x1"]
    height, width = zip(embed.grid_size, inner, strict=True)
    candidates = [regrouped(pattern, height, width) for pattern in patterns]
    return among(*candidates, x=x, evidence=evidence)


register(*TNT, inside=pixels_of_patches)


#: MobileViT's blocks, the layers within them, and their order.
MOBILE: list[tuple[Classes, Classes, str]] = [
    (
        classes("models.mobilevit", "MobileVitBlock"),
        classes("models.vision_transformer", "Block"),
        "(n y1 x1) (y0 x0) c",
    ),
    (
        classes("models.mobilevit", "MobileVitV2Block"),
        classes("models.mobilevit", "LinearTransformerBlock"),
        "n c (y1 x1) (y0 x0)",
    ),
]


def pixels_across_patches(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of MobileViT: the patches' first pixels take the place of an example, then their second.

    In the second version, these sequences are the rows of an image.
    """
    for blocks, layers, pattern in MOBILE:
        enclosing: tuple[Any, Any] | None = evidence.within(*blocks)
        if enclosing is None or enclosing[1] is None:
            continue
        block, image = enclosing
        of_block = module is block.transformer or module is block.norm
        if not of_block and not inside(module, evidence, layers):
            return None
        patches = [
            ceil(length / side) for length, side in zip(image, block.patch_size, strict=True)
        ]
        height, width = zip(patches, block.patch_size, strict=True)
        return among(regrouped(pattern, height, width), x=x, evidence=evidence)
    return None


for row in MOBILE:
    register(*row[0], inside=pixels_across_patches)

HIERA = classes("models.hiera", "Hiera")


def mask_units(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of Hiera: until the last stage, tokens are in the order in which they will be pooled."""
    if x.ndim != 3:
        return None
    enclosing: tuple[Any, Any] | None = evidence.within(*HIERA)
    stages = enclosing[0].reroll.schedule.values() if enclosing else ()
    for strides, size in stages:
        if len(size) != 2 or prod(size) != x.shape[1]:
            continue
        if not strides:
            return Layout("tokens", grid=(size[0], size[1]))
        # Each stride takes the finest factor that is left and puts it after those before.
        finest_first = " ".join(f"y{i} x{i}" for i in range(len(strides), -1, -1))
        steps = [prod(s[axis] for s in strides) for axis in (0, 1)]
        coarsest = (size[0] // steps[0], size[1] // steps[1])
        height, width = zip(coarsest, *reversed(strides), strict=True)
        return regrouped(f"n ({finest_first}) c", height, width)
    return UNKNOWN


register(*classes("models.hiera", "Unroll"), output=mask_units)
register(
    *classes("models.hiera", "HieraBlock"), input=mask_units, output=mask_units, inside=mask_units
)

LINEAR_NORM = classes("models.levit", "LinearNorm")


def tokens_as_examples(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule within LeViT's linear maps: their normalisation takes every token for an example."""
    enclosing = evidence.within(*LINEAR_NORM)
    if enclosing is None or enclosing[1] is None:
        return None
    rows, columns = enclosing[1]
    return among(regrouped("(n y0 x0) c", (rows,), (columns,)), x=x, evidence=evidence)


register(*LINEAR_NORM, inside=tokens_as_examples)


#: MViT's attentions.
POOLED = classes("models.mvitv2", "MultiScaleAttention", "MultiScaleAttentionPoolFirst")


def heads_as_examples(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule within MViT's attention: queries, keys and values are pooled as images of each head."""
    enclosing: tuple[Any, Any] | None = evidence.within(*POOLED)
    if enclosing is None or x.ndim != 4:
        return None
    if isinstance(module, nn.LayerNorm):
        return heads(module, x, evidence)
    many = 1 if enclosing[0].unshared else enclosing[0].num_heads
    layout = regrouped("(n c0) c1 y0 x0", x.shape[2:3], x.shape[3:], channels=(many,))
    return among(layout, x=x, evidence=evidence)


register(*POOLED, inside=heads_as_examples)
