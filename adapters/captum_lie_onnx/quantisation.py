"""int8 variants of ONNX files, made by onnxruntime's own quantiser."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.extending.checks import one_of
from captum_lie_onnx.child.run import command
from captum_lie_onnx.cpu import this_cpu
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.inspection import inspect
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing
from captum_lie_onnx.runtime import OnnxModel

Mode = Literal["dynamic", "static"]
MODES: tuple[Mode, ...] = get_args(Mode)


def quantize(
    path: Path | str,
    result: Path | str,
    mode: Mode = "dynamic",
    images: Tensor | None = None,
    *,
    reduce_range: bool | Literal["auto"] = "auto",
    preprocessing: Preprocessing | None = None,
    limits: Limits | None = None,
) -> Path:
    """Write the int8 variant of an ONNX file.

    Weights become int8; activations too, with ranges measured while running (``"dynamic"``) or on
    calibration images beforehand (``"static"``, per channel, in QDQ form). Works in a child process
    with limits; the result appears whole or not at all.

    Args:
        path: the ONNX file.
        result: where to write.
        mode: ``"dynamic"`` or ``"static"``.
        images: for ``"static"``, plain images ``[N, C, H, W]`` in [0, 1] to calibrate on.
        reduce_range: make weights of 7 bits. On x86 CPUs without VNNI onnxruntime adds products of
            unsigned activations and signed weights in 16 bits, where those of 8 bits may saturate
            (onnxruntime, "Quantize ONNX models"); with 7 they fit, and the file gives the same
            scores on every CPU. Set it by the CPU that will run the file; ``"auto"`` is True for
            ``"static"`` where this one is such a CPU. Dynamic variants have unsigned weights, whose
            products never saturate.
        preprocessing: what the graph's input is, where the file itself does not say.
        limits: on memory and time.

    Returns:
        ``result``.

    Raises:
        OnnxModelError: the file cannot be used or quantised.
        ValueError: unknown mode or ``reduce_range``, or no images to calibrate on.
        OSError: the result cannot be written.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> from captum_lie_onnx import OnnxModel, export
        >>> images, _ = load_images(16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export(load_model("cnn"), images[:2], f"{folder}/cnn.onnx")
        ...     int8 = quantize(path, f"{folder}/int8.onnx", "static", images)
        ...     same = OnnxModel(int8)(images).argmax(1) == OnnxModel(path)(images).argmax(1)
        >>> bool(same.float().mean() > 0.8)
        True
    """
    one_of("mode", mode, MODES)
    if mode == "static" and (images is None or not len(images)):
        raise InvalidValueError("Static quantisation needs images to calibrate on: pass images=.")
    if reduce_range not in (True, False, "auto"):
        raise InvalidValueError(
            f"reduce_range must be True, False or 'auto'; got {reduce_range!r}."
        )
    if reduce_range == "auto":
        reduce_range = mode == "static" and this_cpu().saturates is True
    path, result, limits = Path(path), Path(result), limits or Limits()
    inspect(path, limits)
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=".quantize-") as folder:
        made = Path(folder) / "int8.onnx"
        arguments = [str(path), str(made), mode, str(limits.memory), str(int(reduce_range))]
        if mode == "static" and images is not None:
            calibration = Path(folder) / "calibration.npy"
            with OnnxModel(path, limits=limits, assumed=preprocessing) as model:
                np.save(calibration, model.prepare(images))
            arguments.append(str(calibration))
        _run(path, arguments, limits)
        os.replace(made, result)
    return result


def _run(path: Path, arguments: list[str], limits: Limits) -> None:
    """Quantise in a child process, see :mod:`captum_lie_onnx.child.quantiser`."""
    try:
        done = subprocess.run(
            command("quantiser", *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.load_seconds + limits.run_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OnnxModelError(
            f"{path} took longer than {limits.load_seconds + limits.run_seconds:g} s to quantise. "
            "Raise the limits if you trust it."
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise OnnxModelError(
            f"onnxruntime could not quantise {path}: "
            f"{lines[-1] if lines else f'exit status {done.returncode}'}"
        )
