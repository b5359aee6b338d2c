"""timm models by name."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten

import timm
import timm.data

from captum_lie.errors import UnknownModelError, UnsupportedModelError
from captum_lie.preprocessing import Normalized


def load(name: str, pretrained: bool = True, checkpoint: Path | str | None = None) -> Normalized:
    """A timm model in evaluation mode that takes plain images in [0, 1].

    Args:
        name: as in ``timm.list_models()``, ``"vit_tiny_patch16_224"`` for one.
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
    if not timm.is_model(name.split(".")[0]):
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
    config = timm.data.resolve_model_data_config(model)  # type: ignore[no-untyped-call,attr-defined]
    _, height, width = config["input_size"]
    return Normalized(model, config["mean"], config["std"], (height, width)).eval()


def _shortened(error: Exception) -> str:
    """On one line; what does not fit is of many lines, all alike."""
    return shorten(str(error) or type(error).__name__, 240, placeholder=" ...")
