"""Photographs cut into crops to train on and crops to test on.

How the two are kept apart: each photograph is cut into square tiles, every tile belongs to one
side, and downscaling happens inside the tile, so that no source pixel ever reaches both. Crops that
are nearly flat are dropped from both sides.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.examples.data import CLASSES, IMAGE_SIZE

# Class name -> (function of skimage.data, how many source pixels make one pixel, per axis).
PHOTOGRAPHS: dict[str, tuple[str, int]] = {
    "brick": ("brick", 2),
    "cat": ("chelsea", 1),
    "coffee": ("coffee", 1),
    "galaxies": ("hubble_deep_field", 2),
    "grass": ("grass", 2),
    "gravel": ("gravel", 2),
    "retina": ("retina", 4),
    "rocket": ("rocket", 1),
}
TILE = 48  # pixels a side, after downscaling
TEST_STRIDE = 4  # pixels between neighbouring test crops inside a tile: they overlap
MIN_STD = 0.04  # crops whose grey values vary less than this (of 1) are dropped, in train and test
TEST_PER_CLASS = 100
SHIPPED_PER_CLASS = 32
SHEET_COLUMNS = 16


@dataclass(frozen=True)
class Box:
    """A square of source pixels: rows ``top`` .. ``top + size - 1``, columns likewise."""

    top: int
    left: int
    size: int


def split(height: int, width: int, size: int) -> tuple[list[Box], list[Box]]:
    """Tile ``height x width`` pixels with squares of ``size``; return (train, test) boxes.

    About one tile in four is for testing, spread over the photograph. Pixels to the right and
    below that fill no whole tile are unused.

    >>> train, test = split(512, 512, 96)
    >>> len(train), len(test)
    (17, 8)
    """
    if min(height, width) < 2 * size:
        raise InvalidValueError(
            f"a photograph of {height} x {width} pixels holds fewer than 2 x 2 tiles of {size}; "
            "use a larger photograph or a smaller downscaling"
        )
    boxes: tuple[list[Box], list[Box]] = ([], [])
    for row in range(height // size):
        for column in range(width // size):
            is_test = (column + 2 * row) % 4 == 0
            boxes[is_test].append(Box(row * size, column * size, size))
    return boxes


def cut(photo: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Cut boxes out of a photograph ``[3, H, W]``, downscale each alone: ``[K, 3, TILE, TILE]``."""
    tiles = torch.stack([photo[:, b.top : b.top + b.size, b.left : b.left + b.size] for b in boxes])
    small = F.interpolate(tiles, size=(TILE, TILE), mode="bilinear", antialias=True)
    return (small * 255).round() / 255  # what an 8-bit file can hold


def crop_positions(tiles: Tensor, stride: int = 1) -> Tensor:
    """The (tile, row, column) ``[P, 3]`` of all crops of ``tiles`` that are not flat."""
    grey = tiles.mean(dim=1, keepdim=True)
    mean = F.avg_pool2d(grey, IMAGE_SIZE, stride)
    variance = F.avg_pool2d(grey**2, IMAGE_SIZE, stride) - mean**2
    positions = (variance[:, 0] > MIN_STD**2).nonzero()
    return positions * torch.tensor([1, stride, stride])


def crop(tiles: Tensor, positions: Tensor) -> Tensor:
    """Crops ``[P, 3, 32, 32]`` of ``tiles`` ``[K, 3, T, T]`` at ``positions`` ``[P, 3]``."""
    windows = tiles.unfold(2, IMAGE_SIZE, 1).unfold(3, IMAGE_SIZE, 1)
    return windows[positions[:, 0], :, positions[:, 1], positions[:, 2]]


def load_photo(function: str) -> Tensor:
    """A photograph of ``skimage.data`` as ``[3, H, W]`` in [0, 1]; grey ones get equal channels."""
    try:
        data = importlib.import_module("skimage.data")
    except ImportError as error:
        raise ImportError(
            "training the example models takes its photographs from scikit-image, which is not "
            "installed; install captum-lie with the 'test' extra"
        ) from error
    array = np.asarray(getattr(data, function)())
    photo = torch.from_numpy(array).float() / 255
    return photo.expand(3, -1, -1) if photo.ndim == 2 else photo.permute(2, 0, 1)


@dataclass(frozen=True)
class Source:
    """The tiles of one photograph on one side of the split, and where crops can be cut.

    ``tiles`` is ``[K, 3, TILE, TILE]``, ``positions`` is ``[P, 3]``; ``boxes`` are the K tiles in
    pixels of the photograph, ``scale`` of which make one pixel of a tile.
    """

    boxes: list[Box]
    scale: int
    tiles: Tensor
    positions: Tensor

    def box(self, position: Tensor) -> Box:
        """The crop at ``position`` in pixels of the photograph."""
        tile, row, column = (int(value) for value in position)
        top, left = self.boxes[tile].top, self.boxes[tile].left
        return Box(top + row * self.scale, left + column * self.scale, IMAGE_SIZE * self.scale)


def load_sources() -> tuple[list[Source], list[Source]]:
    """The train and the test side of all photographs, in the order of ``CLASSES``."""
    sides: tuple[list[Source], list[Source]] = ([], [])
    for name in CLASSES:
        function, scale = PHOTOGRAPHS[name]
        photo = load_photo(function)
        both = split(photo.shape[1], photo.shape[2], TILE * scale)
        for side, boxes, stride in zip(sides, both, (1, TEST_STRIDE), strict=True):
            tiles = cut(photo, boxes)
            side.append(Source(boxes, scale, tiles, crop_positions(tiles, stride)))
    return sides


def evenly(n: int, k: int) -> Tensor:
    """``k`` of the indices 0 .. n - 1, spread evenly.

    >>> evenly(10, 4).tolist()
    [0, 2, 5, 7]
    """
    return torch.arange(k) * n // k


@dataclass(frozen=True)
class HeldOut:
    """Held-out crops ``[N, 3, 32, 32]``, labels ``[N]`` and origins; the classes take turns."""

    images: Tensor
    labels: Tensor
    boxes: list[Box]

    def part(self, indices: Tensor) -> HeldOut:
        """The crops at ``indices``."""
        boxes = [self.boxes[i] for i in indices.tolist()]
        return HeldOut(self.images[indices], self.labels[indices], boxes)


def held_out(sources: Sequence[Source]) -> HeldOut:
    """``TEST_PER_CLASS`` crops of each test source, spread evenly over its tiles."""
    chosen = [s.positions[evenly(len(s.positions), TEST_PER_CLASS)] for s in sources]
    by_class = [crop(s.tiles, p) for s, p in zip(sources, chosen, strict=True)]
    return HeldOut(
        images=torch.stack(by_class, dim=1).flatten(0, 1),
        labels=torch.arange(len(sources)).repeat(TEST_PER_CLASS),
        boxes=[s.box(chosen[k][i]) for i in range(TEST_PER_CLASS) for k, s in enumerate(sources)],
    )


def shipped_indices(n_classes: int) -> Tensor:
    """Which crops of the test set are shipped: whole rounds of the classes, spread evenly."""
    rounds = evenly(TEST_PER_CLASS, SHIPPED_PER_CLASS)
    return (rounds[:, None] * n_classes + torch.arange(n_classes)).flatten()
