"""A graph beside the model that it was made from: on which images, and how far apart they are."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lie import examples
from captum_lie.errors import InvalidValueError
from captum_lie.images import resized
from captum_lie_onnx.metadata import Preprocessing

#: Batch sizes at which a graph is compared with its model.
BATCHES = (1, 2, 5)
_FIXED_BATCH_REMEDY = "If the model needs a fixed batch size, export with dynamic_batch=False."
#: Photographs to compare on.
_PHOTOGRAPHS = 8


def photographs_like(example: Tensor, about: Preprocessing) -> Tensor:
    """The embedded photographs as plain images ``[8, C, H, W]`` for a graph's input."""
    photographs = examples.load_images(_PHOTOGRAPHS)[0]
    channels = example.shape[3 if about.layout == "NHWC" else 1]
    if channels != photographs.shape[1]:
        photographs = photographs.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    return resized(photographs, about.size)


def batches(images: Tensor, fixed: int | None) -> list[Tensor]:
    """Batches to compare on, of the fixed size or of several sizes; each image is in one."""
    sizes = list(BATCHES) if fixed is None else [fixed]
    while sum(sizes) < len(images):
        sizes.append(sizes[-1])
    cycled = torch.cat([images] * -(-sum(sizes) // len(images)))
    return list(cycled[: sum(sizes)].split(sizes))


def difference(given: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest absolute difference and largest expected number; what is not finite is infinite."""
    if given.shape != expected.shape:
        raise InvalidValueError(
            f"The exported graph returns shape {tuple(given.shape)} where the model returns "
            f"{tuple(expected.shape)}. {_FIXED_BATCH_REMEDY}"
        )
    apart = (given.double() - expected.double()).abs().max().nan_to_num(nan=torch.inf)
    return float(apart), float(expected.double().abs().max())
