"""Batches of images on their way from a loader to a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidTypeError


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


def to_model(model: object, images: Tensor) -> Tensor:
    """Images on the device of the model's parameters, if it is a module that has any."""
    return images.to(device_of(model))


def device_of(model: object) -> torch.device | None:
    """The device of the model's parameters, if it is a module that has any."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return None if parameter is None else parameter.device
