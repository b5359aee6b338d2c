"""timm models by name."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from captum_lie.errors import UnknownModelError, UnsupportedModelError
from captum_lie.images import View
from captum_lie.preprocessing import Normalized

#: Where timm finds models that are not its own.
_SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


def load(name: str, pretrained: bool = True, checkpoint: Path | str | None = None) -> Normalized:
    """A timm model in evaluation mode that takes plain images in [0, 1].

    Args:
        name: as in ``timm.list_models()``, ``"vit_tiny_patch16_224"`` for one; a prefix ``timm:``
            is taken off. With timm's own prefixes it is a repository (``"hf-hub:timm/..."``) or a
            folder (``"local-dir:..."``).
        pretrained: load timm's weights (from its cache or the hub).
        checkpoint: load these weights instead; any format that timm reads.

    Raises:
        UnknownModelError: timm has no model by that name.
        FileNotFoundError: there is no such checkpoint.
        UnsupportedModelError: weights cannot be had, or do not fit the model.

    Example:
        >>> model = load("resnet18", pretrained=False)
        >>> model.input_size
        (224, 224)
    """
    name = name.removeprefix("timm:")
    if ":" in name:
        if not name.startswith(_SOURCES):
            raise UnknownModelError(f"timm {timm.__version__} has no source {name!r}.")
    elif not timm.is_model(name.split(".")[0]):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        hint = f" Similar: {', '.join(close)}." if close else ""
        raise UnknownModelError(f"timm {timm.__version__} has no model {name!r}.{hint}")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise FileNotFoundError(f"There is no checkpoint {checkpoint}.")
    try:
        model = timm.create_model(
            name,
            pretrained=pretrained and checkpoint is None,
            checkpoint_path="" if checkpoint is None else str(checkpoint),
        )
    except Exception as error:
        source = f"the checkpoint {checkpoint}" if checkpoint else "pretrained weights"
        raise UnsupportedModelError(
            f"Could not load {name} with {source}: {_shortened(error)} "
            "Give a local file with checkpoint=, or pretrained=False for random weights."
        ) from error
    source = "random weights"
    if checkpoint is not None:
        source = f"checkpoint {Path(checkpoint).name}"
    elif pretrained:
        config: dict[str, Any] = getattr(model, "pretrained_cfg", {})
        source = f"weights {config.get('hf_hub_id') or name}"
    return prepared(
        model,
        f"timm {timm.__version__}, {source}",
        classes=None if checkpoint is not None else class_names(model),
    )


def prepared(
    model: nn.Module, provenance: str, *, classes: tuple[str, ...] | None = None
) -> Normalized:
    """A timm model with the preprocessing that its configuration states, in evaluation mode.

    Args:
        model: as timm creates it.
        provenance: where its weights come from.
        classes: what its outputs are called.

    Example:
        >>> model = timm.create_model("tf_efficientnet_lite1", pretrained=False)
        >>> prepared(model, "random weights").view.describe()
        '240x240, the middle of 272x272 (bicubic)'
    """
    config: dict[str, Any] = resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    view = View(
        (height, width),
        crop=config["crop_pct"],
        interpolation=config["interpolation"],
        mode="squash" if config["crop_mode"] == "squash" else "center",
        channels=channels,
    )
    return Normalized(
        model, config["mean"], config["std"], view=view, classes=classes, provenance=provenance
    ).eval()


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Names of an ImageNet model's outputs, each with its WordNet number; None for other models.

    Example:
        >>> class_names(timm.create_model("resnet10t", pretrained=False))[281]
        'tabby, tabby cat, n02123045'
    """
    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    numbers: list[str] = info.label_names()
    names = info.label_descriptions()
    return tuple(f"{name}, {number}" for name, number in zip(names, numbers, strict=True))


def _shortened(error: Exception) -> str:
    """On one line; what does not fit is of many lines, all alike."""
    return shorten(str(error) or type(error).__name__, 240, placeholder=" ...")
