"""Layouts: which axes of a tensor are spatial, and how a group acts on it.

The contribution of a module means something only if the representation at its input and output is
right. Layouts are inferred from evidence (:func:`infer`), never guessed: a tensor that fits none,
or several equally well, is ``UNKNOWN``, and its module is folded into the nearest ancestor whose
boundaries are known. Adapters register what they know by module class (:func:`register`), users
override by module name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lie.groups import OneParameterGroup

Kind = Literal["nchw", "nhwc", "tokens", "tokens_first", "heads", "trivial", "unknown"]


@dataclass(frozen=True)
class Layout:
    """How a tensor represents an image.

    Args:
        kind: ``nchw``, ``nhwc``; ``tokens`` is ``[N, prefix + h·w, C]``, ``tokens_first`` is
            ``[N, C, prefix + h·w]``, ``heads`` is ``[N, heads, prefix + h·w, C]``; ``trivial``
            does not move with the image (class scores, pooled vectors); ``unknown``.
        prefix: tokens before the grid that do not move (class token, registers).
        grid: ``(h, w)`` of the tokens.

    Example:
        >>> from captum_lie import Translation
        >>> layout = Layout("tokens", prefix=1, grid=(2, 3))
        >>> print(layout)
        tokens[1+2x3]
        >>> tangent = layout.generator(Translation("x"), torch.rand(1, 7, 4))
        >>> tangent.shape, tangent[:, 0].abs().max().item()
        (torch.Size([1, 7, 4]), 0.0)
    """

    kind: Kind
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.grid is None:
            return self.kind
        prefix = f"{self.prefix}+" if self.prefix else ""
        return f"{self.kind}[{prefix}{self.grid[0]}x{self.grid[1]}]"

    @property
    def moves(self) -> bool:
        """Whether the group acts on it at all."""
        return self.kind not in ("trivial", "unknown")

    def to_image(self, x: Tensor) -> Tensor:
        """The part that moves, as ``[N, C, h, w]``.

        Raises:
            ValueError: the layout has no spatial axes, or the tensor does not fit it.
        """
        if not self.fits(x):
            raise ValueError(f"A tensor of shape {tuple(x.shape)} does not have the layout {self}.")
        if self.kind == "nchw":
            return x
        if self.kind == "nhwc":
            return x.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            return _on_grid(x[:, self.prefix :].transpose(1, 2), self._grid())
        if self.kind == "tokens_first":
            return _on_grid(x[:, :, self.prefix :], self._grid())
        if self.kind == "heads":
            return _on_grid(x[:, :, self.prefix :].transpose(2, 3).flatten(1, 2), self._grid())
        raise ValueError(f"The layout {self} has no spatial axes.")

    def from_image(self, image: Tensor, like: Tensor) -> Tensor:
        """Inverse of :meth:`to_image` for a tensor shaped ``like``; prefix tokens are zero."""
        if self.kind == "nhwc":
            return image.permute(0, 2, 3, 1)
        if self.kind == "tokens":
            tokens = image.flatten(2).transpose(1, 2)
            return nn.functional.pad(tokens, (0, 0, self.prefix, 0))
        if self.kind == "tokens_first":
            return nn.functional.pad(image.flatten(2), (self.prefix, 0))
        if self.kind == "heads":
            heads = image.flatten(2).unflatten(1, (like.shape[1], -1)).transpose(2, 3)
            return nn.functional.pad(heads, (0, 0, self.prefix, 0))
        return image

    def generator(self, group: OneParameterGroup, x: Tensor) -> Tensor:
        """The tangent ``ξ(x)`` of a group on a tensor of this layout, shaped like ``x``.

        Raises:
            ValueError: the layout is unknown, or the tensor does not fit it.
        """
        if self.kind == "trivial":
            return torch.zeros_like(x)
        return self.from_image(group.generator(self.to_image(x)), x)

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor can have this layout."""
        if self.kind in ("nchw", "nhwc"):
            return x.ndim == 4
        if self.kind in ("tokens", "tokens_first", "heads"):
            height, width = self._grid()
            dim = 1 if self.kind == "tokens" else 2
            rank = 4 if self.kind == "heads" else 3
            return x.ndim == rank and x.shape[dim] == self.prefix + height * width
        return self.kind == "trivial"

    def _grid(self) -> tuple[int, int]:
        if self.grid is None:
            raise ValueError(
                f"The layout {self.kind} needs a grid: Layout({self.kind!r}, grid=...)."
            )
        return self.grid


def _on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.reshape(*tokens.shape[:2], *grid)


NCHW = Layout("nchw")
NHWC = Layout("nhwc")
TRIVIAL = Layout("trivial")
UNKNOWN = Layout("unknown")


@dataclass(frozen=True)
class Evidence:
    """What is known where a tensor crosses a module's boundary.

    Attributes:
        batch: number of examples in the pass.
        image: ``(H, W)`` of the model's input.
        known: layout that the same tensor, or one of the same shape before it, was found to have.
        prefixes: numbers of prefix tokens to consider.
        sources: at a module's output, the layouts of its inputs.
        ancestors: the modules within which the module was called, the nearest first.
    """

    batch: int
    image: tuple[int, int]
    known: Layout | None = None
    prefixes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    sources: tuple[Layout, ...] = ()
    ancestors: tuple[nn.Module, ...] = ()


Rule = Layout | Callable[[nn.Module, Tensor, Evidence], Layout | None]
_INPUT_RULES: dict[type[nn.Module], Rule] = {}
_OUTPUT_RULES: dict[type[nn.Module], Rule] = {}
_INSIDE_RULES: dict[type[nn.Module], Rule] = {}


def register(
    *classes: type[nn.Module],
    input: Rule | None = None,
    output: Rule | None = None,
    inside: Rule | None = None,
) -> None:
    """Say which layout the tensors of a module class have.

    Args:
        classes: also hold for their subclasses, unless these have rules of their own.
        input, output: a layout, or a function ``(module, tensor, evidence) -> layout`` that returns
            None where it cannot say.
        inside: the same for both sides of every module called within; goes before their own rules.
    """
    for cls in classes:
        if input is not None:
            _INPUT_RULES[cls] = input
        if output is not None:
            _OUTPUT_RULES[cls] = output
        if inside is not None:
            _INSIDE_RULES[cls] = inside


def infer(
    module: nn.Module, x: Tensor, evidence: Evidence, side: Literal["input", "output"]
) -> Layout:
    """Layout of a tensor at a module's boundary, from the evidence.

    In this order: a tensor whose first axis is not the batch is unknown; vectors, N×C×1×1 maps and
    single tokens are trivial; then the rules of the classes around it and of its own; then what is
    known of this tensor; then the shape, if only one layout fits it, or only one that the module's
    inputs have, or that puts the channels where the module normalises them.
    """
    if x.ndim == 0 or x.shape[0] != evidence.batch:
        return UNKNOWN
    if x.ndim == 2 or (x.ndim == 4 and x.shape[2:] == (1, 1)):
        return TRIVIAL
    if x.ndim == 3 and x.shape[1] == 1 and not _is_known(x, evidence):
        return TRIVIAL  # one class token, not one channel of tokens
    own = _INPUT_RULES if side == "input" else _OUTPUT_RULES
    owners = [(ancestor, _INSIDE_RULES) for ancestor in evidence.ancestors] + [(module, own)]
    for owner, rules in owners:
        rule = next((rules[cls] for cls in type(owner).__mro__ if cls in rules), None)
        layout = rule if rule is None or isinstance(rule, Layout) else rule(module, x, evidence)
        if layout is not None:
            return layout if layout is UNKNOWN or layout.fits(x) else UNKNOWN
    if evidence.known is not None and evidence.known.fits(x):
        return evidence.known
    candidates = list(by_shape(x, evidence))
    if len(candidates) > 1:  # modules rarely change the grid
        grids = [source.grid for source in evidence.sources if source.grid]
        candidates = [c for c in candidates if c.grid in grids] or candidates
    if len(candidates) > 1:  # nor turn their tensors around
        kinds = [source.kind for source in evidence.sources]
        candidates = [c for c in candidates if c.kind in kinds] or candidates
    if len(candidates) > 1 and x.ndim == 3 and _normalizes_last_axis(module, x):
        candidates = [c for c in candidates if c.kind == "tokens"]
    return candidates[0] if len(candidates) == 1 else UNKNOWN


def _normalizes_last_axis(module: nn.Module, x: Tensor) -> bool:
    shapes = (getattr(inner, "normalized_shape", None) for inner in module.modules())
    return any(shape and shape[-1] == x.shape[-1] for shape in shapes)


def _is_known(x: Tensor, evidence: Evidence) -> bool:
    return evidence.known is not None and evidence.known.moves and evidence.known.fits(x)


def by_shape(x: Tensor, evidence: Evidence) -> Iterator[Layout]:
    """All layouts that the shape allows, given the image's aspect ratio."""
    if x.ndim == 4:
        if is_downsampled(x.shape[2], x.shape[3], evidence.image):
            yield NCHW
        if is_downsampled(x.shape[1], x.shape[2], evidence.image):
            yield NHWC
    if x.ndim == 3:
        yield from token_layouts("tokens", x.shape[1], evidence)
        yield from token_layouts("tokens_first", x.shape[2], evidence)


def token_layouts(
    kind: Literal["tokens", "tokens_first"], length: int, evidence: Evidence
) -> Iterator[Layout]:
    """The layout of so many tokens, if there is one.

    Grids at the same whole stride along both sides come first, then fewer prefix tokens.
    """
    found = [
        Layout(kind, prefix, grid)
        for prefix in evidence.prefixes
        if (grid := find_grid(length - prefix, evidence.image)) is not None
    ]
    yield from sorted(found, key=lambda layout: not _divides(layout.grid, evidence.image))[:1]


def _divides(grid: tuple[int, int] | None, image: tuple[int, int]) -> bool:
    if grid is None:
        return False
    stride = image[0] // grid[0]
    return image == (grid[0] * stride, grid[1] * stride)


def find_grid(tokens: int, image: tuple[int, int]) -> tuple[int, int] | None:
    """Grid ``(h, w)`` of so many tokens with the aspect ratio of the image, at least 2 × 2.

    Example:
        >>> find_grid(196, (224, 224)), find_grid(140, (224, 160)), find_grid(197, (224, 224))
        ((14, 14), (14, 10), None)
    """
    best, error = None, 1.0
    for height in range(2, tokens // 2 + 1):
        if tokens % height:
            continue
        width = tokens // height
        off = abs(height - width * image[0] / image[1])
        if off < error and height <= image[0] and width <= image[1]:
            best, error = (height, width), off
    return best


def is_downsampled(height: int, width: int, image: tuple[int, int]) -> bool:
    """Whether a map can be the image at a whole stride: an attention map, say, is not."""
    stride = round(image[0] / height)
    return (
        stride >= 1
        and abs(height - image[0] / stride) < 1
        and abs(width - image[1] / stride) < 1
        and height > 1
        and width > 1
    )


def channels_last(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules that act on the last axis: linear maps and layer normalisation."""
    if x.ndim == 4:
        return NHWC if evidence.known == NHWC or _looks_nhwc(x, evidence) else UNKNOWN
    if x.ndim == 3:
        # A linear map over tokens (as in mixers) acts on the last axis too: what is known decides.
        if evidence.known is not None and evidence.known.fits(x):
            return evidence.known
        return next(token_layouts("tokens", x.shape[1], evidence), None)
    return None


def _looks_nhwc(x: Tensor, evidence: Evidence) -> bool:
    return is_downsampled(x.shape[1], x.shape[2], evidence.image)


def attention_map(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of softmax: ``[N, heads, queries, keys]`` is no image, whatever its shape."""
    return UNKNOWN if x.ndim == 4 else None


def unless_known(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of dropout, which attention maps pass, too: the shape alone makes no image."""
    return UNKNOWN if x.ndim == 4 and not _is_known(x, evidence) else None


def image_or_trivial(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of two-dimensional modules: images."""
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
    """
    for source in evidence.sources:
        if source.kind == "tokens_first":
            return source if source.fits(x) else TRIVIAL
        if source.kind in ("tokens", "nhwc"):
            return source
    return None


register(nn.LayerNorm, nn.RMSNorm, input=channels_last)
register(nn.Linear, input=channels_last, output=after_linear)
register(nn.Softmax, input=attention_map, output=attention_map)
register(nn.Dropout, input=unless_known, output=unless_known)
