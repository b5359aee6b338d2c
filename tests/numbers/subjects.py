"""The models and images behind the recorded numbers: the same to the last bit on any machine.

The embedded models bring their weights along. Those of timm are filled by integer arithmetic on
each element's index, so that neither torch's random generators nor timm's initialisation matter.
Everything is in double precision, and in general position: no value lies so near a kink (a ReLU at
zero, a tie of two positive numbers in max pooling) that rounding could decide its side. Images with
8 bits have flat patches and hence ties; a closed-form ripple on top of them ends that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from captum_lie.examples import MODEL_NAMES, load_images, load_model

PRIME = 65521  # the largest below 2¹⁶: squares of residues are exact in 64 bits


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode with images and labels for it.

    Attributes:
        modules: names of those whose rows are recorded, ``""`` for the whole.
        layer: the one of these that is looked at closely.
        smooth: without kinks, so that finite differences of it are reproducible.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    modules: tuple[str, ...]
    layer: str
    smooth: bool


def closed_form(*shape: int, seed: int = 0) -> Tensor:
    """Numbers that look uniform in [-1, 1): squares modulo a prime.

    >>> closed_form(3, seed=1)
    tensor([-0.9958, -0.9916, -0.9790], dtype=torch.float64)
    """
    index = torch.arange(torch.Size(shape).numel()) % PRIME
    residue = (index * index % PRIME * 137 + index * (seed % PRIME) % PRIME + 137) % PRIME
    return (2 * residue.double() / PRIME - 1).reshape(shape)


def fill(model: nn.Module) -> nn.Module:
    """Give a model closed-form weights and normalisation statistics, each by its name.

    Matrices and filters keep the variance of what they act on; scales and running variances lie in
    [0.75, 1.25), biases and running means in [-0.1, 0.1).
    """
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if not values.is_floating_point():
                continue
            drawn = closed_form(*values.shape, seed=crc32(name.encode()))
            if values.ndim > 1:
                drawn = drawn * sqrt(6 / values[0].numel())
            elif name.endswith(("bias", "running_mean")):
                drawn = drawn / 10
            else:
                drawn = 1 + drawn / 4
            values.copy_(drawn)
    return model


def waves(n: int, height: int, width: int) -> Tensor:
    """Images ``[n, 3, H, W]`` in [0, 1]: three plane waves each, of no common period."""
    row = torch.arange(height, dtype=torch.float64)[:, None]
    column = torch.arange(width, dtype=torch.float64)
    image, channel = torch.arange(n).double()[:, None], torch.arange(3).double()

    def wave(along_row: float, along_column: float) -> Tensor:
        tilt = (1 + 0.3 * image + 0.1 * channel)[..., None, None]
        return torch.sin(tilt * along_row * row + along_column * column + image[..., None, None])

    return 0.5 + (wave(0.11, 0.17) + wave(0.23, -0.31) + 0.5 * wave(0.71, 0.53)) / 5


def embedded(name: str) -> Subject:
    """One of the four models that ship with the package, on images that do."""
    images, labels = load_images(4)
    images = 0.9 * images.double() + 0.1 * waves(4, 32, 32)
    return Subject(
        load_model(name).double(),
        images,
        labels,
        ("", "normalise", "stem", *BLOCKS[name], "pool", "head"),
        layer=BLOCKS[name][0],
        smooth=name not in ("cnn", "cnn_blur"),
    )


def from_timm(name: str) -> Subject:
    """A model of timm with closed-form weights for ten classes, on images of 64 × 96 pixels."""
    import timm

    import captum_lie_timm  # noqa: F401 (registers the layouts)

    options, modules, layer = TIMM[name]
    model: nn.Module = timm.create_model(name, num_classes=10, **options)
    return Subject(
        fill(model.double()).eval(),
        waves(2, 64, 96),
        torch.tensor([3, 1]),
        ("", *modules),
        layer,
        smooth=name != "resnet18",
    )


# fmt: off
#: Recorded modules of each embedded model, beside those that all of them have.
BLOCKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("cnn", "cnn_blur"),
        ("stages.0.down.conv", "stages.0.down.act", "stem.maxpool", "stages.1",
         "stages.1.conv.norm"),
    ),
    "vit": ("blocks.0", "blocks.1.attention", "blocks.1.mlp", "blocks.3"),
    "mixer": ("blocks.0", "blocks.1.tokens", "blocks.1.channels", "blocks.3"),
}

#: Options, recorded modules and the one layer of each model of timm.
TIMM: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "resnet18": (
        {},
        ("conv1", "bn1", "maxpool", "layer1", "layer2.0", "layer2.0.conv1", "layer3", "layer4",
         "layer4.0.downsample", "global_pool", "fc"),
        "layer2.0.conv1",
    ),
    "vit_tiny_patch16_224": (
        {"img_size": (64, 96)},
        ("patch_embed", "blocks.0", "blocks.0.attn", "blocks.5.norm1", "blocks.5.mlp.fc1",
         "blocks.11", "norm", "head"),
        "blocks.0",
    ),
    "convnext_atto": (
        {},
        ("stem", "stages.0", "stages.1.downsample", "stages.1.blocks.0", "stages.2",
         "stages.2.blocks.0.conv_dw", "stages.3", "head.global_pool", "head.norm", "head.fc"),
        "stages.1.downsample",
    ),
}
# fmt: on

MAKERS: dict[str, Callable[[str], Subject]] = {
    **dict.fromkeys(MODEL_NAMES, embedded),
    **dict.fromkeys(TIMM, from_timm),
}


def subject(name: str) -> Subject:
    """The subject of that name, made anew."""
    return MAKERS[name](name)
