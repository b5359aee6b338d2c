"""Layout rules of PyTorch's own modules."""

from __future__ import annotations

from torch import Tensor, nn

from captum_lie.layouts.evidence import Evidence, is_known
from captum_lie.layouts.inference import register
from captum_lie.layouts.layout import NCHW, NHWC, TRIVIAL, UNKNOWN, Layout
from captum_lie.layouts.shapes import is_downsampled, token_layouts


def channels_last(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules that act on the last axis: linear maps and layer normalisation.

    Example:
        >>> import torch
        >>> evidence = Evidence(batch=2, image=(32, 32))
        >>> print(channels_last(nn.LayerNorm(8), torch.rand(2, 16, 16, 8), evidence))
        nhwc
    """
    if evidence.known is not None and evidence.known.kind == "regrouped":
        return evidence.known
    if x.ndim == 4:
        return NHWC if evidence.known == NHWC or _looks_nhwc(x, evidence) else UNKNOWN
    if x.ndim == 3:
        if evidence.known is not None and evidence.known.fits(x):
            return evidence.known
        tokens = next(token_layouts("tokens", x.shape[1], evidence), None)
        turned = next(token_layouts("tokens_first", x.shape[2], evidence), None)
        # A linear map over tokens (as in mixers) acts on the last axis, too: seen grids tell.
        if turned is not None and evidence.familiar(turned):
            return turned if tokens is None or not evidence.familiar(tokens) else UNKNOWN
        return tokens
    return None


def _looks_nhwc(x: Tensor, evidence: Evidence) -> bool:
    return is_downsampled(x.shape[1], x.shape[2], evidence.image)


def attention_map(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of softmax: ``[N, heads, queries, keys]`` is no image, whatever its shape."""
    return UNKNOWN if x.ndim == 4 else None


def unless_known(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of dropout, which attention maps pass, too: the shape alone makes no image."""
    return UNKNOWN if x.ndim == 4 and not is_known(x, evidence) else None


def image_or_trivial(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of two-dimensional modules: images.

    Example:
        >>> import torch
        >>> evidence = Evidence(batch=2, image=(32, 32))
        >>> print(image_or_trivial(nn.MaxPool2d(2), torch.rand(2, 8, 5, 7), evidence))
        nchw
    """
    return NCHW if x.ndim == 4 else None


register(
    *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d),
    *(nn.Dropout2d, nn.PixelShuffle, nn.PixelUnshuffle, nn.UpsamplingBilinear2d),
    *(nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.CircularPad2d),
    input=image_or_trivial,
    output=image_or_trivial,
)


def after_linear(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of linear maps: they change the last axis only.

    Over the last axis of ``tokens_first`` (mixers) they return learned functionals of the whole
    image, which move with nothing: trivial, unless the tokens are as many as before.

    Example:
        >>> import torch
        >>> evidence = Evidence(batch=2, image=(32, 32), sources=(UNKNOWN,))
        >>> print(after_linear(nn.Linear(8, 64), torch.rand(2, 30, 64), evidence))
        unknown
    """
    for source in evidence.sources:
        if source.kind == "tokens_first":
            return source if source.fits(x) else TRIVIAL
        if source.kind in ("tokens", "nhwc"):
            return source
        if source.pattern is not None and source.kind == "regrouped":
            return source if source.pattern.on_axis(-1) == "c" else UNKNOWN
    unclear = x.ndim > 2 and UNKNOWN in evidence.sources and not is_known(x, evidence)
    return UNKNOWN if unclear else None  # the number of features says nothing of the rest


register(nn.LayerNorm, nn.RMSNorm, input=channels_last)
register(nn.Linear, input=channels_last, output=after_linear)
register(nn.Softmax, input=attention_map, output=attention_map)
register(nn.Dropout, input=unless_known, output=unless_known)
