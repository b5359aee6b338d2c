"""The sets of images of a sweep, by name."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from captum_lie.core.captum_compat import progress
from captum_lie.errors import InvalidValueError
from captum_lie.images import ImageFiles, ImageSource, View
from captum_lie.studies.sources import find_images


@dataclass(frozen=True)
class Split:
    """One set of images.

    Attributes:
        name: in tables.
        source: as in :func:`captum_lie.images.open_images`, or ``builtin``.
        limit: use at most so many.
    """

    name: str
    source: str
    limit: int | None = None

    def open(self) -> ImageSource:
        """The images."""
        return find_images(self.source, self.limit)


def parse_splits(texts: Sequence[str], limit: int | None = None) -> list[Split]:
    """Sets of images from ``NAME=SOURCE``, with commas between; a source alone is its own name.

    Raises:
        ValueError: none, or two under one name.

    Example:
        >>> [split.name for split in parse_splits(["test=photos/test,train=photos/train"])]
        ['test', 'train']
    """
    splits = []
    for text in (part.strip() for argument in texts for part in argument.split(",")):
        if not text:
            continue
        named = re.fullmatch(r"(?P<name>[^=:/\\]+)=(?P<source>.+)", text)
        name, source = (named["name"], named["source"]) if named else (text, text)
        splits.append(Split(name, source, limit))
    names = [split.name for split in splits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidValueError(f"Two sets of images are called {twice!r}: write NAME=SOURCE.")
    if not splits:
        raise InvalidValueError("No images to sweep over: name some with --images NAME=SOURCE.")
    return splits


def fingerprints(splits: Sequence[Split]) -> dict[str, str]:
    """Digest of each set of images, by its name; reads them all."""
    return {
        split.name: fingerprint(split.open(), what=split.name, show_progress=True)
        for split in splits
    }


def fingerprint(source: ImageSource, *, what: str, show_progress: bool = False) -> str:
    """Digest of every image and label of a source; reads it whole, so that it is known to be there.

    Files are taken as they are, without their folders; other images as they are read. Files that
    are not images at all are told in a warning: they are left out of every cell.

    Raises:
        OSError: an image file cannot be read from the disk.
        ValueError: none of the files is an image.
    """
    found = hashlib.sha256(repr((source.labels, source.classes)).encode())
    broken = []
    positions = range(len(source))
    for i in progress(positions, f"{what}: reading images", len(source), show_progress):
        if isinstance(source, ImageFiles):
            content = source.paths[i].read_bytes()
            found.update(hashlib.sha256(content).digest())
            broken += [] if _is_image(content) else [source.name(i)]
        else:
            found.update(source.read(i, View()).numpy().tobytes())
    if len(broken) == len(source):
        raise InvalidValueError(f"{what}: none of the {len(source)} files is an image.")
    if broken:
        warnings.warn(
            f"{what}: {len(broken)} of {len(source)} files are not readable images and will be "
            f"left out, {broken[0]} for one.",
            stacklevel=2,
        )
    return found.hexdigest()


def _is_image(content: bytes) -> bool:
    """By its head alone, and by its check sums, where it has some."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.verify()
    except Exception:  # Pillow reports broken files by many
        return False
    return True
