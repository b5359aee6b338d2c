"""Batches of a source's images as one model sees them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.images.sources import ImageFiles, ImageSource
from captum_lie.images.view import View


class Batches:
    """The images of a source in batches ``[n, C, H, W]``; unreadable files are skipped.

    Args:
        source: where they come from.
        view: how each is prepared.
        batch_size: images a batch.
        labels: class index of each image ``[N]``: batches are then pairs of images and labels.

    Raises:
        ValueError: (while iterating) images of different sizes, or none readable.

    Example:
        >>> from captum_lie.images import ImageStack
        >>> stack = ImageStack(torch.rand(3, 3, 8, 8))
        >>> [batch.shape for batch in Batches(stack, View((4, 4)), 2)]
        [torch.Size([2, 3, 4, 4]), torch.Size([1, 3, 4, 4])]
    """

    def __init__(
        self,
        source: ImageSource,
        view: View | None = None,
        batch_size: int = 16,
        labels: Tensor | None = None,
    ) -> None:
        if batch_size < 1:
            raise InvalidValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.source, self.view = source, view or View()
        self.batch_size, self.labels = batch_size, labels
        self._range: range | None = None

    @property
    def skipped(self) -> dict[Path, str]:
        """Files that could not be read, with the reason, after iterating."""
        return self.source.skipped

    def part(self, start: int, stop: int) -> Batches:
        """The batches ``start`` to ``stop - 1`` alone, in which every file must be readable."""
        part = Batches(self.source, self.view, self.batch_size, self.labels)
        first, end = start * self.batch_size, min(stop * self.batch_size, len(self.source))
        part._range = range(first, end)
        return part

    @property
    def first(self) -> int:
        """Position of the first image in the source."""
        return 0 if self._range is None else self._range.start

    @property
    def _positions(self) -> range:
        return range(len(self.source)) if self._range is None else self._range

    def __len__(self) -> int:
        """Number of batches, if every file can be read."""
        return -(-len(self._positions) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        images: list[Tensor] = []
        positions: list[int] = []
        shape = None
        for i in self._positions:
            try:
                image = self.source.read(i, self.view)
            except OSError as error:
                if self._range is not None:
                    raise InvalidValueError(
                        f"{error} The images of a shard must all be readable, so that shards fit "
                        "together: remove this one."
                    ) from error
                path = Path(self.source.name(i))
                if path not in self.skipped:
                    self.skipped[path] = str(error)
                    warnings.warn(f"Skipped: {error}", stacklevel=2)
                continue
            if shape is not None and image.shape != shape:
                raise InvalidValueError(
                    f"Images differ in size: {self.source.name(i)} is {_size(image.shape)}, "
                    f"those before {_size(shape)}. Say the size to use (--size HxW)."
                )
            shape = image.shape
            images.append(image)
            positions.append(i)
            if len(images) == self.batch_size:
                yield self._batch(images, positions)
                images, positions = [], []
        if images:
            yield self._batch(images, positions)
        if shape is None:
            raise InvalidValueError(f"None of the {len(self.source)} image files could be read.")

    def _batch(self, images: list[Tensor], positions: list[int]) -> Tensor | tuple[Tensor, Tensor]:
        batch = torch.stack(images)
        return batch if self.labels is None else (batch, self.labels[positions])


class ImageFolder(Batches):
    """The images below a folder in batches ``[n, C, H, W]``; unreadable files are skipped.

    Args:
        folder: searched recursively for image files, in the order of their names.
        size: ``(height, width)``; None keeps the images' own, which must then be the same.
        batch_size: images a batch.
        limit: use at most so many images, evenly spread over the folder.
        channels: 1 for grey, 3 for RGB.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no image files in it, none readable, or (while iterating) of different sizes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         Image.new("RGB", (6, 4)).save(Path(folder) / f"{i}.png")
        ...     [batch.shape for batch in ImageFolder(Path(folder), batch_size=2)]
        [torch.Size([2, 3, 4, 6]), torch.Size([1, 3, 4, 6])]
    """

    def __init__(
        self,
        folder: Path,
        size: tuple[int, int] | None = None,
        batch_size: int = 16,
        limit: int | None = None,
        channels: int | None = 3,
    ) -> None:
        files = ImageFiles.below(folder, limit)
        super().__init__(files, View(size, channels=channels), batch_size)
        self.paths = files.paths

    def __iter__(self) -> Iterator[Tensor]:
        for batch in super().__iter__():
            assert isinstance(batch, Tensor)  # no labels were given
            yield batch


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape[1:] if shape[0] in (1, 3) else shape))
