"""What the shape of a tensor allows, given the image's aspect ratio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from captum_lie.layouts.evidence import Evidence
from captum_lie.layouts.layout import NCHW, NHWC, Layout


def by_shape(x: Tensor, evidence: Evidence) -> Iterator[Layout]:
    """All layouts that the shape allows, given the image's aspect ratio.

    Example:
        A tensor with as many channels as rows can be either:

        >>> import torch
        >>> evidence = Evidence(batch=2, image=(32, 32))
        >>> [str(layout) for layout in by_shape(torch.rand(2, 16, 16, 16), evidence)]
        ['nchw', 'nhwc']
    """
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

    Example:
        >>> evidence = Evidence(batch=2, image=(224, 224))
        >>> [str(layout) for layout in token_layouts("tokens", 1 + 14 * 14, evidence)]
        ['tokens[1+14x14]']
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
    """Whether a map can be the image at a whole stride: an attention map, say, is not.

    Example:
        >>> is_downsampled(7, 10, (224, 320)), is_downsampled(7, 7, (224, 320))
        (True, False)
    """
    stride = round(image[0] / height)
    return (
        stride >= 1
        and abs(height - image[0] / stride) < 1
        and abs(width - image[1] / stride) < 1
        and height > 1
        and width > 1
    )
