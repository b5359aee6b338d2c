"""``export``: a PyTorch model as an ONNX file that was compared with it before it was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError
from captum_lie.extending.tensors import to_model
from captum_lie_onnx.conversion import SCORES, check_destination, convert, write
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.exportable import (
    ExportOptions,
    ExportSettings,
    check_exportable,
    metadata_of,
)
from captum_lie_onnx.metadata import entries
from captum_lie_onnx.runtime import OnnxModel
from captum_lie_onnx.verification import batches, difference, photographs_like

if TYPE_CHECKING:
    from typing_extensions import Unpack


def export(
    model: nn.Module,
    example: Tensor,
    path: Path | str,
    *,
    dynamic_batch: bool = True,
    external_data: bool = False,
    name: str | None = None,
    images: Tensor | None = None,
    **options: Unpack[ExportOptions],
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
    settings = ExportSettings(**options)
    check_destination(path)
    check_exportable(model, example)
    example = to_model(model, example.detach())
    if dynamic_batch and len(example) == 1:
        example = example.repeat(2, 1, 1, 1)  # a traced batch of 1 would be taken for a constant
    metadata = metadata_of(model, example, settings.preprocessing, name)
    with torch.random.fork_rng(devices=[]):
        program = convert(
            model, example, [SCORES], opset=settings.opset, dynamic_batch=dynamic_batch
        )
    if images is None:
        images = photographs_like(example, metadata.preprocessing)
    parts = batches(images, None if dynamic_batch else len(example))

    def check(file: Path) -> None:
        try:
            with OnnxModel(file, threads=torch.get_num_threads()) as graph:
                _check_parity(model, graph, parts, settings.tolerance)
        except OnnxModelError as error:
            hint = "; dynamic_batch=False may help" if dynamic_batch else ""
            raise InvalidValueError(f"The exported graph does not run{hint}: {error}") from error

    return write(program, path, entries(metadata), check, external_data=external_data)


def _check_parity(
    model: nn.Module, graph: OnnxModel, parts: Sequence[Tensor], tolerance: float
) -> None:
    """Compare a graph's scores with its model's.

    Raises:
        ValueError: they differ by more than the tolerance, relative to the largest score.
        OnnxModelError: the graph does not run.
    """
    worst = largest = 0.0
    for images in parts:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = model(to_model(model, torch.from_numpy(graph.prepare(images)))).cpu()
        apart, high = difference(graph(images), expected)
        worst, largest = max(worst, apart), max(largest, high)
    if not worst <= tolerance * largest:
        raise InvalidValueError(
            f"The exported graph differs from the model by {worst:.3g}, more than "
            f"{tolerance:g} of the largest score {largest:.3g}. Nothing was written; "
            "another opset may help, or a higher tolerance."
        )
