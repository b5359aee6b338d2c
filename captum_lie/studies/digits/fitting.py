"""A model made to tell ten digits, and digits made to fit the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie.errors import UnsupportedModelError
from captum_lie.images import view_of
from captum_lie.studies.digits.data import CLASSES, Digits
from captum_lie.studies.models import check_runs


def fitted_digits(model: nn.Module, digits: Digits) -> Digits:
    """Digits at the size and with the channels that a model expects; their own where it is open."""
    view = view_of(model)
    size, channels = view.size, view.channels

    def fit(images: Tensor) -> Tensor:
        if size is not None and size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return images.expand(-1, channels or 1, -1, -1).clamp(0, 1).contiguous()

    return digits.map(fit)


def with_new_head(name: str, model: nn.Module, images: Tensor, *, seed: int) -> nn.Module:
    """The model with its classifier, the last linear layer, replaced by one for ten digits.

    Args:
        name: of the model, for errors.
        model: changed in place.
        images: that it runs on, to see how many outputs it has.
        seed: of the new layer's weights.

    Raises:
        UnsupportedModelError: it ends in no linear layer of as many outputs as the model has.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> with_new_head("linear", model, torch.rand(2, 1, 2, 2), seed=0)[1].out_features
        10
    """
    outputs = check_runs(name, model, images).shape[1:]
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n]
    if not linear or tuple(outputs) != (linear[-1][1].out_features,):
        raise UnsupportedModelError(
            f"{name} ends in no linear layer with its {list(outputs)} outputs, so its classifier "
            "cannot be replaced: give a factory FILE.py:function of a model that does."
        )
    path, old = linear[-1]
    parent, _, own = path.rpartition(".")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(old.in_features, CLASSES, bias=old.bias is not None)
    setattr(model.get_submodule(parent), own, head)
    return model
