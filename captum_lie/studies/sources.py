"""Images by name: the embedded ones, or any that :func:`captum_lie.images.open_images` knows."""

from __future__ import annotations

from captum_lie import examples
from captum_lie.images import ImageSource, ImageStack, open_images


def find_images(images: str, limit: int | None = None) -> ImageSource:
    """The images that an option names.

    Args:
        images: ``"builtin"``, or as for :func:`captum_lie.images.open_images`.
        limit: use at most so many.

    Example:
        >>> len(find_images("builtin", 3))
        3
    """
    if images != "builtin":
        return open_images(images, limit)
    stack, labels = examples.load_images(limit)
    return ImageStack(stack, labels.tolist(), examples.CLASSES)
