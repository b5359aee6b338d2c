"""The exact Lie derivative of a classifier as an ONNX graph: any runtime then measures its LEE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from captum_lie.errors import InvalidValueError
from captum_lie.extending.checks import one_of
from captum_lie.extending.tensors import to_model
from captum_lie.groups import GroupLike, get_groups, is_single
from captum_lie.preprocessing import Normalized
from captum_lie_onnx.conversion import SCORES, check_destination, convert, quiet, write
from captum_lie_onnx.derivative import DERIVATIVE, KIND, LieDerivativeModel
from captum_lie_onnx.derivative_parity import check_derivative
from captum_lie_onnx.exportable import (
    ExportOptions,
    ExportSettings,
    check_exportable,
    check_normalised_once,
    metadata_of,
)
from captum_lie_onnx.group_entries import entry_of
from captum_lie_onnx.jets import Jet, jet_of
from captum_lie_onnx.metadata import Preprocessing, entries
from captum_lie_onnx.tracing import FixedBatchError, trace, trace_for_any_batch
from captum_lie_onnx.verification import batches, photographs_like

if TYPE_CHECKING:
    from typing_extensions import Unpack

OutputFnName = Literal["softmax"]


def export_lie_derivative(
    model: nn.Module,
    group: GroupLike | Sequence[GroupLike],
    example: Tensor,
    path: Path | str,
    *,
    output_fn: OutputFnName | None = "softmax",
    **options: Unpack[ExportOptions],
) -> Path:
    r"""Export :math:`L f(x) = J_f(x)\,\xi(x)` as an ONNX graph of plain operators.

    The graph maps plain images to the outputs ``scores`` ``[N, K]``, which is
    ``output_fn(model(x))``, and ``derivative``: ``[N, K]`` for one group, ``[N, G, K]`` for a
    sequence of G. It is compared with :func:`captum_lie.lie_derivative` before it is written.
    Where the batch size cannot vary, the graph takes single images, and
    :class:`LieDerivativeModel` runs it once for each.

    Args:
        model: in evaluation mode; plain images ``[N, C, H, W]`` in [0, 1] to scores ``[N, K]``.
        group: a group or its name, or a sequence of them; ``"all"`` for every name.
        example: an input of the model; sets the graph's image size.
        path: the file to write.
        output_fn: applied to the scores: ``"softmax"``, so that LEE can be taken (Gruver et al.,
            arXiv 2210.02984, Eq. 4), or None.
        opset: ONNX operator set; 20 by default.
        tolerance: largest difference from PyTorch, relative to the largest absolute derivative.
        preprocessing: mean and std of a model that takes normalised images; they become part of
            the graph, since groups act on plain images.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError: model, group or example are not usable, an operator has no derivative
            or no ONNX counterpart, or the graph's derivative differs from the model's.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from captum_lie.examples import load_images, load_model
        >>> x = load_images(3)[0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_lie_derivative(load_model("cnn"), "rotation", x, f"{folder}/lie.onnx")
        ...     scores, derivative = LieDerivativeModel(path)(x)
        >>> derivative.shape
        torch.Size([3, 8])
    """
    if output_fn is not None:
        one_of("output_fn", output_fn, get_args(OutputFnName))
    settings = ExportSettings(**options)
    groups, single = get_groups(group), is_single(group)
    described = [entry_of(g) for g in groups]
    check_destination(path)
    check_exportable(model, example)
    model = _on_plain_images(model, settings.preprocessing)
    example = to_model(model, example.detach())
    metadata = metadata_of(model, example)
    properties = entries(metadata, groups=described, single=single, output_fn=output_fn, kind=KIND)
    jet = jet_of(model, groups, example, softmax=output_fn == "softmax", single=single)
    photographs = photographs_like(example, metadata.preprocessing).to(example.dtype)

    def attempt(dynamic: bool) -> Path:
        parts = batches(photographs, None if dynamic else len(example))

        def check(file: Path) -> None:
            with LieDerivativeModel(file, threads=torch.get_num_threads()) as graph:
                check_derivative(graph, model, parts, settings.tolerance)

        return write(_convert(jet, example, settings.opset, dynamic), path, properties, check)

    try:
        return attempt(dynamic=True)
    except (FixedBatchError, ValueError):
        # Whatever stops the batch from varying; if it is something else, it shows here again.
        return attempt(dynamic=False)


def _convert(jet: Jet, example: Tensor, opset: int | None, dynamic: bool) -> ONNXProgram:
    example = example[:1].repeat(2 if dynamic else 1, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        with quiet():
            graph = trace_for_any_batch(jet, example) if dynamic else trace(jet, example)
        return convert(graph, example, [SCORES, DERIVATIVE], opset=opset, dynamic_batch=dynamic)


def _on_plain_images(model: nn.Module, preprocessing: Preprocessing | None) -> nn.Module:
    if preprocessing is None:
        return model
    if preprocessing.layout != "NCHW" or preprocessing.channels != "RGB":
        raise InvalidValueError(
            f"Groups act on RGB images [N, C, H, W]; got {preprocessing.channels} and "
            f"{preprocessing.layout}. Convert the input inside the model."
        )
    if preprocessing.mean is None or preprocessing.std is None:
        return model
    check_normalised_once(model, preprocessing)
    return Normalized(model, preprocessing.mean, preprocessing.std, preprocessing.size).eval()
