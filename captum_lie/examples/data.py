"""The files shipped with the examples: held-out images, their labels, stated accuracies."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_lie.errors import DamagedFileError, InvalidValueError

CLASSES: tuple[str, ...] = (
    "brick",
    "cat",
    "coffee",
    "galaxies",
    "grass",
    "gravel",
    "retina",
    "rocket",
)
IMAGE_SIZE = 32  # pixels a side
SHEET_FILE = "images.png"
METADATA_FILE = "examples.json"


def read_shipped(name: str) -> bytes:
    """The bytes of one shipped data file; FileNotFoundError when the installation lacks it."""
    try:
        return files(__package__).joinpath("data").joinpath(name).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the example file {name!r} is missing from this installation of captum-lie; "
            "reinstall it, or make the file with `python -m captum_lie.examples.train`"
        ) from error


def corrupt(name: str, why: object) -> DamagedFileError:
    """The error for a shipped file that is there but cannot be used."""
    return DamagedFileError(
        f"the example file {name!r} is damaged or from another version ({why}); "
        "reinstall captum-lie"
    )


def read_metadata() -> dict[str, Any]:
    """The content of ``examples.json``; RuntimeError when it cannot be read."""
    try:
        content = json.loads(read_shipped(METADATA_FILE))
    except ValueError as error:
        raise corrupt(METADATA_FILE, error) from error
    if not isinstance(content, dict) or content.get("classes") != list(CLASSES):
        raise corrupt(METADATA_FILE, "its classes are not those of the code")
    return content


def load_images(n: int | None = None) -> tuple[Tensor, Tensor]:
    """Held-out test crops: images ``[n, 3, 32, 32]`` in [0, 1] (float32), labels ``[n]`` (int64).

    ``n=None`` gives all of them. The classes take turns, so the first ``n`` are balanced as far
    as possible. Nothing in them was seen in training: they come from other parts of the
    photographs. Nearly flat crops (grey values with a standard deviation below 0.04) were left
    out, of training and test alike. ValueError when ``n`` is below 1 or more than there are.

    >>> images, labels = load_images(16)
    >>> images.shape, labels.tolist()[:9]
    (torch.Size([16, 3, 32, 32]), [0, 1, 2, 3, 4, 5, 6, 7, 0])
    """
    labels = torch.tensor([image["label"] for image in read_metadata()["images"]])
    available = len(labels)
    n = available if n is None else n
    if not 1 <= n <= available:
        raise InvalidValueError(
            f"n must lie between 1 and {available}, the number of shipped images, got {n}; "
            "leave it out to get all"
        )
    return unstack_sheet(read_shipped(SHEET_FILE), available)[:n], labels[:n]


def unstack_sheet(png: bytes, n: int) -> Tensor:
    """The ``n`` images ``[n, 3, 32, 32]`` of a contact sheet that is read row by row."""
    try:
        sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB")))
    except (OSError, SyntaxError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise corrupt(SHEET_FILE, error) from error
    grid = sheet.unfold(0, IMAGE_SIZE, IMAGE_SIZE).unfold(1, IMAGE_SIZE, IMAGE_SIZE)
    images = grid.flatten(0, 1)  # [row, column, 3, y, x] to [image, 3, y, x]
    if len(images) != n:
        raise corrupt(SHEET_FILE, f"it holds {len(images)} images, not {n}")
    return images.float() / 255


def stack_sheet(images: Tensor, columns: int) -> bytes:
    """The inverse of :func:`unstack_sheet`: images in [0, 1] as the bytes of an 8-bit PNG."""
    rows = (images * 255).round().byte().reshape(-1, columns, *images.shape[1:])
    pixels = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # [y, x, 3]
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def accuracy() -> dict[str, float]:
    """Test accuracy (0 to 1) of each shipped model on the whole held-out set, by model name.

    The set has 800 crops, 100 a class, some of which overlap; the shipped images are 256 of them.

    >>> all(value > 0.95 for value in accuracy().values())
    True
    """
    return {name: value["test"] for name, value in read_metadata()["accuracy"].items()}
