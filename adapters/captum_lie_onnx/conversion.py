"""From PyTorch modules to ONNX programs, and from these to files that appear whole."""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import OnnxExporterError, ONNXProgram

from captum_lie.errors import InvalidValueError, first_line

#: The newest operators that current deployment runtimes share.
DEFAULT_OPSET = 20
#: The oldest that torch's exporter writes itself.
OLDEST_OPSET = 18
INPUT, SCORES, BATCH = "images", "scores", "batch"
#: Protocol buffers end at 2 GiB; some room for the graph beside its weights.
LARGEST_SINGLE_FILE = 2**31 - 2**26
#: The exporter's own use of what PyTorch will change.
_HARMLESS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def convert(
    module: nn.Module,
    example: Tensor,
    outputs: Sequence[str],
    *,
    opset: int | None,
    dynamic_batch: bool,
) -> ONNXProgram:
    """A module of one tensor as an ONNX program. Needs a batch of 2 for the batch to vary.

    Raises:
        ValueError: unknown opset, or the module cannot be exported; names the operators at fault.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise InvalidValueError(
            f"opset must lie between {OLDEST_OPSET} and {newest}; got {opset}. "
            "Leave it out for a widely supported one."
        )
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim(BATCH)},) if dynamic_batch else None,
            )
    except OnnxExporterError as error:
        raise InvalidValueError(_explained(error, dynamic_batch)) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        # Where the source files lie on this machine is nobody else's business.
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    return program


def check_destination(path: Path | str) -> None:
    """Refuse a place where nothing can be written, before any work.

    Raises:
        OSError: it is a folder, or in a folder that is missing or read-only.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}: create it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file to write.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {path.parent} is read-only: choose another.")


def write(
    program: ONNXProgram,
    path: Path | str,
    properties: Mapping[str, str],
    check: Callable[[Path], None],
    *,
    external_data: bool = False,
) -> Path:
    """Save a program when it has passed every check; otherwise leave nothing behind.

    Args:
        properties: the file's ``metadata_props``.
        check: raises if the file, at the path that it is given, is not what it should be.
        external_data: keep weights in ``PATH.data`` beside it; so in any case above 2 GiB.

    Raises:
        OSError: it cannot be written.
        ValueError: it is not valid ONNX.
    """
    path = Path(path)
    weights = sum(
        value.const_value.nbytes
        for value in program.model.graph.initializers.values()
        if value.const_value is not None
    )
    program.model.metadata_props.update(properties)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        made = Path(folder) / path.name
        with quiet():
            program.save(made, external_data=external_data or weights > LARGEST_SINGLE_FILE)
        try:
            onnx.checker.check_model(str(made), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise InvalidValueError(
                f"The exporter made invalid ONNX: {error} Try another opset."
            ) from error
        check(made)
        # The graph last: it must not be there before the weights that it refers to.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == made):
            os.replace(file, path.parent / file.name)
    return path


def _explained(error: BaseException, dynamic_batch: bool) -> str:
    """What went wrong, in one sentence, from an exception and its causes."""
    reason = error
    while (cause := reason.__cause__ or reason.__context__) is not None:
        reason = cause
    operators = re.findall(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(reason))
    if operators:
        return (
            f"ONNX has no counterpart of the operator {', '.join(sorted(set(operators)))}. "
            "Replace it in the model."
        )
    remedy = (
        "If it needs a fixed batch size, export with dynamic_batch=False; control flow that "
        "depends on values cannot be exported."
        if dynamic_batch
        else "Control flow that depends on values cannot be exported."
    )
    return f"The model cannot be exported to ONNX: {first_line(reason)} {remedy}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's progress, logs, and warnings about its own insides."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as caught,
        ):
            yield
    finally:
        logging.disable(disabled)
    for w in caught:
        if not issubclass(w.category, _HARMLESS):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
