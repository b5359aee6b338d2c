"""Image files: eight-bit pictures, deeper grey ones, and stacks of pages as channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_lie.images.view import View

#: Endings of the files that are read from folders.
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def read_image(path: Path, size: tuple[int, int] | None = None, channels: int | None = 3) -> Tensor:
    """An image file in [0, 1], ``[C, H, W]``, scaled to cover ``size`` and cropped to it.

    Args:
        path: what Pillow reads. A TIFF file of several grey pages has them as channels; grey
            images of 16 bits are scaled by their full range.
        size: ``(height, width)``; None keeps the image's own.
        channels: 1 for grey, 3 for RGB; pages keep their number.

    Raises:
        OSError: the file is not a readable image.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "red.png"
        ...     Image.new("RGB", (6, 4), "red").save(path)
        ...     read_image(path).shape, read_image(path, (2, 2))[:, 0, 0].tolist()
        (torch.Size([3, 4, 6]), [1.0, 0.0, 0.0])
    """
    return read_view(path, View(size, channels=channels))


def read_view(path: Path, view: View) -> Tensor:
    """An image file as a model sees it, ``[C, H, W]`` in [0, 1].

    Raises:
        OSError: the file is not a readable image.
    """
    try:
        with Image.open(path) as file:
            pages = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1
            if (pages > 1 and file.mode in ("1", "L")) or file.mode[0] in "IF":
                return view(_deep(file, pages))
            return view(file)
    # Pillow reports broken files by many exceptions, and bombs by one of its own.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise OSError(f"{path} is not a readable image: {error}") from error


def _deep(file: Image.Image, pages: int) -> Tensor:
    """Grey pages of any depth as channels in [0, 1]."""
    bands = []
    for page in range(pages):
        if pages > 1:
            file.seek(page)
        bands.append(np.array(file))
    if len({band.shape for band in bands}) > 1:
        raise ValueError(f"its {pages} pages differ in size")
    values = np.stack(bands)
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError("floating point pixels must lie in [0, 1]")
        return torch.from_numpy(values.astype(np.float32))
    # Pillow widens 16-bit files to 32 bits on some paths: what they hold decides.
    full = 1 if values.dtype == bool else 255 if values.dtype == np.uint8 else 65535
    if values.max() > full or values.min() < 0:
        raise ValueError(f"pixels must lie in [0, {full}]; got {values.min()} to {values.max()}")
    return torch.from_numpy((values / full).astype(np.float32))
