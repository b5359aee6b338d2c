"""From image files to model inputs: plain images in [0, 1], normalisation inside the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError

__all__ = ["EXTENSIONS", "ImageFolder", "Normalized", "read_image"]

#: Endings of the files that :class:`ImageFolder` reads.
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
#: What Pillow calls an image of so many channels.
_MODES = {1: "L", 3: "RGB"}


class Normalized(nn.Module):
    """A model that takes plain images in [0, 1] and normalises them itself.

    Groups then act on the image that a person sees: brightness, for one, would mean something else
    on normalised values.

    Args:
        model: takes normalised images.
        mean, std: for each channel, or one number for all.
        input_size: ``(height, width)`` that the model expects, if it expects one.

    Raises:
        ValueError: not finite, a standard deviation that is not positive, or numbers of channels
            that differ.

    Example:
        >>> model = Normalized(nn.Flatten(), mean=(0.5,), std=(0.25,))
        >>> model(torch.full((1, 1, 1, 1), 0.75)).item()
        1.0
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        input_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        means, deviations = torch.tensor(mean), torch.tensor(std)
        if not ((deviations > 0) & deviations.isfinite()).all():
            raise InvalidValueError(
                f"Standard deviations must be positive and finite; got {tuple(std)}."
            )
        if not means.isfinite().all():
            raise InvalidValueError(f"Means must be finite; got {tuple(mean)}.")
        if len({len(means), len(deviations)} - {1}) > 1:
            raise InvalidValueError(
                "Give one mean and one standard deviation for each channel, or one for all; "
                f"got {len(means)} and {len(deviations)}."
            )
        self.model = model
        self.input_size = input_size
        self.register_buffer("mean", means[:, None, None], persistent=False)
        self.register_buffer("std", deviations[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.model((x - self.mean) / self.std)
        return output


def read_image(path: Path, size: tuple[int, int] | None = None, channels: int = 3) -> Tensor:
    """An image file in [0, 1], ``[C, H, W]``, scaled to cover ``size`` and cropped to it.

    Args:
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B).

    Raises:
        OSError: the file is not a readable image.
        ValueError: another number of channels.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "red.png"
        ...     Image.new("RGB", (6, 4), "red").save(path)
        ...     read_image(path).shape, read_image(path, (2, 2))[:, 0, 0].tolist()
        (torch.Size([3, 4, 6]), [1.0, 0.0, 0.0])
    """
    if channels not in _MODES:
        raise InvalidValueError(f"Images are read with 1 or 3 channels; got channels={channels}.")
    try:
        with Image.open(path) as file:
            image = file.convert(_MODES[channels])
            if size is not None:
                image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    # Pillow reports broken files by many exceptions, and bombs by one of its own.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise OSError(f"{path} is not a readable image: {error}") from error
    pixels = np.array(image).reshape(image.height, image.width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


class ImageFolder:
    """The images below a folder in batches ``[n, C, H, W]``; unreadable files are skipped.

    Args:
        folder: searched recursively for image files, in the order of their names.
        size: ``(height, width)``; None keeps the images' own, which must then be the same.
        batch_size: images a batch.
        limit: use at most so many images, evenly spread over the folder.
        channels: 3 for RGB, 1 for grey.

    Raises:
        FileNotFoundError, NotADirectoryError: no such folder.
        ValueError: no image files in it, none readable, or (while iterating) of different sizes.

    Example:
        >>> from tempfile import TemporaryDirectory
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
        channels: int = 3,
    ) -> None:
        if not folder.exists():
            raise FileNotFoundError(f"There is no folder {folder}.")
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file; pass the folder that holds the images.")
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not paths:
            raise InvalidValueError(f"No image files ({', '.join(EXTENSIONS)}) in {folder}.")
        if limit is not None and limit < len(paths):
            paths = [paths[i * len(paths) // limit] for i in range(limit)]
        self.paths = paths
        self.size = size
        self.batch_size = batch_size
        self.channels = channels
        #: Files that could not be read, with the reason, after iterating.
        self.skipped: dict[Path, str] = {}

    def __len__(self) -> int:
        """Number of batches, if every file can be read."""
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        batch: list[Tensor] = []
        found = None
        for path in self.paths:
            try:
                image = read_image(path, self.size, self.channels)
            except OSError as error:
                if path not in self.skipped:
                    self.skipped[path] = str(error)
                    warnings.warn(f"Skipped: {error}", stacklevel=2)
                continue
            if found is not None and image.shape != found.shape:
                raise InvalidValueError(
                    f"Images differ in size: {path} is {_size(image)}, "
                    f"those before {_size(found)}. Say the size to use (--size HxW)."
                )
            found = image
            batch.append(image)
            if len(batch) == self.batch_size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)
        if found is None:
            raise InvalidValueError(f"None of the {len(self.paths)} image files could be read.")


def _size(image: Tensor) -> str:
    return f"{image.shape[1]}x{image.shape[2]}"
