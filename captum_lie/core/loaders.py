"""Batches of images on their way from a loader to a model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sized
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie.core.captum_compat import progress
from captum_lie.errors import InvalidTypeError, InvalidValueError


def over_batches(
    model: object, loader: Iterable[Any], description: str, *, show_progress: bool
) -> Generator[tuple[int, Tensor, Any], None, None]:
    """A data set, batch by batch; closing it ends the line of the progress bar.

    Yields:
        The index of a batch's first example, its images ``[n, C, H, W]`` on the model's device, and
        the batch as it came.

    Raises:
        TypeError: a batch holds no images.
        ValueError: there are no batches.
    """
    first = 0
    total = len(loader) if isinstance(loader, Sized) else None
    for batch in progress(loader, description, total, show_progress):
        images = to_model(model, images_of(batch))
        yield first, images, batch
        first += len(images)
    if not first:
        raise InvalidValueError("The loader yielded no images: there is nothing to evaluate.")


def images_of(batch: Any) -> Tensor:
    """The images of a batch: the batch itself, or the first member of a tuple or list.

    Raises:
        TypeError: that is no tensor.
    """
    images = batch[0] if isinstance(batch, list | tuple) and len(batch) else batch
    if not isinstance(images, Tensor):
        raise InvalidTypeError(
            "The loader must yield image tensors, or tuples whose first member is one; "
            f"got {type(images).__name__}."
        )
    return images


def labels_of(batch: Any) -> Tensor:
    """The labels of a batch of images: its second member, a class for each image, ``[N]``.

    Raises:
        TypeError: it has no second member, or that holds anything but whole numbers.
        ValueError: there are more or fewer of them than images.
    """
    second = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
    labels = torch.tensor(second) if _whole_numbers(second) else second
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        given = type(second).__name__ if not isinstance(second, Tensor) else str(second.dtype)
        raise InvalidTypeError(
            "target='label' takes each image's class from the loader, which must yield (images, "
            f"labels) with whole numbers for labels; got {given} in their place."
        )
    n = len(images_of(batch))
    if labels.shape != (n,):
        raise InvalidValueError(
            f"Labels must be one class for each image, shape ({n},); got {tuple(labels.shape)}."
        )
    return labels


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(v, int) for v in values)


def to_model(model: object, images: Tensor) -> Tensor:
    """Images on the device of the model's parameters, if it is a module that has any.

    Example:
        >>> to_model(nn.Linear(1, 1), torch.zeros(1)).device.type
        'cpu'
    """
    return images.to(device_of(model))


def device_of(model: object) -> torch.device | None:
    """The device of the model's parameters, if it is a module that has any."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return None if parameter is None else parameter.device
