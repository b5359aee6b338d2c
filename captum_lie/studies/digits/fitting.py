"""A model made to tell ten digits, at the size of its own or at another."""

from __future__ import annotations

import torch
from torch import nn

from captum_lie._factories import described
from captum_lie.errors import UnsupportedModelError
from captum_lie.examples.models import MODEL_NAMES, build
from captum_lie.images import view_of
from captum_lie.studies.digits.data import CLASSES, Digits, Fit
from captum_lie.studies.models import check_runs
from captum_lie.studies.specs import ModelSpec, load


def fit_of(model: nn.Module, size: tuple[int, int] | None = None) -> Fit:
    """How a model wants digits: with its own channels, and at its own size unless told another.

    Example:
        >>> fit_of(nn.Conv2d(3, 2, 3), (28, 28))
        Fit(size=(28, 28), channels=3)
    """
    view = view_of(model)
    return Fit(size or view.size, view.channels or 1)


def model_of(
    spec: ModelSpec,
    digits: Digits,
    *,
    size: tuple[int, int] | None = None,
    pretrained: bool,
    seed: int,
) -> nn.Module:
    """The model with ten outputs, before training.

    The seed decides what is drawn at random: all weights of an embedded model without its own and
    of a factory that draws them, else those of the new classifier.

    Args:
        digits: with the fit of this model.
        size: ``(height, width)`` for a model that can be told, see :func:`resized`.

    Raises:
        ValueError: nothing by that name, or not a model that can be made to tell digits.
    """
    if spec.name in MODEL_NAMES and (spec.random or not pretrained):
        return build(spec.name, CLASSES, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = load(spec, pretrained=pretrained)
        if size is not None:
            resized(spec.label, model, size)
        return with_new_head(spec.label, model, digits)


def resized(name: str, model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Tell a model the size of its images, where one of its modules takes it.

    timm's vision transformers have ``set_input_size(img_size=)``, which resamples their position
    embeddings; most convolutional networks need not be told.

    Raises:
        UnsupportedModelError: the model refuses the size.
    """
    for module in model.modules():
        tell = getattr(module, "set_input_size", None)
        if callable(tell):
            try:
                tell(img_size=size)
            except Exception as error:  # whatever a model may raise
                raise UnsupportedModelError(
                    f"{name} cannot take images of {size[0]}x{size[1]} ({described(error)}): give "
                    "another --size, for a transformer a multiple of its patches."
                ) from error
            break
    return model


def with_new_head(name: str, model: nn.Module, digits: Digits) -> nn.Module:
    """The model with its classifier, the last linear layer, replaced by one for ten digits.

    Args:
        name: of the model, for errors.
        model: changed in place.
        digits: that it runs on, to see how many outputs it has.

    Raises:
        UnsupportedModelError: it ends in no linear layer of as many outputs as the model has.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> digits = Digits(images, labels, images, labels)
        >>> with_new_head("linear", model, digits)[1].out_features
        10
    """
    outputs = check_runs(name, model, digits.fit(digits.train_images[:2])).shape[1:]
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and n]
    if not linear or tuple(outputs) != (linear[-1][1].out_features,):
        raise UnsupportedModelError(
            f"{name} ends in no linear layer with its {list(outputs)} outputs, so its classifier "
            "cannot be replaced: give a factory FILE.py:function of a model that does."
        )
    path, old = linear[-1]
    parent, _, own = path.rpartition(".")
    head = nn.Linear(old.in_features, CLASSES, bias=old.bias is not None)
    setattr(model.get_submodule(parent), own, head)
    return model
