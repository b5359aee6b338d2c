"""Where images come from: files, stacks and data sets, each example by its position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.images.files import EXTENSIONS, read_view
from captum_lie.images.view import View

T = TypeVar("T")

#: A class as a source names it: a folder's name, or a number.
Label = str | int


class ImageSource(Protocol):
    """Images by position, each prepared for a model on reading.

    Attributes:
        labels: class of each image, if known.
        classes: names of the classes that numbers among the labels stand for, if known.
        skipped: what could not be read, with the reason.

    Example:
        >>> source: ImageSource = ImageStack(torch.rand(2, 3, 4, 4))
        >>> source.name(1), source.read(1, View(channels=1)).shape
        ('image 1', torch.Size([1, 4, 4]))
    """

    labels: Sequence[Label] | None
    classes: Sequence[str] | None
    skipped: dict[Path, str]

    def __len__(self) -> int: ...

    def read(self, i: int, view: View) -> Tensor:
        """Image ``i`` as ``[C, H, W]`` in [0, 1]; OSError where it is a file that is broken."""
        ...

    def name(self, i: int) -> str:
        """What to call image ``i`` in a message."""
        ...


class ImageFiles:
    """Image files, in the order given.

    Args:
        paths: the files.
        labels: class of each, if known.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     (Path(folder) / "cat").mkdir()
        ...     Image.new("RGB", (6, 4)).save(Path(folder) / "cat" / "1.png")
        ...     files = ImageFiles.below(Path(folder))
        ...     files.labels, files.read(0, View((2, 2), channels=1)).shape
        (['cat'], torch.Size([1, 2, 2]))
    """

    classes: Sequence[str] | None = None

    def __init__(self, paths: Sequence[Path], labels: Sequence[Label] | None = None) -> None:
        self.paths = list(paths)
        self.labels = labels
        self.skipped: dict[Path, str] = {}

    @classmethod
    def below(cls, folder: Path, limit: int | None = None) -> ImageFiles:
        """The image files below a folder, by name; its subfolders are classes if all lie in some.

        Args:
            limit: use at most so many, evenly spread.

        Raises:
            FileNotFoundError, NotADirectoryError: no such folder.
            ValueError: no image files in it.
        """
        if not folder.exists():
            raise FileNotFoundError(f"There is no folder {folder}.")
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file; pass the folder that holds the images.")
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not paths:
            raise InvalidValueError(f"No image files ({', '.join(EXTENSIONS)}) in {folder}.")
        paths = spread(paths, limit)
        inside = [p.relative_to(folder).parts for p in paths]
        labelled = all(len(parts) > 1 for parts in inside)
        return cls(paths, [parts[0] for parts in inside] if labelled else None)

    @classmethod
    def listed(cls, file: Path, limit: int | None = None) -> ImageFiles:
        """The files that a text file names, one a line, each with a class after a tab if known.

        Names are relative to the text file's folder; empty lines and lines with ``#`` are left out.

        Raises:
            FileNotFoundError: there is no such file, or it names one that is not there.
            ValueError: it names none, or some with and some without a class.
        """
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}.")
        lines = [line.strip() for line in file.read_text().splitlines()]
        rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
        if not rows:
            raise InvalidValueError(f"{file} names no image: write one file name a line.")
        if len({len(row) for row in rows}) > 1:
            raise InvalidValueError(
                f"{file} gives some images a class and some none: "
                "write FILE<tab>CLASS in each line."
            )
        rows = spread(rows, limit)
        paths = [file.parent / row[0] for row in rows]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"There is no file {path} (from {file}).")
        return cls(paths, [class_label(row[1]) for row in rows] if len(rows[0]) > 1 else None)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int, view: View) -> Tensor:
        return read_view(self.paths[i], view)

    def name(self, i: int) -> str:
        return str(self.paths[i])


class ImageStack:
    """Images of one size in memory.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        labels: class of each, if known.
        classes: names of the classes that the labels number.

    Example:
        >>> stack = ImageStack(torch.rand(2, 1, 4, 4))
        >>> len(stack), stack.read(1, View(channels=3)).shape
        (2, torch.Size([3, 4, 4]))
    """

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[Label] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.images, self.labels, self.classes = images, labels, classes
        self.skipped: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int, view: View) -> Tensor:
        return view(self.images[i])

    def name(self, i: int) -> str:
        return f"image {i}"


class ImageDataset:
    """A torch data set of images, or of ``(image, label)``.

    Args:
        dataset: by position; an image is Pillow's, or a tensor or array ``[C, H, W]`` or ``[H, W]``
            in [0, 1] or of bytes.
        what: what to call it in a message.
        limit: use at most so many, evenly spread.

    Raises:
        TypeError: it has no length or no positions.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4))
        >>> source = ImageDataset(data, "mine", limit=2)
        >>> len(source), source.read(1, View()).shape, source.labels
        (2, torch.Size([3, 8, 8]), [0, 2])
    """

    def __init__(self, dataset: object, what: str, limit: int | None = None) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise InvalidTypeError(
                f"{what} must return a torch Dataset with a length and positions; "
                f"got {type(dataset).__name__}."
            )
        self.dataset, self.what = cast(Any, dataset), what
        self.positions = spread(range(len(self.dataset)), limit)
        if not self.positions:
            raise InvalidValueError(f"The data set of {what} is empty.")
        names, targets = getattr(dataset, "classes", None), getattr(dataset, "targets", None)
        self.classes: Sequence[str] | None = None if names is None else [str(n) for n in names]
        self.skipped: dict[Path, str] = {}
        self.labels: Sequence[Label] | None = None
        if self._paired(self.dataset[self.positions[0]]):
            # As torchvision's data sets tell them; else only the examples themselves know.
            self.labels = [
                class_label(self.dataset[p][1] if targets is None else targets[p])
                for p in self.positions
            ]

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, i: int, view: View) -> Tensor:
        example = self.dataset[self.positions[i]]
        image = example[0] if self._paired(example) else example
        if isinstance(image, tuple | list) and image:
            image = image[0]
        return view(image if isinstance(image, Image.Image) else plain(image, self.name(i), 3))

    def name(self, i: int) -> str:
        return f"image {self.positions[i]} of {self.what}"

    @staticmethod
    def _paired(example: object) -> bool:
        return isinstance(example, tuple | list) and len(example) > 1


def plain(values: object, what: str, ndim: int) -> Tensor:
    """Images in [0, 1] as float32, from floats in [0, 1] or bytes.

    Args:
        ndim: 4 for a stack ``[N, C, H, W]`` or ``[N, H, W]``, 3 for an image without the ``N``.

    Raises:
        TypeError: not an array of numbers.
        ValueError: of another shape, or outside [0, 1].
    """
    if isinstance(values, Tensor):
        found = values.detach().cpu()
    elif isinstance(values, np.ndarray) and values.dtype.kind in "fbu":
        found = torch.from_numpy(np.ascontiguousarray(values))
    else:
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values)
        raise InvalidTypeError(
            f"{what}: images must be floats in [0, 1] or bytes (uint8); got {kind}."
        )
    expected = "[N, C, H, W] or [N, H, W]" if ndim == 4 else "[C, H, W] or [H, W]"
    if found.ndim == ndim - 1:
        found = found.unsqueeze(ndim - 3)
    if found.ndim != ndim or not found.numel():
        raise InvalidValueError(f"{what}: images must be {expected}; got {tuple(found.shape)}.")
    channels, _, width = found.shape[-3:]
    if channels > 4 and width in (1, 3, 4):
        raise InvalidValueError(
            f"{what}: images must be {expected}, channels first; got {tuple(found.shape)}. "
            "Move the channels, for example images.transpose(0, 3, 1, 2)."
        )
    if found.dtype == torch.uint8:
        return found.float() / 255
    if not found.is_floating_point():
        raise InvalidTypeError(
            f"{what}: images must be floats in [0, 1] or bytes (uint8); got {found.dtype}."
        )
    low, high = found.min().item(), found.max().item()
    if not (low >= 0 and high <= 1):
        raise InvalidValueError(
            f"{what}: images must lie in [0, 1]; got values from {low:.3g} to {high:.3g}. "
            "Scale them, or give bytes (uint8)."
        )
    return found.float()


def class_label(label: object) -> Label:
    """A class index if it is one, else its name.

    Raises:
        TypeError: neither.
    """
    if isinstance(label, str):
        return int(label) if label.isdecimal() else label
    values = np.asarray(label)
    if values.size != 1 or values.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"A label must be one class index or name; got {type(label).__name__} {label!r}."
        )
    return int(values.item())


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most ``limit`` items, evenly spread."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
