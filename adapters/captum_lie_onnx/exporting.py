"""``export``: a PyTorch model as an ONNX file that was compared with it before it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_lie import __version__, examples
from captum_lie.core.loaders import to_model
from captum_lie.core.validation import check_eval_mode, check_inputs, check_output
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.preprocessing import Normalized
from captum_lie_onnx.conversion import check_destination, convert, write
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.metadata import Metadata, Preprocessing, entries
from captum_lie_onnx.runtime import OnnxModel

SCORES = "scores"
#: Batch sizes at which a graph is compared with its model.
BATCHES = (1, 2, 5)
_FIXED_BATCH_REMEDY = "If the model needs a fixed batch size, export with dynamic_batch=False."
#: Photographs to compare on.
_PHOTOGRAPHS = 8


def export(
    model: nn.Module,
    example: Tensor,
    path: Path | str,
    *,
    opset: int | None = None,
    dynamic_batch: bool = True,
    external_data: bool = False,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    images: Tensor | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Export an image classifier to ONNX.

    The file is checked against the ONNX standard, run by onnxruntime, and compared with the model
    at several batch sizes and on photographs. Only then it appears at ``path``, whole.

    Args:
        model: in evaluation mode; one image batch to scores ``[N, K]``.
        example: an input of the model, ``[N, C, H, W]``; sets the graph's image size.
        path: the file to write. One file, unless its weights exceed 2 GiB.
        opset: ONNX operator set; 20 by default.
        dynamic_batch: let the batch size vary; otherwise it is the example's.
        external_data: keep the weights in a file of their own, ``PATH.data``.
        preprocessing: what must happen to plain RGB images in [0, 1] before they enter the graph;
            stored in the file, where :class:`captum_lie_onnx.OnnxModel` finds it. Not for models
            wrapped in :class:`captum_lie.preprocessing.Normalized`, which do it themselves.
        name: of the model, for the file's metadata; its class by default.
        images: plain images ``[N, C, H, W]`` in [0, 1] to compare on; by default the embedded
            photographs.
        tolerance: largest difference from PyTorch, relative to the largest absolute score.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError: the model or the example is not usable, an operator has no ONNX
            counterpart, or the graph's scores differ from the model's.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from captum_lie.examples import load_images, load_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(load_model("cnn"), load_images(2)[0], f"{folder}/cnn.onnx").name
        'cnn.onnx'
    """
    check_destination(path)
    check_exportable(model, example)
    example = to_model(model, example.detach())
    if dynamic_batch and len(example) == 1:
        example = example.repeat(2, 1, 1, 1)  # a traced batch of 1 would be taken for a constant
    classes = score_count(model, example)
    about = describe_input(model, example, preprocessing)
    metadata = Metadata(about, classes, name or type(unwrapped(model)).__name__, __version__)
    with torch.random.fork_rng(devices=[]):
        program = convert(model, example, [SCORES], opset=opset, dynamic_batch=dynamic_batch)
    photographs = photographs_like(example, about) if images is None else images

    def check(file: Path) -> None:
        with OnnxModel(file, threads=torch.get_num_threads()) as graph:
            try:
                differences = [
                    _difference(model, graph, batch)
                    for batch in batches(photographs, None if dynamic_batch else len(example))
                ]
            except OnnxModelError as error:
                hint = "; dynamic_batch=False may help" if dynamic_batch else ""
                raise InvalidValueError(
                    f"The exported graph does not run{hint}: {error}"
                ) from error
        difference, largest = (max(column) for column in zip(*differences, strict=True))
        if not difference <= tolerance * largest:
            raise InvalidValueError(
                f"The exported graph differs from the model by {difference:.3g}, more than "
                f"{tolerance:g} of the largest score {largest:.3g}. Nothing was written; "
                "another opset may help, or a higher tolerance."
            )

    return write(program, path, entries(metadata), check, external_data=external_data)


def check_exportable(model: nn.Module, example: Tensor) -> None:
    """Refuse what cannot be exported, before any work.

    Raises:
        TypeError, ValueError: not a module in evaluation mode, or no image batch.
    """
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
    if isinstance(model, Normalized):
        if about.mean is not None:
            raise InvalidValueError(
                "The model normalises its input itself (Normalized): leave mean and std out of "
                "preprocessing."
            )
        mean, std = (tuple(v.flatten().tolist()) for v in (model.mean, model.std))
        return replace(about, size=(height, width), mean=mean, std=std, included=True)
    return replace(about, size=(height, width), included=about.mean is None)


def photographs_like(example: Tensor, about: Preprocessing) -> Tensor:
    """The embedded photographs as plain images ``[8, C, H, W]`` for a graph's input."""
    photographs = examples.load_images(_PHOTOGRAPHS)[0]
    channels = example.shape[3 if about.layout == "NHWC" else 1]
    if channels != photographs.shape[1]:
        photographs = photographs.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    assert about.size is not None
    found = nn.functional.interpolate(photographs, about.size, mode="bicubic", antialias=True)
    return found.clamp(0, 1)


def batches(images: Tensor, fixed: int | None) -> list[Tensor]:
    """Batches to compare on, of the fixed size or of several sizes; each image is in one."""
    sizes = list(BATCHES) if fixed is None else [fixed]
    while sum(sizes) < len(images):
        sizes.append(sizes[-1])
    cycled = torch.cat([images] * -(-sum(sizes) // len(images)))
    return list(cycled[: sum(sizes)].split(sizes))


def _difference(model: nn.Module, graph: OnnxModel, images: Tensor) -> tuple[float, float]:
    """Largest difference of scores and largest score. NaN in either is a difference of infinity."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = model(to_model(model, torch.from_numpy(graph.prepare(images)))).cpu()
    return compare(graph(images), expected)


def compare(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Largest absolute difference and largest expected number; what is not finite is infinite."""
    if found.shape != expected.shape:
        raise InvalidValueError(
            f"The exported graph returns shape {tuple(found.shape)} where the model returns "
            f"{tuple(expected.shape)}. {_FIXED_BATCH_REMEDY}"
        )
    difference = (found.double() - expected.double()).abs().max().nan_to_num(nan=torch.inf)
    return float(difference), float(expected.double().abs().max())
