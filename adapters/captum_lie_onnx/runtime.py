"""``OnnxModel``: an ONNX file as a function of image tensors, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError
from captum_lie_onnx.describing import describe
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.inspection import check_file
from captum_lie_onnx.isolation import IsolatedSession
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing, read
from captum_lie_onnx.worker import OPTIMIZATIONS, Array, Session

Optimization = Literal["all", "extended", "basic", "none"]


class Engine(Protocol):
    """Something that runs a loaded file."""

    def reloaded(self, optimization: str, precise: bool = False) -> Engine:
        """The same file with another optimisation of the graph, or with exact sums of bytes."""

    def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]: ...


def open_engine(
    path: Path, threads: int | None, optimization: str, limits: Limits | None
) -> tuple[Engine, list[str], dict[str, Any]]:
    """A loaded file, the names of its outputs, and its description.

    Args:
        limits: run in a child process with these limits; None: in this process, for files that
            are trusted.

    Raises:
        OnnxModelError: the file cannot be loaded.
    """
    one_of("optimization", optimization, OPTIMIZATIONS)
    check_file(path, limits or Limits())
    threads = threads or torch.get_num_threads()
    if limits is not None:
        isolated = IsolatedSession(path, limits)
        try:
            description = isolated.describe()
            return isolated, isolated.load(threads, optimization), description
        except BaseException:
            isolated.close()
            raise
    try:
        description = describe(str(path), memory=0, file_bytes=0, domains=[], checked=False)
        session = Session(str(path), threads, optimization)
    except Exception as error:  # onnxruntime's own errors have no common type
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise OnnxModelError(f"{path} cannot be used: {reason}") from error
    return session, session.outputs, description


class OnnxModel:
    """An image classifier in an ONNX file: images in [0, 1] to scores, on the CPU.

    Adapts plain images to what the graph takes: normalisation and layout from the metadata that
    :func:`captum_lie_onnx.export` writes, float16 and uint8, fixed batch sizes. Serves as
    ``forward_func`` for Captum's perturbation methods and for :mod:`captum_lie.metrics`. Repeats
    are bitwise equal. Can be pickled; the copy opens the file again.

    Args:
        path: the ONNX file.
        threads: of onnxruntime; by default as many as PyTorch takes.
        optimization: of the graph: ``"all"``, ``"extended"``, ``"basic"`` or ``"none"``.
        preprocessing: what the graph's input is; ``"metadata"`` for what the file says.
        assumed: what it is where the file says nothing; None for plain images. The order of the
            axes is then told by the declared shape, if that shows where the channels are.
        limits: open the file in a child process with these limits on memory and time; None: in
            this process, for files that are trusted.
        batch_size: at most so many images a call. Dynamically quantised files run one image at a
            time in any case, since their outputs depend on who shares the batch.
        output: name of the output to return; the first by default.

    Attributes:
        stated: whether ``preprocessing`` is what the file says.
        fixed_batch: the batch size that the graph takes; None if it takes any.

    Raises:
        OnnxModelError: the file cannot be used.

    Example:
        >>> OnnxModel("missing.onnx")
        Traceback (most recent call last):
        captum_lie_onnx.errors.OnnxModelError: There is no model file missing.onnx.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int | None = None,
        optimization: Optimization = "all",
        preprocessing: Preprocessing | Literal["metadata"] | None = "metadata",
        assumed: Preprocessing | None = None,
        limits: Limits | None = None,
        batch_size: int | None = None,
        output: str | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "path": path, "threads": threads, "optimization": optimization,
            "preprocessing": preprocessing, "assumed": assumed, "limits": limits,
            "batch_size": batch_size, "output": output,
        }  # fmt: skip
        if batch_size is not None and batch_size < 1:
            raise InvalidValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.path = Path(path)
        self._engine, self.outputs, self.description = open_engine(
            self.path, threads, optimization, limits
        )
        try:
            self._adapt(output, preprocessing, assumed, batch_size)
        except BaseException:
            self.close()
            raise

    def _adapt(
        self,
        output: str | None,
        preprocessing: Preprocessing | Literal["metadata"] | None,
        assumed: Preprocessing | None,
        batch_size: int | None,
    ) -> None:
        """Settle what the graph takes and gives."""
        self.output = output or self.outputs[0]
        if self.output not in self.outputs:
            raise OnnxModelError(
                f"{self.path} has no output {output!r}; it has {', '.join(self.outputs)}."
            )
        (declared,) = self.description["inputs"]
        self._name: str = declared["name"]
        self._dtype: str = declared["dtype"]
        self._shape: list[int | str] = declared["shape"]
        self.stated = False
        if preprocessing == "metadata":
            metadata = read(self.description["metadata"])
            self.stated = metadata is not None
            preprocessing = metadata.preprocessing if metadata else None
        if preprocessing is None:
            preprocessing = assumed or Preprocessing()
            if _layout(self._shape) == "NHWC":
                preprocessing = replace(preprocessing, layout="NHWC")
        self.preprocessing = preprocessing
        fixed = self._shape[0] if isinstance(self._shape[0], int) and self._shape[0] > 0 else None
        self.fixed_batch = fixed
        self._batch = (
            1
            if self.description["quantisation"] == "dynamic" and not fixed
            else fixed or batch_size
        )

    @property
    def channels(self) -> int | None:
        """Channels of the images that the graph takes, if it declares them."""
        declared, _, _ = self._chw
        return declared if isinstance(declared, int) else None

    @property
    def input_size(self) -> tuple[int, int] | None:
        """``(height, width)`` that the graph takes, if it takes only one or names one."""
        _, height, width = self._chw
        if isinstance(height, int) and isinstance(width, int):
            return height, width
        return self.preprocessing.size

    def __call__(self, images: Tensor) -> Tensor:
        """Scores of images.

        Args:
            images: ``[N, C, H, W]`` in [0, 1], floating point, on any device.

        Returns:
            The graph's output, ``[N, ...]``, float32 (float64 if the graph gives that), on the CPU.

        Raises:
            TypeError, OnnxModelError: images that the graph does not take, or it fails to run.
        """
        value = self.prepare(images)
        size = self._batch or max(len(value), 1)
        parts = [self._run(value[i : i + size]) for i in range(0, len(value), size)]
        found = torch.from_numpy(np.concatenate(parts))
        return found if found.dtype == torch.float64 else found.float()

    def prepare(self, images: Tensor) -> Array:
        """What the graph takes for these images.

        Raises:
            TypeError, OnnxModelError: images that the graph does not take.
        """
        check_images(images)
        self._check_size(tuple(images.shape))
        x = images.detach().cpu()
        about = self.preprocessing
        if about.channels == "BGR":
            x = x.flip(1)
        if about.mean is not None and about.std is not None and not about.included:
            if len(about.mean) not in (1, x.shape[1]):
                raise OnnxModelError(
                    f"{self.path} is normalised with {len(about.mean)} numbers, but the images "
                    f"have {x.shape[1]} channels. Give one number for each channel, or one for all."
                )
            mean, std = (
                torch.tensor(v, dtype=x.dtype)[:, None, None] for v in (about.mean, about.std)
            )
            x = (x - mean) / std
        if about.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
        if self._dtype == "uint8":
            x = (x * 255).round().clamp(0, 255)
        return np.ascontiguousarray(x.numpy().astype(self._dtype, copy=False))

    @contextmanager
    def reoptimized(self, optimization: Optimization) -> Iterator[None]:
        """Within, the graph is run with another optimisation."""
        one_of("optimization", optimization, OPTIMIZATIONS)
        with self._reloaded(optimization, precise=False):
            yield

    @contextmanager
    def precise(self) -> Iterator[None]:
        """Within, products of unsigned and signed bytes are added exactly.

        That is the session option ``session.x64quantprecision``. On x86 CPUs without VNNI such sums
        else saturate; everywhere else it changes nothing.
        """
        with self._reloaded(self._arguments["optimization"], precise=True):
            yield

    @contextmanager
    def _reloaded(self, optimization: str, precise: bool) -> Iterator[None]:
        engine = self._engine
        try:
            self._engine = engine.reloaded(optimization, precise)
            yield
        finally:
            self._engine = engine

    def close(self) -> None:
        """End the child process, if there is one."""
        if isinstance(self._engine, IsolatedSession):
            self._engine.close()

    def __enter__(self) -> OnnxModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        OnnxModel.__init__(self, **arguments)

    def __repr__(self) -> str:
        return f"OnnxModel({str(self.path)!r}, input {self._dtype} {self._shape})"

    @property
    def _chw(self) -> tuple[int | str, int | str, int | str]:
        """Declared channels, height and width."""
        a, b, c = self._shape[1:]
        return (c, a, b) if self.preprocessing.layout == "NHWC" else (a, b, c)

    def _check_size(self, shape: tuple[int, ...]) -> None:
        for got, declared, name in zip(
            shape[1:], self._chw, ("channels", "rows", "columns"), strict=True
        ):
            if isinstance(declared, int) and got != declared:
                raise OnnxModelError(
                    f"{self.path} takes images with {declared} {name}; got {got} (images "
                    f"{list(shape)}). Resize or convert them first."
                )

    def _run(self, value: Array) -> Array:
        n = len(value)
        if self.fixed_batch and n < self.fixed_batch:
            value = np.concatenate([value, np.repeat(value[-1:], self.fixed_batch - n, axis=0)])
        try:
            (found,) = self._engine.run(self._name, value, [self.output])
        except OnnxModelError:
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise OnnxModelError(f"{self.path} failed to run: {reason}") from error
        if not found.ndim or len(found) != len(value):
            raise OnnxModelError(
                f"{self.path} must give one row for each of {len(value)} images; its output "
                f"{self.output!r} has shape {list(found.shape)}."
            )
        return found[:n]


def _layout(shape: list[int | str]) -> Literal["NCHW", "NHWC"]:
    """By where the channels are: few of them."""
    channels = (1, 3, 4)
    return "NHWC" if shape[3] in channels and shape[1] not in channels else "NCHW"
