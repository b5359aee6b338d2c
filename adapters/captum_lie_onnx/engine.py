"""A loaded file: onnxruntime in this process, or in a child process with limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from captum_lie.errors import first_line
from captum_lie_onnx.child.describing import describe
from captum_lie_onnx.child.graph import Declared
from captum_lie_onnx.child.messages import Array
from captum_lie_onnx.child.session import Session
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.inspection import check_file
from captum_lie_onnx.isolation import IsolatedSession
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.running import Optimization, Running

if TYPE_CHECKING:
    from typing_extensions import Self


class Engine(Protocol):
    """Something that runs a loaded file."""

    def reloaded(self, optimization: Optimization, precise: bool = False) -> Engine:
        """The same file with another optimisation of the graph, or with exact sums of bytes."""

    def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]:
        """The named outputs for one value of the named input."""

    def close(self) -> None:
        """End the process that it runs in, if that is a child."""


@dataclass(frozen=True)
class OnnxFile:
    """A file that was opened and loaded.

    Attributes:
        path: where it lies.
        engine: what runs it.
        outputs: their names.
        description: what it says it is, see :func:`captum_lie_onnx.child.describing.describe`.
    """

    path: Path
    engine: Engine
    outputs: list[str]
    description: dict[str, Any]

    @property
    def input(self) -> Declared:
        """The images that it takes, as it declares them."""
        declared: Declared
        (declared,) = self.description["inputs"]
        return declared

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that it takes; None if it takes any."""
        size = self.input["shape"][0]
        return size if isinstance(size, int) else None

    def run(self, value: Array, outputs: list[str], batch_size: int | None = None) -> list[Array]:
        """Outputs for any number of images, each ``[N, ...]``.

        Args:
            value: the input, ``[N, ...]``.
            batch_size: at most so many images a call, where the file takes any number.

        Raises:
            OnnxModelError: it fails to run, or does not give a row for each image.
        """
        size = self.fixed_batch or batch_size or max(len(value), 1)
        parts = [self._run_batch(value[i : i + size], outputs) for i in range(0, len(value), size)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _run_batch(self, value: Array, outputs: list[str]) -> list[Array]:
        """One call; batches too short are filled up by repeating their last image."""
        n, size = len(value), self.fixed_batch
        if size is not None and n < size:
            value = np.concatenate([value, np.repeat(value[-1:], size - n, axis=0)])
        try:
            arrays = self.engine.run(self.input["name"], value, outputs)
        except OnnxModelError:
            raise
        except Exception as error:  # onnxruntime's own errors have no common type
            raise OnnxModelError(f"{self.path} failed to run: {first_line(error)}") from error
        for output, array in zip(outputs, arrays, strict=True):
            if not array.ndim or len(array) != len(value):
                raise OnnxModelError(
                    f"{self.path} must give one row for each of {len(value)} images; its output "
                    f"{output!r} has shape {list(array.shape)}."
                )
        return [array[:n] for array in arrays]

    def reloaded(self, optimization: Optimization, precise: bool = False) -> OnnxFile:
        """The same file with another optimisation of the graph, or with exact sums of bytes."""
        return replace(self, engine=self.engine.reloaded(optimization, precise))


class FileHolder:
    """What is built on a loaded file; within ``with`` the file is closed on leaving."""

    _file: OnnxFile

    def close(self) -> None:
        """End the child process, if there is one."""
        self._file.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_file(path: Path, running: Running) -> OnnxFile:
    """Load a file.

    Raises:
        OnnxModelError: it cannot be loaded.
    """
    check_file(path, running.limits or Limits())
    threads, optimization = running.threads or torch.get_num_threads(), running.optimization
    if running.limits is not None:
        isolated = IsolatedSession(path, running.limits)
        try:
            description = isolated.describe()
            return OnnxFile(path, isolated, isolated.load(threads, optimization), description)
        except BaseException:
            isolated.close()
            raise
    try:
        description = describe(str(path), memory=0, file_bytes=0, domains=[], checked=False)
        session = Session(str(path), threads, optimization)
    except Exception as error:  # onnxruntime's own errors have no common type
        raise OnnxModelError(f"{path} cannot be used: {first_line(error)}") from error
    return OnnxFile(path, session, session.outputs, description)
