"""The images of an audit, and which of them could not be read."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from captum_lie._validation import check_images
from captum_lie.errors import InvalidValueError
from captum_lie.preprocessing import ImageFolder


def read_images(
    source: Path | str | Tensor,
    size: tuple[int, int] | None,
    limit: int | None = None,
    max_unreadable: float = 0.1,
) -> tuple[Tensor, dict[str, str]]:
    """Images ``[N, C, H, W]`` in [0, 1], and the files that could not be read, with reasons.

    Args:
        source: a folder, or the images themselves.
        size: ``(height, width)`` of images from a folder; None keeps their own.
        limit: use at most so many files, evenly spread over the folder.
        max_unreadable: largest share of the files that may be unreadable.

    Raises:
        OSError: no such folder.
        TypeError, ValueError: no images, too many unreadable ones, or not images in [0, 1].
    """
    if isinstance(source, Tensor):
        check_images(source)
        images, skipped = source.detach().cpu(), {}
    else:
        folder = ImageFolder(Path(source), size, limit=limit)
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
    if not len(images):
        raise InvalidValueError("There are no images to audit with.")
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        raise InvalidValueError(
            f"An audit needs plain images in [0, 1]; got values from {low:.3g} to {high:.3g}. "
            "Normalisation belongs into the graph, or into its metadata."
        )
    return images, skipped
