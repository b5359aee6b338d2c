"""Images from timm's data sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import create_dataset

from captum_lie.errors import InvalidValueError, UnsupportedModelError, first_line


def open_dataset(text: str) -> Any:
    """A data set of :func:`timm.data.create_dataset`, as PIL images with labels.

    Args:
        text: ``[NAME][@ROOT][#SPLIT]``: ``torch/cifar10@/data#test``, ``hfds/USER/NAME#validation``
            or ``tfds/NAME``; without a name a folder of one subfolder a class. It must be there.

    Raises:
        ValueError: timm knows no such data set, or does not find it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     (Path(folder) / "cat").mkdir()
        ...     Image.new("RGB", (6, 4)).save(Path(folder) / "cat" / "1.png")
        ...     image, label = open_dataset(f"@{folder}")[0]
        >>> image.size, label
        ((6, 4), 0)
    """
    parts = re.fullmatch(r"(?P<name>[^@#]*)(@(?P<root>[^#]*))?(#(?P<split>.+))?", text)
    if parts is None:
        raise InvalidValueError(f"A timm data set is written [NAME][@ROOT][#SPLIT]; got {text!r}.")
    root, split = parts["root"] or None, parts["split"] or "validation"
    if root is not None and not Path(root).exists():
        raise FileNotFoundError(f"There is no folder {root} (from {text}).")
    try:
        dataset: Any = create_dataset(parts["name"], root=root, split=split, download=False)
    except Exception as error:  # of torchvision, datasets or tensorflow_datasets, whatever it is
        raise UnsupportedModelError(
            f"timm cannot open the data set {text!r}: {first_line(error)}"
        ) from error
    return dataset
