"""What can be exported, and what is said of it in the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor, nn

from captum_lie import __version__
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.extending.checks import check_eval_mode, check_inputs, check_output
from captum_lie.preprocessing import Normalized
from captum_lie_onnx.metadata import Metadata, Preprocessing

#: Where older exporters fail to capture a model they fall back to tracing or drafting it, which
#: keeps one branch of control flow without a word.
OLDEST_TORCH = "2.9"


class ExportOptions(TypedDict, total=False):
    """:class:`ExportSettings` as keywords."""

    opset: int | None
    preprocessing: Preprocessing | None
    tolerance: float


@dataclass(frozen=True)
class ExportSettings:
    """What every export can be told.

    Attributes:
        opset: ONNX operator set; None: 20.
        preprocessing: what must happen to plain RGB images in [0, 1] before the model sees them;
            None: nothing, or the model does it itself.
        tolerance: largest difference from PyTorch, relative to the largest absolute number.
    """

    opset: int | None = None
    preprocessing: Preprocessing | None = None
    tolerance: float = 1e-4


def check_exportable(model: nn.Module, example: Tensor) -> None:
    """Refuse what cannot be exported, before any work.

    Raises:
        TypeError, ValueError: not a module in evaluation mode, no image batch, or an older torch.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise InvalidValueError(
            f"Export needs torch {OLDEST_TORCH} or newer, whose exporter never guesses; "
            f"got {torch.__version__}: pip install 'captum-lie[onnx]'"
        )
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(
            f"Only a torch.nn.Module can be exported; got {type(model).__name__}."
        )
    if model.training:
        raise InvalidValueError(
            f"The model ({type(model).__name__}) is in training mode. Call model.eval() first."
        )
    check_eval_mode(model)
    check_inputs((example,))


def score_count(model: nn.Module, example: Tensor) -> int:
    """K of a model's scores ``[N, K]``.

    Raises:
        TypeError, ValueError: its output is something else.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = check_output(model(example))
    if output.ndim != 2 or len(output) != len(example):
        raise InvalidValueError(
            f"The model must return scores [N, K]; for {len(example)} images it returned shape "
            f"{tuple(output.shape)}. Pool or flatten its output first."
        )
    return output.shape[1]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside its normalisation."""
    return model.model if isinstance(model, Normalized) else model


def describe_input(
    model: nn.Module, example: Tensor, preprocessing: Preprocessing | None
) -> Preprocessing:
    """What the graph's input is; its size is the example's."""
    about = preprocessing or Preprocessing()
    nhwc = about.layout == "NHWC"
    height, width = example.shape[1:3] if nhwc else example.shape[2:4]
    if about.size not in (None, (height, width)):
        raise InvalidValueError(
            f"preprocessing says images of {about.size}, but the example is {tuple(example.shape)}."
        )
    check_normalised_once(model, about)
    if isinstance(model, Normalized):
        mean, std = (tuple(v.flatten().tolist()) for v in (model.mean, model.std))
        return replace(about, size=(height, width), mean=mean, std=std, included=True)
    return replace(about, size=(height, width), included=about.mean is None)


def check_normalised_once(model: nn.Module, about: Preprocessing) -> None:
    """Raise ``ValueError`` if both the model and what is said of its input normalise."""
    if isinstance(model, Normalized) and about.mean is not None:
        raise InvalidValueError(
            "The model normalises its input itself (Normalized): leave mean and std out of "
            "preprocessing."
        )


def metadata_of(
    model: nn.Module,
    example: Tensor,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
) -> Metadata:
    """What the file of a model says about itself.

    Args:
        example: an input of the model, on its device.
        name: of the model; its class by default.

    Raises:
        TypeError, ValueError: its output is not scores ``[N, K]``, or the preprocessing does not
            fit.
    """
    classes = score_count(model, example)
    about = describe_input(model, example, preprocessing)
    return Metadata(about, classes, name or type(unwrapped(model)).__name__, __version__)
