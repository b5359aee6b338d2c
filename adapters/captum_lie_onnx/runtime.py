"""``OnnxModel``: an ONNX file as a function of image tensors, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.extending.checks import check_images
from captum_lie_onnx.child.messages import Array
from captum_lie_onnx.engine import FileHolder, open_file
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.metadata import Preprocessing, read
from captum_lie_onnx.running import Optimization, Running, RunOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: What a graph's input is: as the file says, as given, or (None) as :attr:`OnnxModel.assumed`.
Stated = Preprocessing | Literal["metadata"] | None


class OnnxModel(FileHolder):
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
        preprocessing: Stated = "metadata",
        assumed: Preprocessing | None = None,
        batch_size: int | None = None,
        output: str | None = None,
        **running: Unpack[RunOptions],
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InvalidValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.path, self._running = Path(path), Running(**running)
        self._again = partial(
            type(self), path, preprocessing=preprocessing, assumed=assumed, batch_size=batch_size,
            output=output, **running,
        )  # fmt: skip
        self._file = open_file(self.path, self._running)
        self.outputs, self.description = self._file.outputs, self._file.description
        try:
            self.output = self._chosen(output)
            self.stated, self.preprocessing = self._prepared(preprocessing, assumed)
        except BaseException:
            self.close()
            raise
        self.fixed_batch = self._file.fixed_batch
        self._batch = 1 if self.description["quantisation"] == "dynamic" else batch_size

    def _chosen(self, output: str | None) -> str:
        """The name of the output to return."""
        output = output or self.outputs[0]
        if output not in self.outputs:
            raise OnnxModelError(
                f"{self.path} has no output {output!r}; it has {', '.join(self.outputs)}."
            )
        return output

    def _prepared(
        self, preprocessing: Stated, assumed: Preprocessing | None
    ) -> tuple[bool, Preprocessing]:
        """Whether the file says what its input is, and what that is."""
        stated = False
        if preprocessing == "metadata":
            metadata = read(self.description["metadata"])
            stated = metadata is not None
            preprocessing = metadata.preprocessing if metadata else None
        if preprocessing is None:
            preprocessing = assumed or Preprocessing()
            if _layout(self._file.input["shape"]) == "NHWC":
                preprocessing = replace(preprocessing, layout="NHWC")
        return stated, preprocessing

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
        (array,) = self._file.run(self.prepare(images), [self.output], self._batch)
        scores = torch.from_numpy(array)
        return scores if scores.dtype == torch.float64 else scores.float()

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
        dtype = self._file.input["dtype"]
        if dtype == "uint8":
            x = (x * 255).round().clamp(0, 255)
        return np.ascontiguousarray(x.numpy().astype(dtype, copy=False))

    @contextmanager
    def optimised_anew(self, optimization: Optimization) -> Iterator[None]:
        """Within, the graph is run with another optimisation."""
        with self._reloaded(replace(self._running, optimization=optimization), precise=False):
            yield

    @contextmanager
    def precise(self) -> Iterator[None]:
        """Within, products of unsigned and signed bytes are added exactly.

        That is the session option ``session.x64quantprecision``. On x86 CPUs without VNNI such sums
        else saturate; everywhere else it changes nothing.
        """
        with self._reloaded(self._running, precise=True):
            yield

    @contextmanager
    def _reloaded(self, running: Running, precise: bool) -> Iterator[None]:
        file = self._file
        try:
            self._file = file.reloaded(running.optimization, precise)
            yield
        finally:
            self._file = file

    def __reduce__(self) -> tuple[partial[OnnxModel], tuple[()]]:
        return self._again, ()

    def __repr__(self) -> str:
        declared = self._file.input
        return f"OnnxModel({str(self.path)!r}, input {declared['dtype']} {declared['shape']})"

    @property
    def _chw(self) -> tuple[int | str, int | str, int | str]:
        """Declared channels, height and width."""
        a, b, c = self._file.input["shape"][1:]
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


def _layout(shape: list[int | str]) -> Literal["NCHW", "NHWC"]:
    """By where the channels are: few of them."""
    channels = (1, 3, 4)
    return "NHWC" if shape[3] in channels and shape[1] not in channels else "NCHW"
