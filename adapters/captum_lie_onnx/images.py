"""The images of an audit: read as the file takes them, and which of them could not be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from captum_lie import examples
from captum_lie.errors import InvalidValueError
from captum_lie.extending.checks import check_images
from captum_lie.images import ImageFolder, View, resized

Size = tuple[int, int]

#: The embedded images, in place of a folder.
BUILTIN = "builtin"
#: Copies of a batch while it is measured: moved, where it is read, normalised, as the graph has it.
_COPIES = 4


@dataclass(frozen=True)
class Wanted:
    """What images must be like.

    Attributes:
        size: ``(height, width)``; None: any.
        channels: 1 for grey, 3 for RGB; None: any.
        batch: images that are worked on at a time.
        memory: bytes that all this may take.
    """

    size: Size | None = None
    channels: int | None = None
    batch: int = 16
    memory: int = 4 * 2**30

    def check_room(self, n: int, size: Size) -> None:
        """Raise unless n images of this size fit: a file may declare any.

        Raises:
            ValueError: they do not.

        Example:
            >>> Wanted(memory=2**20).check_room(2, (2**31, 2**31))
            Traceback (most recent call last):
            captum_lie.errors.InvalidValueError: 2 images of 2147483648x2147483648 pixels and the \
copies that measuring makes need more than the 0.000977 GiB allowed. Use fewer (--limit), smaller \
ones (--size) or smaller batches (--batch-size), or raise the limit (--memory).
        """
        height, width = size
        needed = (n + _COPIES * self.batch) * (self.channels or 3) * height * width * 4
        if needed > self.memory:
            raise InvalidValueError(
                f"{n} images of {height}x{width} pixels and the copies that measuring makes need "
                f"more than the {self.memory / 2**30:.3g} GiB allowed. Use fewer (--limit), "
                "smaller ones (--size) or smaller batches (--batch-size), or raise the limit "
                "(--memory)."
            )


@dataclass(frozen=True, eq=False)
class AuditImages:
    """Images ``[N, C, H, W]`` in [0, 1].

    Attributes:
        images: the images.
        skipped: files that could not be read, with reasons.
        notes: what was done to the images that nobody asked for, in words.
    """

    images: Tensor
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_images(
    source: Path | str | Tensor,
    wanted: Wanted | None = None,
    limit: int | None = None,
    max_unreadable: float = 0.1,
) -> AuditImages:
    """Images as a file takes them.

    Those of a folder are scaled to cover the size that is wanted and cropped to it. Where any will
    do and they differ, that is the least height and the least width among them, so that none is
    enlarged. For files with one channel they are read as grey.

    Args:
        source: a folder, ``"builtin"`` for the embedded images, or the images themselves, which are
            taken as they are.
        limit: use at most so many files, evenly spread over the folder.
        max_unreadable: largest share of the files that may be unreadable.

    Raises:
        OSError: no such folder.
        TypeError, ValueError: no images, too many unreadable ones, more than fit into memory, or
            not images in [0, 1].
    """
    wanted = wanted or Wanted()
    if isinstance(source, Tensor):
        check_images(source)
        read = AuditImages(source.detach().cpu())
    elif source == BUILTIN:
        read = _embedded(wanted, limit)
    else:
        read = _folder(Path(source), wanted, limit, max_unreadable)
    if not len(read.images):
        raise InvalidValueError("There are no images to audit with.")
    low, high = read.images.min().item(), read.images.max().item()
    if not (low >= 0 and high <= 1):
        raise InvalidValueError(
            f"An audit needs plain images in [0, 1]; got values from {low:.3g} to {high:.3g}. "
            "Normalisation belongs into the graph, or into its metadata."
        )
    return read


def _embedded(wanted: Wanted, limit: int | None) -> AuditImages:
    images, _ = examples.load_images(limit)
    if wanted.channels == 1:
        images = torch.stack([View(channels=1)(image) for image in images])
    size = wanted.size or (images.shape[-2], images.shape[-1])
    wanted.check_room(len(images), size)
    return AuditImages(resized(images, size))


def _folder(source: Path, wanted: Wanted, limit: int | None, max_unreadable: float) -> AuditImages:
    notes = []
    # Files with other numbers of channels refuse what they get, and say what they want.
    channels = 1 if wanted.channels == 1 else 3
    paths = ImageFolder(source, limit=limit).paths
    size = wanted.size
    if size is None:
        sizes = _sizes(paths)
        size = (min((h for h, _ in sizes), default=1), min((w for _, w in sizes), default=1))
        if len(sizes) > 1:
            notes.append(
                f"The images have {len(sizes)} different sizes and the file takes any: all were "
                f"scaled and cropped to {size[0]}x{size[1]} pixels, the least height and width "
                "among them. Say another with --size HxW."
            )
    wanted.check_room(len(paths), size)
    folder = ImageFolder(source, size, limit=limit, channels=channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report names them
        images = torch.cat(list(folder))
    skipped = {str(path.relative_to(source)): reason for path, reason in folder.skipped.items()}
    if len(skipped) > max_unreadable * len(folder.paths):
        name, reason = next(iter(skipped.items()))
        raise InvalidValueError(
            f"{len(skipped)} of {len(folder.paths)} images could not be read, more than the "
            f"share of {max_unreadable:g} allowed; the first is {name} ({reason})."
        )
    return AuditImages(images, skipped, notes)


def _sizes(paths: Iterable[Path]) -> set[Size]:
    """``(height, width)`` of the files that can be decoded: a broken one must not set the size."""
    sizes: set[Size] = set()
    for path in paths:
        try:
            with Image.open(path) as file:
                size = (file.height, file.width)
                if size not in sizes:
                    file.load()
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
            continue
        sizes.add(size)
    return sizes
