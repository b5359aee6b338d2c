"""Image sources by name: a folder, a list, a stack of arrays, a function that gives a data set."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_lie._factories import find_factory
from captum_lie.errors import InvalidValueError, first_line
from captum_lie.images.sources import (
    ImageDataset,
    ImageFiles,
    ImageSource,
    ImageStack,
    class_label,
    plain,
    spread,
)

#: Adapters name a function under this entry point group: from what follows ``NAME:`` to a torch
#: data set of images, or of pairs of images and labels.
ENTRY_POINTS = "captum_lie.images"

#: Endings of stacks of images, and of text files that name images.
STACKS = (".npy", ".npz", ".pt", ".pth")
LISTS = (".txt", ".tsv", ".lst")


def open_images(spec: str | Path, limit: int | None = None) -> ImageSource:
    """The images that a user names.

    Args:
        spec: a folder of image files (of one subfolder a class, where they are labelled), a text
            file that names one image a line (``FILE`` or ``FILE<tab>CLASS``), a stack of images
            ``[N, C, H, W]`` or ``[N, H, W]`` in a file ``.npy``, ``.npz`` or ``.pt`` (floats in
            [0, 1] or bytes; keys ``images``, ``labels`` and ``classes``), ``FILE.py:function``
            that returns a torch data set, or what an installed adapter opens by its prefix
            (``timm:torch/cifar10@/data#test``).
        limit: use at most so many, evenly spread.

    Raises:
        OSError: there is no such file or folder.
        TypeError, ValueError: it holds no images, or none that can be used.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "digits.npz"
        ...     np.savez(file, images=np.zeros((2, 8, 8), np.uint8), labels=[3, 7])
        ...     source = open_images(file)
        >>> len(source), source.labels
        (2, [3, 7])
    """
    text = str(spec)
    path = Path(spec)
    if ".py:" in text:
        return ImageDataset(find_factory(text)(), text, limit)
    opener = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}.get(
        text.partition(":")[0] if ":" in text else ""
    )
    if opener is not None:
        return ImageDataset(opener.load()(text.partition(":")[2]), text, limit)
    if path.suffix.lower() in STACKS and not path.is_dir():
        return _stack(path, limit)
    if path.suffix.lower() in LISTS and not path.is_dir():
        return ImageFiles.listed(path, limit)
    return ImageFiles.below(path, limit)


def _stack(path: Path, limit: int | None) -> ImageStack:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = _load(path)
    images = plain(content["images"], str(path), 4)
    labels = content.get("labels")
    if labels is not None:
        labels = [class_label(label) for label in labels]
        if len(labels) != len(images):
            raise InvalidValueError(f"{path}: {len(images)} images but {len(labels)} labels.")
    classes = content.get("classes")
    chosen = spread(range(len(images)), limit)
    return ImageStack(
        images[chosen],
        None if labels is None else [labels[i] for i in chosen],
        None if classes is None else [str(name) for name in classes],
    )


def _load(path: Path) -> dict[str, Any]:
    """The arrays of a file by name; a lone one is called ``images``."""
    found: Any
    try:
        if path.suffix.lower() in (".pt", ".pth"):
            found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            found = np.load(path, allow_pickle=False)
            found = dict(found) if isinstance(found, np.lib.npyio.NpzFile) else found
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise InvalidValueError(
            f"{path} cannot be read ({first_line(error)}). Save plain arrays or tensors: "
            "numpy.savez(file, images=..., labels=...)."
        ) from error
    if isinstance(found, Tensor | np.ndarray):
        return {"images": found}
    if isinstance(found, Mapping):
        if "images" in found:
            return dict(found)
        if len(found) == 1:
            return {"images": next(iter(found.values()))}
    held = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
    raise InvalidValueError(f"{path} has no entry 'images'; it holds {held or 'nothing'}.")
