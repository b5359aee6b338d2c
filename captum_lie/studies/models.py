"""Models by name: the embedded ones, a Python factory, or what an installed adapter provides.

Adapters announce a loader under the entry point group ``captum_lie.models``; this library knows
none of them by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie import examples
from captum_lie._factories import described, find_factory
from captum_lie.core.loaders import to_model
from captum_lie.core.validation import check_output, is_out_of_memory
from captum_lie.errors import (
    InvalidValueError,
    UnknownModelError,
    UnsupportedModelError,
    UserError,
)
from captum_lie.images import View

__all__ = ["ENTRY_POINTS", "check_runs", "find_factory", "has_untrained_twin", "load_model"]

#: Adapters name their loader, ``load(name, pretrained, checkpoint)``, under this entry point group.
#: It gets the whole name, prefix included, and raises UnknownModelError if that is not its own.
ENTRY_POINTS = "captum_lie.models"

#: Seed of random weights: the control of a model is the same in every run.
UNTRAINED_SEED = 0


def load_model(name: str, *, pretrained: bool = True, checkpoint: Path | None = None) -> nn.Module:
    """A model in evaluation mode that takes plain images in [0, 1].

    Args:
        name: an embedded model (``cnn``), a factory (``FILE.py:function``), or a name that an
            adapter knows (``resnet18``, or ``timm:resnet18`` to say which adapter).
            A model may say how it wants its images (``view``, ``input_size``), what its outputs are
            called (``classes``) and where its weights come from (``provenance``).
        pretrained: False gives the untrained architecture, with the same random weights each time.
        checkpoint: weights for the adapter to load instead of its own.

    Raises:
        ValueError: nothing by that name, or the factory does not give a model.

    Example:
        >>> load_model("vit", pretrained=False).training
        False
    """
    if name in examples.MODEL_NAMES:
        if checkpoint is not None:
            raise InvalidValueError(
                f"The embedded model {name} has its own weights: leave out --checkpoint."
            )
        return _labelled(examples.load_model(name, trained=pretrained), pretrained)
    if ".py:" in name:
        return _from_factory(name, pretrained=pretrained, checkpoint=checkpoint)
    loaders = entry_points(group=ENTRY_POINTS)
    prefix = name.partition(":")[0] if ":" in name else None
    asked = [loader for loader in loaders if loader.name == prefix] or list(loaders)
    reasons = []
    failure: Exception | None = None
    for loader in asked:
        try:
            load = loader.load()
        except Exception as error:  # whatever an import may raise
            reasons.append(_why_not_loaded(loader.name, error, loaders.names))
            failure = error
            continue
        try:
            return _model_from(
                name, partial(load, name), pretrained=pretrained, checkpoint=checkpoint
            )
        except UnknownModelError as error:
            reasons.append(f"{loader.name}: {error}")
    raise InvalidValueError(
        f"No model {name!r}. Embedded: {', '.join(examples.MODEL_NAMES)}; or FILE.py:function"
        + (f"; {'; '.join(reasons)}" if reasons else "")
        + "."
    ) from failure


def has_untrained_twin(name: str) -> bool:
    """Whether :func:`load_model` can give the same architecture untrained.

    A factory can if it takes an argument ``pretrained``.

    Example:
        >>> has_untrained_twin("cnn")
        True
    """
    if ".py:" not in name:
        return True
    return "pretrained" in _parameters(find_factory(name))


def check_runs(name: str, model: nn.Module, images: Tensor) -> Tensor:
    """Run a model once on the first images, and give its output: a misfit shows before the work.

    Raises:
        UnsupportedModelError: it fails, with its own reason, or returns what is not finite.

    Example:
        >>> check_runs("linear", nn.Linear(3, 2), torch.rand(1, 1, 2, 4))
        Traceback (most recent call last):
        captum_lie.errors.UnsupportedModelError: linear fails on images of shape [1, 1, 2, 4] \
(RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x4 and 3x2)). Does it take this size \
(--size), these channels (--channels) and that many images at a time (--batch-size)?
    """
    first = to_model(model, images[:2])
    try:
        with torch.no_grad():
            output = check_output(model(first))
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{name} fails on images of shape {list(first.shape)} ({described(error)}). "
            "Does it take this size (--size), these channels (--channels) and that many images at "
            "a time (--batch-size)?"
        ) from error
    if not output.isfinite().all():
        raise UnsupportedModelError(
            f"{name} returns NaN or infinite values on the first images: nothing could be "
            "measured. Are its weights and its normalisation (--mean, --std) right?"
        )
    return output


def _why_not_loaded(extra: str, error: Exception, extras: Collection[str]) -> str:
    """Why an adapter cannot be used; an extra goes by the name of the package that it brings."""
    if isinstance(error, ModuleNotFoundError) and error.name in extras:
        return f"{error.name} is not installed: pip install 'captum-lie[{extra}]'"
    return (
        f"{extra} is installed but fails to import ({described(error)}): a version that this "
        "one of captum-lie does not know, or a bug; --debug shows where"
    )


def _from_factory(name: str, *, pretrained: bool, checkpoint: Path | None) -> nn.Module:
    """The model of ``FILE.py:function``; whatever fails in there is the user's to mend."""
    factory = find_factory(name)
    try:
        return _model_from(name, factory, pretrained=pretrained, checkpoint=checkpoint)
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UnsupportedModelError(f"{name} gives no model: {described(error)}") from error


def _labelled(model: nn.Module, trained: bool) -> nn.Module:
    """An embedded model that says what it was trained on."""
    said = {
        "view": View((examples.IMAGE_SIZE, examples.IMAGE_SIZE), channels=3),
        "classes": examples.CLASSES,
        "provenance": "embedded in captum-lie" + ("" if trained else ", random weights"),
    }
    for name, value in said.items():
        setattr(model, name, value)
    return model


def _model_from(
    name: str, factory: Callable[..., Any], *, pretrained: bool, checkpoint: Path | None
) -> nn.Module:
    """Call a factory with the options that it takes; its model in evaluation mode."""
    options: dict[str, Any] = {"pretrained": pretrained, "checkpoint": checkpoint}
    parameters = _parameters(factory)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        options = {k: v for k, v in options.items() if k in parameters}
        if checkpoint is not None and "checkpoint" not in options:
            raise InvalidValueError(
                f"{name} takes no argument 'checkpoint': load the weights inside it."
            )
    if pretrained:
        model = factory(**options)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            model = factory(**options)
    if not isinstance(model, nn.Module):
        raise InvalidValueError(
            f"{name} must return a torch.nn.Module; got {type(model).__name__}."
        )
    return model.eval()


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # a builtin that does not tell
        return {}
