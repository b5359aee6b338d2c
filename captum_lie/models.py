"""Models by name: the embedded ones, a Python factory, or what an installed adapter provides.

Adapters announce a loader under the entry point group ``captum_lie.models``; this library knows
none of them by name.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie import examples
from captum_lie._data import to_model
from captum_lie._validation import is_out_of_memory
from captum_lie.errors import InvalidValueError, UnknownModelError, UnsupportedModelError, UserError

__all__ = ["ENTRY_POINTS", "check_runs", "find_factory", "has_untrained_twin", "load_model"]

#: Adapters name their loader, ``load(name, pretrained, checkpoint)``, under this entry point group.
ENTRY_POINTS = "captum_lie.models"


def load_model(name: str, *, pretrained: bool = True, checkpoint: Path | None = None) -> nn.Module:
    """A model in evaluation mode that takes plain images in [0, 1].

    Args:
        name: an embedded model (``cnn``), a factory (``FILE.py:function``), or a name that an
            adapter knows (``resnet18``, or ``timm:resnet18`` to say which adapter).
        pretrained: False gives the untrained architecture.
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
        return examples.load_model(name, trained=pretrained)
    if ".py:" in name:
        return _from_factory(name, pretrained=pretrained, checkpoint=checkpoint)
    adapter, _, rest = name.rpartition(":")
    loaders = entry_points(group=ENTRY_POINTS)
    reasons = []
    failure: Exception | None = None
    for loader in loaders:
        if adapter in ("", loader.name):
            try:
                load = loader.load()
            except Exception as error:  # whatever an import may raise
                reasons.append(_why_not_loaded(loader.name, error))
                failure = error
                continue
            try:
                return _model_from(
                    name, partial(load, rest), pretrained=pretrained, checkpoint=checkpoint
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


def find_factory(spec: str) -> Callable[..., Any]:
    """The function of ``FILE.py:function``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file fails to run, or has no such function.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mymodel.py"
        ...     _ = file.write_text("from torch import nn\\ndef build(): return nn.Flatten()")
        ...     find_factory(f"{file}:build")()
        Flatten(start_dim=1, end_dim=-1)
    """
    file, _, function = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {file} (from --model {spec}).")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent.resolve()))  # a script finds what lies beside it
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InvalidValueError(f"{file} failed to run: {_described(error)}") from error
    finally:
        sys.path.pop(0)
    factory = getattr(module, function, None)
    if not callable(factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InvalidValueError(
            f"{file} has no function {function!r}. It has: {', '.join(names) or 'none'}."
        )
    return factory  # type: ignore[no-any-return]


def check_runs(name: str, model: nn.Module, images: Tensor) -> None:
    """Run a model once on the first images: a misfit shows here, before the work.

    Raises:
        UnsupportedModelError: it fails, with its own reason, or returns what is not finite.

    Example:
        >>> check_runs("linear", nn.Linear(3, 2), torch.rand(1, 1, 2, 4))
        Traceback (most recent call last):
        captum_lie.errors.UnsupportedModelError: linear fails on images of shape [1, 1, 2, 4] \
(RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x4 and 3x2)). Does it take this size \
(--size), these channels and that many images at a time (--batch-size)?
    """
    first = to_model(model, images[:2])
    try:
        with torch.no_grad():
            output = model(first)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedModelError(
            f"{name} fails on images of shape {list(first.shape)} ({_described(error)}). "
            "Does it take this size (--size), these channels and that many images at a time "
            "(--batch-size)?"
        ) from error
    if isinstance(output, Tensor) and not output.isfinite().all():
        raise UnsupportedModelError(
            f"{name} returns NaN or infinite values on the first images: nothing could be "
            "measured. Are its weights and its normalisation (--mean, --std) right?"
        )


def _why_not_loaded(extra: str, error: Exception) -> str:
    """Why an adapter cannot be used; an extra goes by the name of the package that it brings."""
    if isinstance(error, ModuleNotFoundError) and error.name == extra:
        return f"{extra} is not installed: pip install 'captum-lie[{extra}]'"
    return (
        f"{extra} is installed but fails to import ({_described(error)}): a version that this "
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
        raise UnsupportedModelError(f"{name} gives no model: {_described(error)}") from error


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


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]
